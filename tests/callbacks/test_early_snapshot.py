import pytest
import torch

from afterglow.callbacks.early_snapshot import load_early_snapshot, save_early_snapshot
from afterglow.models.ddpm import DDPM

UNET = {
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def test_the_early_network_comes_back_and_the_model_stays_as_it_is(tmp_path):
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


def test_a_run_that_kept_none_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"early_difference needs the early network .*early.safetensors"):
        load_early_snapshot(DDPM(UNET, resolution=8), tmp_path)
