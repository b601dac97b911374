import torch
from safetensors.torch import load_file

from afterglow.evaluation.measurements import judge
from afterglow.evaluation.result import EvaluationResult


def test_a_file_with_all_maps_and_masks_of_everything_but_controls(generations, tmp_path):
    look = EvaluationResult(*(lambda rows, maps, thresholds: (rows, generations, maps, thresholds))(*judge(generations)))
    look.save(tmp_path / "maps" / "step=3.safetensors")
    found = load_file(tmp_path / "maps" / "step=3.safetensors")
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["step=3.safetensors"]
    assert len(found["images"]) == 12 and torch.equal(found["images"], generations.images[:12])
    for name in look.maps:
        assert found[f"map/{name}"].dtype == torch.float16 and len(found[f"map/{name}"]) == 12
        assert found[f"mask/{name}"].shape == (12, 8, 8)


def test_the_mask_is_the_map_above_its_threshold(generations):
    look = EvaluationResult(*(lambda rows, maps, thresholds: (rows, generations, maps, thresholds))(*judge(generations)))
    rows = look.rows_of("local")
    assert rows == [4, 5, 6, 7]
    assert torch.equal(look.mask("end_token.last.first_eos.be")[rows], generations.region[rows, 0])
