import pytest
import torch

from afterglow.sampling.loop import Sampler
from afterglow.sampling.setup import encode_cfg_batch, initial_noise


def test_with_prompts_keeps_everything_else(small_captioned, small_plain):
    model = small_captioned()
    setup = Sampler(steps=2, guidance_scale=2.0).setup(model, ["a dog", "cat"], [3, 4])
    changed = setup.with_prompts(model, ["a very red house", "cat"])
    assert (
        changed.captions == ("a very red house", "cat")
        and changed.seeds == [3, 4]
        and changed.scale == 2.0
        and changed.cond_slice == slice(2, None)
    )
    assert torch.equal(changed.condition.encoder_hidden_states[:2], setup.condition.encoder_hidden_states[:2]) and torch.equal(
        changed.condition.encoder_hidden_states[3], setup.condition.encoder_hidden_states[3]
    )
    assert changed.condition.prompt_length.tolist() == [2, 2, 6, 3] and not changed.condition.encoder_hidden_states.requires_grad
    assert len(setup.scheduler().timesteps) == 2 and setup.scheduler() is not setup.scheduler()
    assert encode_cfg_batch(small_plain(), [""]) is None


def test_initial_noise_draws_each_row_from_its_generator():
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    noise = initial_noise((1, 2, 2), generators)
    alone = torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(4))
    assert noise.shape == (2, 1, 2, 2) and torch.equal(noise[1:], alone)
    with pytest.raises(RuntimeError):
        initial_noise((1, 2), [])
