import pytest
import torch

from afterglow.callbacks.run_files import RunFiles, load_early_snapshot, save_early_snapshot
from afterglow.evaluation.measurements import measure_generations
from afterglow.models.ddpm import DDPM

UNET = {
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def test_load_early_snapshot_restores_the_saved_weights_in_a_copy(tmp_path):
    model = DDPM(UNET, resolution=8).eval()
    noisy, times = torch.randn(2, 3, 8, 8), torch.tensor([10, 10])
    with torch.no_grad():
        before = model(noisy, times)
        save_early_snapshot(model, tmp_path)
        for parameter in model.unet.parameters():
            parameter.add_(0.1)
        now, early = model(noisy, times), load_early_snapshot(model, tmp_path)
        assert torch.equal(early(noisy, times), before) and not torch.equal(now, before)
        assert torch.equal(model(noisy, times), now)
    assert early.scheduler is model.scheduler


def test_load_early_snapshot_without_a_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"early_difference needs the early weights .*early.safetensors"):
        load_early_snapshot(DDPM(UNET, resolution=8), tmp_path)


def test_run_files_write_maps_always_and_generations_and_emergence_at_the_end(tmp_path, generations):
    files, result = RunFiles(tmp_path), measure_generations(generations)
    for step, last in ((0, False), (5, True)):
        files.table.add(result.measurements.assign(step=step, epoch=0.0, seconds=0.0))
        emergence = files.write(result, step, last=last)
        assert (emergence is not None) == last == (tmp_path / "emergence.json").exists()
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["step=0.safetensors", "step=5.safetensors"]
    assert [path.name for path in (tmp_path / "generations").iterdir()] == ["step=5"]
    assert RunFiles(tmp_path, step=3).measurements["step"].unique().tolist() == [0]
