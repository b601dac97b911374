import torch
from safetensors.torch import load_file

from afterglow.probes.judge import judge
from afterglow.probes.look import Look


def test_a_file_with_all_maps_and_masks_of_everything_but_controls(evidence, tmp_path):
    look = Look(*(lambda rows, maps, thresholds: (rows, evidence, maps, thresholds))(*judge(evidence)))
    look.save(tmp_path / "maps" / "step=3.safetensors")
    found = load_file(tmp_path / "maps" / "step=3.safetensors")
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["step=3.safetensors"]
    assert len(found["images"]) == 12 and torch.equal(found["images"], evidence.images[:12])
    for name in look.maps:
        assert found[f"map/{name}"].dtype == torch.float16 and len(found[f"map/{name}"]) == 12
        assert found[f"mask/{name}"].shape == (12, 8, 8)


def test_the_mask_is_the_map_above_its_threshold(evidence):
    look = Look(*(lambda rows, maps, thresholds: (rows, evidence, maps, thresholds))(*judge(evidence)))
    rows = look.rows_of("local")
    assert rows == [4, 5, 6, 7]
    assert torch.equal(look.mask("end_token.last.first_eos.be")[rows], evidence.region[rows, 0])
