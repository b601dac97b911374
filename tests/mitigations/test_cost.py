import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from afterglow.mitigations.cost import CostTracker, cached_gflops, flops_per_image
from afterglow.mitigations.inference.noise_selection import NoiseSelection
from afterglow.mitigations.inference.prompt_optimization import PromptOptimization
from afterglow.sampling.loop import generate
from afterglow.sampling.recorder import CaptureConfig


def test_a_plain_pass_has_two_evaluations_a_step_and_counting_changes_nothing(heard, sampler, nothing, setup):
    plain = generate(heard, setup.captions, setup.seeds, sampler, CaptureConfig())
    counted = generate(heard, setup.captions, setup.seeds, sampler, CaptureConfig(), mitigation=CostTracker())
    assert torch.equal(plain.images, counted.images) and torch.equal(plain.guidance, counted.guidance)
    assert counted.extras["cost.evaluations"].tolist() == [12.0] * 3 and (counted.extras["cost.seconds"] > 0).all()
    more = generate(heard, setup.captions, setup.seeds, sampler, nothing, mitigation=CostTracker(NoiseSelection(3)))
    assert more.extras["cost.evaluations"].tolist() == [18.0] * 3
    assert not any(module._forward_hooks for module in heard.unet.modules())


def test_a_mitigation_that_fails_leaves_no_hook(heard, sampler, nothing, setup):
    def fails(model, setup):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        generate(heard, setup.captions, setup.seeds, sampler, nothing, mitigation=CostTracker(fails))
    assert not any(module._forward_hooks for module in heard.unet.modules())


def test_flops_are_those_of_the_network_at_every_step_and_gradients_cost_more(heard, setup, tmp_path):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        heard.unet(torch.zeros(2, 3, 8, 8), 1, setup.condition.encoder_hidden_states[:2])
    plain = flops_per_image(heard, setup)
    assert plain == pytest.approx(6 * counter.get_total_flops())
    one_more = PromptOptimization(0.0, max_steps=1)  # two calls more, one of them with its way back
    assert plain * (1 + 2 / 6) < flops_per_image(heard, setup, one_more) < plain * (1 + 4 / 6)
    file = tmp_path / "gflops.json"
    assert cached_gflops(file, "none", heard, setup, None) == plain / 1e9
    file.write_text(json.dumps({"none": 7.0}))
    assert cached_gflops(file, "none", heard, setup, None) == 7.0
