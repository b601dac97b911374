from dataclasses import replace

import torch

from afterglow.mitigations.inference.reanchoring import Reanchoring, anchored_scale, reanchored
from afterglow.sampling.guidance import CFGOutputs, classifier_free_guidance
from afterglow.sampling.loop import initial_delta_norm

LOW, HIGH = [0.0] * 6, [1e-6] * 6  # every step is above both


def test_the_scale_is_the_authors_line():
    for scale in (2.0, 7.5):
        norm = torch.linspace(3, 9, 25)
        c = (scale * 3 - 5) / (scale - 1)
        expected = (scale * (norm - c) / (5 - c)).clamp(max=scale)
        torch.testing.assert_close(anchored_scale(norm, scale, 3, 5), expected)
    assert anchored_scale(torch.tensor([4.0]), 1.0, 3, 5).tolist() == [1.0]


def test_the_formula_and_its_two_ends():
    uncond, asked, other = torch.randn(3, 2, 1, 4, 4)
    halves = CFGOutputs(0, 0, uncond, uncond, other, 7.5)
    torch.testing.assert_close(reanchored(uncond, asked, other, 7.5, torch.ones(2)), classifier_free_guidance(halves))
    torch.testing.assert_close(reanchored(uncond, asked, other, 7.5, torch.full((2,), 7.5)), asked + 7.5 * (other - asked))


@torch.no_grad()
def test_the_first_paraphrase_under_the_trigger_or_the_one_with_the_smallest_magnitude(heard, setup):
    texts = ["tree", "a stone", "water"]
    norms = {text: initial_delta_norm(heard, setup.with_prompts(heard, [text] * 3)) for text in texts}
    own = initial_delta_norm(heard, setup)
    listed = dict.fromkeys(setup.captions, texts)
    never = Reanchoring(0.0, LOW, HIGH, paraphrases=listed)(heard, setup)
    table = torch.stack(list(norms.values()))
    assert list(never.captions) == [texts[best] for best in table.argmin(0).tolist()]
    trigger = float(torch.cat([table, own[None]]).median())
    found = Reanchoring(trigger, LOW, HIGH, paraphrases=listed)(heard, setup)
    for row, caption in enumerate(setup.captions):
        under = [text for text in texts if norms[text][row] <= trigger]
        expected = caption if own[row] <= trigger else (under[0] if under else texts[int(table[:, row].argmin())])
        assert found.captions[row] == expected


@torch.no_grad()
def test_above_the_threshold_it_is_reanchored_and_below_guided_with_the_other_caption(heard, setup):
    listed = dict.fromkeys(setup.captions, ["tree"])
    changed = Reanchoring(0.0, [0.0, 1e9], [1.0, 2e9], paraphrases=listed)(heard, setup)
    noisy, uncond = torch.randn(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    other = uncond + 0.1
    asked = heard(noisy, torch.full((3,), 500), setup.condition[setup.cond_slice])
    own = anchored_scale((asked - uncond).flatten(1).norm(dim=1), 3.0, 0.0, 1.0)
    torch.testing.assert_close(changed.guide(CFGOutputs(0, 500, noisy, uncond, other, 3.0)), reanchored(uncond, asked, other, 3.0, own))
    torch.testing.assert_close(changed.guide(CFGOutputs(1, 500, noisy, uncond, other, 3.0)), uncond + 3 * (other - uncond))
    assert changed.extras["mitigation.replaced"].all()
    untouched = Reanchoring(1e9, LOW, HIGH)(heard, replace(setup))
    assert list(untouched.captions) == list(setup.captions) and not untouched.extras["mitigation.replaced"].any()
