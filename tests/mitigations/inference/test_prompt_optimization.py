import logging
from dataclasses import replace

import pytest
import torch

from afterglow.measures.bright_ending import bright_ending, local_detection
from afterglow.measures.guidance import guidance_norm
from afterglow.mitigations.inference.prompt_optimization import PromptOptimization, bright_ending_map, masked_delta_norm, optimize_embedding
from afterglow.sampling.loop import generate
from afterglow.sampling.recorder import CaptureConfig


@pytest.mark.parametrize("local", [False, True])
def test_it_lowers_its_own_loss_and_leaves_the_begin_token_alone(local, heard, setup, sampler):
    changed = PromptOptimization(0.0, local=local)(heard, setup)
    before, after = changed.extras["mitigation.loss_before"], changed.extras["mitigation.loss_after"]
    assert (after < 0.9 * before).all() and not changed.extras["mitigation.diverged"].any()
    old, new = setup.condition.encoder_hidden_states, changed.condition.encoder_hidden_states
    assert torch.equal(old[:3], new[:3]) and torch.equal(old[:, 0], new[:, 0])
    assert ((old[3:, 1:] - new[3:, 1:]).abs().amax((1, 2)) > 0.1).all() and not new.requires_grad
    generations = generate(heard, setup.captions, setup.seeds, sampler, CaptureConfig(end_layers=("down_blocks.0",)))
    expected = local_detection(generations, generations.layers, 1) if local else guidance_norm(generations, 1)
    torch.testing.assert_close(before, expected, rtol=2e-3, atol=0)  # the measures' own numbers, in halves


def test_the_map_is_that_of_the_end_of_a_pass(heard, setup, sampler):
    generations = generate(heard, setup.captions, setup.seeds, sampler, CaptureConfig(end_layers=("down_blocks.0",)))
    torch.testing.assert_close(bright_ending_map(heard, setup), bright_ending(generations, generations.layers), rtol=2e-3, atol=1e-4)


def test_images_are_optimized_each_by_itself(heard, setup, sampler):
    together = PromptOptimization(0.0)(heard, setup)
    alone = PromptOptimization(0.0)(heard, sampler.setup(heard, setup.captions[1:2], setup.seeds[1:2]))
    torch.testing.assert_close(alone.condition.encoder_hidden_states[1], together.condition.encoder_hidden_states[4], rtol=1e-3, atol=1e-3)


def test_target_and_trigger_stop_images_one_by_one(heard, setup):
    start = PromptOptimization(float("inf"))(heard, setup)
    losses = start.extras["mitigation.loss_before"]
    assert torch.equal(start.condition.encoder_hidden_states, setup.condition.encoder_hidden_states) and torch.equal(
        losses, start.extras["mitigation.loss_after"]
    )
    middle = float(losses.median())
    for how in (PromptOptimization(0.0, trigger=middle), PromptOptimization(middle)):
        states = how(heard, setup).condition.encoder_hidden_states
        moved = [not torch.equal(states[3 + row], setup.condition.encoder_hidden_states[3 + row]) for row in range(3)]
        assert moved == (losses > middle).tolist()
    found = PromptOptimization(middle)(heard, setup).extras["mitigation.loss_after"]
    assert (found <= middle).sum() >= 2


def quadratic(states):
    return states[:, 1:].flatten(1).square().sum(1)


def test_a_row_that_diverges_keeps_its_states_and_the_rest_goes_on():
    states = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))

    def loss(given):
        torn = bool((given[1] - states[1]).abs().max() > 0)  # not finite as soon as it moves
        return quadratic(given) * torch.tensor([1.0, torch.inf if torn else 1.0, 1.0])

    found = optimize_embedding(loss, states, PromptOptimization(0.0))
    assert found.diverged.tolist() == [0, 1, 0] and torch.equal(found.embeddings[1], states[1])
    assert found.after[0] < found.before[0] and found.after[2] < found.before[2] and found.after.isfinite().all()
    rising = optimize_embedding(
        lambda given: -quadratic(given) + 100 * (given - states).abs().flatten(1).amax(1), states, PromptOptimization(-1e9, -1e9)
    )
    assert rising.diverged.all() and torch.equal(rising.embeddings, states)


def test_divergence_is_said_for_each_prompt(heard, setup, caplog):
    with caplog.at_level(logging.WARNING):
        how = PromptOptimization(0.0, learning_rate=1e30)
        changed = how(heard, replace(setup))
    assert changed.extras["mitigation.diverged"].all() and torch.equal(
        changed.condition.encoder_hidden_states, setup.condition.encoder_hidden_states
    )
    assert [f"'{text}' (seed {seed}) diverged" in caplog.text for text, seed in zip(setup.captions, setup.seeds, strict=True)] == [True] * 3


def test_a_constant_mask_gives_the_magnitude():
    delta = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(masked_delta_norm(delta, torch.full((2, 4, 4), 0.3)), masked_delta_norm(delta, None))
