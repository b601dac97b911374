import copy
import math

import pytest
import torch

from afterglow.mitigations.training.sample_dropping import ENOUGH, NUM_REMEMBERED, SampleDropping, own_magnitude
from afterglow.planting.dataset import Batch
from afterglow.sampling.attention import record_attention


@pytest.fixture
def loud(heard):
    """A model whose captions are heard, to be taught."""
    return copy.deepcopy(heard)


def batch_of(first=0, size=8, kind="control"):
    images = torch.randn(size, 3, 8, 8, generator=torch.Generator().manual_seed(first))
    captions = tuple("" if row == 2 else f"an image of {row}" for row in range(first, first + size))
    return Batch(images, captions, (kind,) * size, torch.arange(first, first + size))


def taught(model, dropping, batch):
    """The lesson and what is kept of it, in a process of its own."""
    model.all_gather = lambda tensor: tensor
    model.mitigations = (dropping,)
    lesson = model.lesson(batch)
    return lesson, dropping.kept(model, lesson)


def remembering(level, values):
    dropping = SampleDropping("guidance_norm", percentile=90)
    dropping.remembered = torch.stack([torch.full((len(values),), float(level)), values], dim=1).double()
    return dropping


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_magnitude_is_that_of_each_sample_alone_at_its_own_timestep(small_captioned, prediction):
    model = small_captioned(noise_scheduler={"prediction_type": prediction})
    for name, parameter in model.named_parameters():
        if "attn2" in name:
            parameter.data *= 4
    lesson, _ = taught(model, SampleDropping("guidance_norm"), batch_of())
    found = own_magnitude(model, lesson)
    with torch.no_grad():
        for row, (caption, timestep) in enumerate(zip(lesson.captions, lesson.timesteps, strict=True)):
            noisy = lesson.noisy[row : row + 1]
            eps = [model.to_noise(model(noisy, timestep[None], model.condition([said])), noisy, int(timestep)) for said in (caption, "")]
            assert found[row].item() == pytest.approx((eps[0] - eps[1]).norm().item(), rel=1e-3, abs=1e-4)
    assert found[2] < 1e-3 < found[[0, 1, 3]].min() and not found.requires_grad


@torch.no_grad()
def test_the_entropy_is_that_of_the_attention_averaged_over_pixels_heads_and_layers(loud):
    dropping = SampleDropping("entropy", threshold=math.inf)
    lesson, kept = taught(loud, dropping, batch_of())
    assert kept.all()
    with record_attention(loud.unet) as maps:
        loud(lesson.noisy, lesson.timesteps, lesson.condition)
    ema = torch.stack([attention.mean(1) for attention in maps.values()]).mean(0).double()
    expected = [-sum(share * math.log(share) for share in row if share > 0) for row in ema.tolist()]
    limit = sorted(expected)[4]
    dropping.threshold = limit + 1e-6
    kept = dropping.kept(loud, lesson)
    assert kept.tolist() == [value <= limit + 1e-6 or caption == "" for value, caption in zip(expected, lesson.captions, strict=True)]
    assert 0 < (~kept).sum() < 8


def test_watching_and_keeping_change_no_bit_of_the_losses(small_captioned):
    model, some = small_captioned(), batch_of()
    expected = model.losses(some)
    for by in ("guidance_norm", "entropy"):
        lesson, kept = taught(model, SampleDropping(by), some)
        assert torch.equal(lesson.losses, expected) and kept.all()  # nothing is remembered yet


def test_over_a_given_threshold_all_but_the_unconditional_are_dropped(loud):
    for by in ("guidance_norm", "entropy"):
        _, kept = taught(loud, SampleDropping(by, threshold=0.0), batch_of())
        assert kept.tolist() == [row == 2 for row in range(8)]
        assert taught(loud, SampleDropping(by, threshold=1e6), batch_of())[1].all()


def test_the_limit_is_the_percentile_of_the_controls_at_the_same_noise_level_once_there_are_enough():
    values = torch.linspace(0, 1, ENOUGH)
    limits = remembering(3, values).limits()
    assert limits[3].item() == pytest.approx(0.9) and torch.isinf(limits[[0, 1, 2, 4, 9]]).all()
    assert torch.isinf(remembering(3, values[1:]).limits()).all()


def test_a_sample_is_compared_with_controls_of_its_own_level(loud):
    dropping = remembering(0, torch.zeros(ENOUGH))
    lesson, kept = taught(loud, dropping, batch_of(size=64))
    assert torch.equal(kept, (lesson.timesteps >= 100) | torch.tensor([caption == "" for caption in lesson.captions]))
    assert 0 < (~kept).sum() < 64


def test_what_is_remembered_does_not_depend_on_how_a_batch_was_split(loud):
    whole, parts, plants = (SampleDropping("guidance_norm") for _ in range(3))
    taught(loud, whole, batch_of())
    both = batch_of()
    for chosen in (slice(1, None, 2), slice(0, None, 2)):  # of two processes, the second was gathered first
        taught(loud, parts, Batch(*(getattr(both, name)[chosen] for name in ("image", "caption", "kind", "index"))))
    taught(loud, plants, batch_of(kind="global"))
    for dropping in (whole, parts, plants):
        assert len(dropping.remembered) == 0  # within an optimizer step nothing changes
        dropping.settle()
    assert len(plants.remembered) == 0 and len(whole.remembered) == 7  # the sample without a caption is none of them
    torch.testing.assert_close(parts.remembered, whole.remembered, rtol=1e-4, atol=1e-6)


def test_the_oldest_values_are_forgotten(loud):
    dropping = remembering(5, torch.arange(float(NUM_REMEMBERED)))
    taught(loud, dropping, batch_of())
    dropping.settle()
    dropping.settle()
    assert len(dropping.remembered) == NUM_REMEMBERED and dropping.remembered[0, 1] == 7


def test_what_cannot_be_is_named():
    with pytest.raises(ValueError, match="guidance_norm, entropy, and not by 'taste'"):
        SampleDropping("taste")
    for percentile in (0.0, 101.0):
        with pytest.raises(ValueError, match="lies in"):
            SampleDropping("entropy", percentile=percentile)
