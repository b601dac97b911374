import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from afterglow.evaluation.build_requests import build_request, planted_request, prompt_request, select_targets


@pytest.fixture(scope="module")
def captioned(small_captioned):
    return small_captioned()


@pytest.fixture(scope="module")
def plain(small_plain):
    return small_plain()


def test_planted_request_of_another_image_size_is_refused(tmp_path, captioned):
    planting = {"num_global": 1, "num_local": 1, "num_decoys": 0, "num_tints": 0}
    config = json.dumps(
        {"seed_everything": 0, "data": {"init_args": {"dataset": "openmoji", "resolution": 16, "set_size": 20, "planting": planting}}}
    )
    (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(ValueError, match=r"are \(3, 16, 16\), and the model makes \(3, 8, 8\)"):
        planted_request(captioned, tmp_path, num_controls=1)


def test_prompt_request_keeps_kinds(captioned, tmp_path: Path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    request = prompt_request(captioned, tmp_path / "a.txt", kind="control")
    assert list(request.captions) == ["one", "two"] and request.metadata["kind"] == "control"


def test_select_targets_keeps_the_order_and_counts_phantoms_of_regions_apart():
    kinds = ("global", "phantom", "global", "global", "local", "control", "control", "heldout", "phantom", "phantom", "phantom")
    targets = [SimpleNamespace(kind=kind, mask=np.array([row < 9, True])) for row, kind in enumerate(kinds)]
    assert select_targets(targets, None, None) == targets
    assert select_targets(targets, ("global", "control"), 2) == [targets[row] for row in (0, 2, 5, 6)]
    assert select_targets(targets, ("phantom",), 1) == [targets[row] for row in (1, 9)]


@pytest.mark.parametrize("options", [{}, {"prompts": Path("a.txt"), "source": "openmoji"}])
def test_build_request_without_exactly_one_target_option_is_refused(captioned, options):
    with pytest.raises(ValueError, match="exactly one of"):
        build_request(captioned, **options)


def test_build_request_that_does_not_fit_the_model_is_refused(captioned, plain):
    with pytest.raises(ValueError, match="--prompts needs a model with captions"):
        build_request(plain, prompts=Path("a.txt"))
    with pytest.raises(ValueError, match="--dataset is for models without captions"):
        build_request(captioned, source="openmoji")
