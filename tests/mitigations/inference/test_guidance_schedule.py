from dataclasses import replace

import pytest
import torch

from afterglow.mitigations.inference.guidance_schedule import (
    DynamicTransition,
    OppositeDynamic,
    StaticTransition,
    _has_begun,
    _opposite_transition,
)
from afterglow.sampling.loop import Sampler, generate, sample_steps
from afterglow.sampling.setup import CFGOutputs

FALLING = [5.0, 4.0, 3.0, 2.0, 1.0, 0.5]


def halves(index, timestep, delta, scale=3.0):
    """Two generations with outputs 1 and 1 + delta everywhere."""
    uncond = torch.ones(2, 1, 2, 2)
    return CFGOutputs(index, timestep, torch.zeros_like(uncond), uncond, uncond + torch.tensor(delta)[:, None, None, None], scale)


def scales(guide, curve):
    """The scale that moved the sampler at each step, of two generations with these ||Delta||, [T, 2]; ||delta|| = 2 |delta| here."""
    found = []
    for index, norms in enumerate(curve):
        step = halves(index, 900 - 100 * index, [norm / 2 for norm in norms])
        found.append(((guide(step) - step.uncond) / (step.cond - step.uncond))[:, 0, 0, 0])
    return torch.stack(found)


def test_static_transition_with_sign_and_scale(heard, setup):
    for before in (0.0, -2.0):
        guide = StaticTransition(700, before)(heard, setup).guide
        found = scales(guide, [[1.0, 1.0]] * 5)[:, 0].tolist()  # t = 900, 800, 700, 600, 500: tau itself is guided
        assert found == pytest.approx([before, before, 3.0, 3.0, 3.0], abs=1e-5)


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "DPMSolverMultistepScheduler", "EulerAncestralDiscreteScheduler"])
def test_the_finer_tail_begins_at_tau_and_ends_where_the_coarse_one_does(heard, scheduler):
    sampler = Sampler(scheduler, steps=4, guidance_scale=2.0)
    setup = sampler.setup(heard, ["a"], [0])
    coarse = setup.scheduler().timesteps
    tau = float(coarse[2])
    joined = StaticTransition(tau, finer=True)(heard, setup).scheduler()
    assert joined.timesteps[:2].tolist() == coarse[:2].tolist() and tau - 6 < joined.timesteps[2] <= tau
    assert len(joined.timesteps) > 50 and (joined.timesteps.diff() < 0).all()
    assert len(StaticTransition(tau + 0.5, finer=True)(heard, setup).scheduler().timesteps) == 4  # tau is no timestep of the sampler's
    found = generate(heard, ["a"], [0], sampler, mitigation=StaticTransition(tau, finer=True))
    again = generate(heard, ["a"], [0], sampler, mitigation=StaticTransition(tau, finer=True))
    assert torch.equal(found.timesteps, joined.timesteps.long()) and torch.equal(found.images, again.images)


@pytest.mark.parametrize(
    ("curve", "begins"),
    [
        ([2.0, 1.0, 1.5, 1.0, 2.0, 2.0], 2),  # at once: the earliest there can be
        ([5.0, 4.0, 3.0, 2.0, 3.0, 4.0], 4),  # late, seen one step later
        (FALLING, 5),  # never: the latest step
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 5),  # flat is no minimum
    ],
)
def test_dynamic_transition_on_written_curves(curve, begins, heard, setup):
    guide = DynamicTransition(latest=5 / 6)(heard, setup).guide
    other = [1.0, 0.9, 1.0, 0.5, 0.4, 0.3]  # of the second generation: begins at 2, whatever the first does
    found = scales(guide, list(zip(curve, other, strict=True)))
    assert found[:, 0].tolist() == pytest.approx([0.0] * begins + [3.0] * (6 - begins), abs=1e-5)
    assert found[:, 1].tolist() == pytest.approx([0.0] * 2 + [3.0] * 4, abs=1e-5)


def test_the_scale_before_is_an_option_and_the_latest_step_may_be_never(heard, setup):
    guide = DynamicTransition(latest=1.0, before=1.0)(heard, setup).guide
    assert scales(guide, [[norm, norm] for norm in FALLING])[:, 0].tolist() == pytest.approx([1.0] * 6, abs=1e-5)
    assert not _has_begun(torch.tensor(FALLING)[:, None], 6).any() and _has_begun(torch.tensor(FALLING)[:, None], 5).all()


def test__opposite_transition_is_the_first_minimum_or_the_second_or_five():
    assert _opposite_transition(torch.tensor([3.0, 2.0, 1.0, 2.0])) == 2
    assert _opposite_transition(torch.tensor([2.0, 1.0, 2.0, 1.0, 2.0])) == 3  # the first has index 1
    assert _opposite_transition(torch.tensor([2.0, 1.0, 2.0, 3.0])) == 5 == _opposite_transition(torch.tensor(FALLING))


def test_opposite_guidance_until_the_transition_of_the_first_pass(heard, setup):
    walked = OppositeDynamic()(heard, setup)
    transition = walked.extras["mitigation.transition"].tolist()
    states = [state for _, state in sample_steps(heard, replace(setup, guide=lambda h: h.uncond - h.scale * (h.cond - h.uncond)))]
    turns = [1 - torch.cosine_similarity(a.flatten(1), b.flatten(1)) for a, b in zip(states, states[1:], strict=False)]
    assert transition == [_opposite_transition(curve) for curve in torch.stack(turns, 1)]
    walked = OppositeDynamic(latest=0.5)(
        heard, replace(setup, captions=setup.captions[:2], seeds=setup.seeds[:2], condition=setup.condition[[0, 1, 3, 4]])
    )
    limits = [min(int(step), 3) for step in transition[:2]]
    found = scales(walked.guide, [[1.0, 1.0]] * 6)
    for row, limit in enumerate(limits):
        assert found[:, row].tolist() == pytest.approx([-3.0] * limit + [3.0] * (6 - limit), abs=1e-5)


def test_the_published_code_toggles_the_sign(heard, setup):
    few = replace(setup, captions=setup.captions[:2], seeds=setup.seeds[:2], condition=setup.condition[[0, 1, 3, 4]])
    walked = OppositeDynamic(toggled=True)(heard, few)
    limit = int(walked.extras["mitigation.transition"][0])
    assert limit >= 2
    assert scales(walked.guide, [[1.0, 1.0]] * 6)[:, 0].tolist()[:limit] == pytest.approx([-3.0, 3.0, -3.0, 3.0, -3.0][:limit], abs=1e-5)
