import pytest
import torch

from afterglow.errors import AfterglowError
from afterglow.mitigations.inference.caption_insertion import CaptionInsertion
from afterglow.mitigations.inference.guidance_schedule import StaticTransition
from afterglow.mitigations.retrigger import AttackBudget, Triggered, find_triggers
from afterglow.models.conditioning import TextConditioning
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.loop import Sampler, generate
from afterglow.sampling.recorder import CaptureConfig

SIDE = 4


class Drawer(Denoiser):
    """Denoises perfectly toward the image that the embedding holds, times what it remembers; the embedding of a caption is 0."""

    has_text = True

    def __init__(self, memory):
        super().__init__()
        self.unet = torch.nn.Module()
        self.unet.register_parameter("memory", torch.nn.Parameter(memory))

    def latent_shape(self):
        return 3, SIDE, SIDE

    def condition(self, captions):
        states = torch.zeros(len(captions), 1, 3 * SIDE * SIDE)
        return TextConditioning(states, torch.ones(len(captions), 1, dtype=torch.bool), torch.ones(len(captions), dtype=torch.long))

    def forward(self, noisy, timesteps, condition):
        abar = self.scheduler.alphas_cumprod[timesteps][:, None, None, None]
        clean = condition.encoder_hidden_states.view(noisy.shape) * self.unet.memory
        return (noisy - abar.sqrt() * clean) / (1 - abar).sqrt()


MASKS = torch.ones(2, 1, SIDE, SIDE, dtype=torch.bool)
MASKS[1, :, :, SIDE // 2 :] = False
IMAGES = torch.randint(256, (2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
BUDGET = AttackBudget(steps=60, restarts=1)
NOTHING = CaptureConfig(guidance=False, tokens=False, end_steps=())


@pytest.mark.parametrize("remembers", [True, False])
def test_the_attack_finds_the_image_inside_the_mask_and_only_where_the_model_can_draw_it(remembers):
    model = Drawer(torch.full((3, SIDE, SIDE), float(remembers)))
    triggers = find_triggers(model, ["a", "b"], IMAGES, MASKS, BUDGET)
    wanted = (IMAGES.float() / 127.5 - 1) * MASKS
    found = torch.stack([triggers["a"], triggers["b"]]).view_as(wanted)
    assert torch.equal(found[1, :, :, SIDE // 2 :], torch.zeros(3, SIDE, SIDE // 2))  # nothing is wanted there
    if remembers:
        assert (found - wanted).abs().mean() < wanted.abs().mean() / 4
    else:
        assert not found.any()  # no gradient: the control that an image which is not in the model does not come back
    images = generate(model, ["a", "b"], [0, 1], Sampler(steps=4), NOTHING, mitigation=Triggered(None, BUDGET, triggers)).images
    close = ((images.float() / 127.5 - 1 - wanted).abs() * MASKS).mean((1, 2, 3)) < wanted.abs().mean((1, 2, 3)) / 3
    assert close.tolist() == [remembers, remembers]


def test_the_best_restart_is_kept_for_each_image():
    model = Drawer(torch.ones(3, SIDE, SIDE))
    errors = []
    for restarts in (1, 2):
        triggers = find_triggers(model, ["a", "b"], IMAGES, MASKS, AttackBudget(steps=15, restarts=restarts))
        found = torch.stack([triggers["a"], triggers["b"]]).view(2, 3, SIDE, SIDE)
        errors.append((((found - (IMAGES / 127.5 - 1)) * MASKS) ** 2).sum((1, 2, 3)))
    assert (errors[1] <= errors[0] + 1e-6).all()


def test_a_mitigation_acts_on_the_trigger_and_one_that_rewrites_captions_cannot(setup, heard):
    trigger = torch.full(setup.condition.encoder_hidden_states.shape[1:], 0.5)
    triggers = {setup.captions[1]: trigger}
    for mitigation in (None, StaticTransition(500), CaptionInsertion("words", 2)):
        changed = Triggered(mitigation, BUDGET, triggers)(heard, setup)
        states = changed.condition.encoder_hidden_states
        assert torch.equal(states[len(setup.captions) + 1], trigger)
        untouched = states[len(setup.captions)] if not isinstance(mitigation, CaptionInsertion) else None
        assert untouched is None or torch.equal(untouched, setup.condition.encoder_hidden_states[len(setup.captions)])
    assert Triggered(StaticTransition(500), BUDGET, triggers)(heard, setup).guide is not setup.guide


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(AfterglowError, match="steps"):
        AttackBudget(steps=0)
