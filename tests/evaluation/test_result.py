import torch
from safetensors.torch import load_file

from afterglow.evaluation.measurements import measure_generations


def test_save_writes_maps_and_masks_of_all_kinds_but_controls(generations, tmp_path):
    result = measure_generations(generations)
    result.save(tmp_path / "maps" / "step=3.safetensors")
    found = load_file(tmp_path / "maps" / "step=3.safetensors")
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["step=3.safetensors"]
    assert len(found["images"]) == 12 and torch.equal(found["images"], generations.images[:12])
    for name in result.maps:
        assert found[f"map/{name}"].dtype == torch.float16 and len(found[f"map/{name}"]) == 12
        assert found[f"mask/{name}"].shape == (12, 8, 8)


def test_mask_is_the_map_above_its_threshold(generations):
    result = measure_generations(generations)
    rows = result.rows_of("local")
    assert rows == [4, 5, 6, 7]
    assert torch.equal(result.mask("end_token.last.first_eos.be")[rows], generations.region[rows, 0])
