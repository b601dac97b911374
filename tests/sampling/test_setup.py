import pytest
import torch

from afterglow.sampling.loop import Sampler
from afterglow.sampling.setup import CFGOutputs, classifier_free_guidance, encode_cfg_batch, initial_noise


def test_guidance_with_the_scale_that_was_asked_for_or_another():
    uncond, cond = torch.randn(2, 3, 1, 4, 4)
    halves = CFGOutputs(0, 999, uncond, uncond, cond, 3.0)
    torch.testing.assert_close(classifier_free_guidance(halves), uncond + 3 * (cond - uncond))
    torch.testing.assert_close(classifier_free_guidance(halves, -2.0), uncond - 2 * (cond - uncond))
    torch.testing.assert_close(classifier_free_guidance(halves, 0.0), uncond)
    assert classifier_free_guidance(halves, 1.0) is cond


def test_a_course_told_other_captions_keeps_everything_else(small_captioned, small_plain):
    model = small_captioned()
    setup = Sampler(steps=2, guidance_scale=2.0).setup(model, ["a dog", "cat"], [3, 4])
    told = setup.told(model, ["a very red house", "cat"])
    assert told.captions == ("a very red house", "cat") and told.seeds == [3, 4] and told.scale == 2.0 and told.half == slice(2, None)
    assert torch.equal(told.condition.states[:2], setup.condition.states[:2]) and torch.equal(
        told.condition.states[3], setup.condition.states[3]
    )
    assert told.condition.prompt_length.tolist() == [2, 2, 6, 3] and not told.condition.states.requires_grad
    assert len(setup.scheduler().timesteps) == 2 and setup.scheduler() is not setup.scheduler()
    assert encode_cfg_batch(small_plain(), [""]) is None


def test_noise_is_drawn_row_by_row_as_a_pipeline_draws_it():
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    noise = initial_noise((1, 2, 2), generators)
    alone = torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(4))
    assert noise.shape == (2, 1, 2, 2) and torch.equal(noise[1:], alone)
    with pytest.raises(RuntimeError):
        initial_noise((1, 2), [])
