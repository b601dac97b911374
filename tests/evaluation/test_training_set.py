import pytest

from afterglow.errors import AfterglowError
from afterglow.evaluation.training_set import training_set


def test_the_images_beyond_the_first_are_held_out_whole_clusters(small_plain):
    first = training_set(small_plain(), source="openmoji", set_size=40)
    assert len(first.controls) == 40 and len(first.heldout) == 1000
    assert not set(first.clusters[first.controls]) & set(first.clusters[first.heldout])


@pytest.mark.parametrize("options", [{}, {"source": "openmoji", "planted": "runs/x"}], ids=["none", "both"])
def test_one_training_set_must_be_named(options, small_plain):
    with pytest.raises(AfterglowError, match="either --run RUN or --dataset NAME"):
        training_set(small_plain(), **options)
