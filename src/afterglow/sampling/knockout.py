"""Knock-out: which tokens carry a copy? The states of token groups are replaced by their mean over captions (docs/methods.md#knock-out)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from afterglow.errors import AfterglowError
from afterglow.functional.attention import token_groups
from afterglow.models.denoiser import Denoiser
from afterglow.sampling.setup import SamplingSetup

PARTS = ("bos", "words", "first_end", "pads")  # disjoint groups; every position belongs to one
GROUP_PARTS = {**{part: (part,) for part in PARTS}, "end_and_pads": ("first_end", "pads")}
KNOCKOUTS: Mapping[str, tuple[str, ...]] = {  # name => groups whose states are replaced; "only" keeps one group
    "none": (),
    **GROUP_PARTS,
    **{f"only_{name}": tuple(part for part in PARTS if part not in kept) for name, kept in GROUP_PARTS.items()},
    "all": PARTS,
}
MIN_CAPTIONS = 10  # a mean over fewer would keep a good part of the caption's own state
ENCODED = 256  # captions at a time


@dataclass(frozen=True)
class CaptionMeans:
    """Mean states of the token groups over captions.

    Attributes:
        states: {group of PARTS: mean state at each position, float32 [L, D]}, over the captions that have the group at that position;
            where fewer than MIN_CAPTIONS have, over all positions of the group.
        caption_share: {group of PARTS: E ||h - mean||^2 / E ||h||^2 in [0, 1]}, the share of the states that depends on the caption;
            0 for BOS of a causal encoder. NaN for a group without tokens.
    """

    states: Mapping[str, Tensor]
    caption_share: Mapping[str, float]


@torch.no_grad()
def caption_means(model: Denoiser, captions: Sequence[str]) -> CaptionMeans:
    """The mean states of a model's text encoder over captions, each counted once.

    Raises:
        AfterglowError: if the model has no captions.
    """
    conditions = [model.condition(captions[start : start + ENCODED]) for start in range(0, len(captions), ENCODED)]
    encoded = [(c.encoder_hidden_states.float().cpu(), c.prompt_length.cpu()) for c in conditions if c is not None]
    if not encoded:
        raise AfterglowError(f"A knock-out replaces states of a caption's tokens, and {type(model).__name__} has no captions.")
    states, lengths = (torch.cat(parts) for parts in zip(*encoded, strict=True))  # [N, L, D], [N]
    means, shares = {}, {}
    for group, positions in token_groups(lengths, states.shape[1]).items():
        if group not in PARTS:
            continue
        count = positions.sum(0)[:, None]
        total = torch.einsum("nl,nld->ld", positions.float(), states)
        overall = total.sum(0) / count.sum().clamp(min=1)
        means[group] = torch.where(count >= MIN_CAPTIONS, total / count.clamp(min=1), overall)
        apart = (states - means[group])[positions].square().sum()
        shares[group] = float(apart / states[positions].square().sum())
    return CaptionMeans(means, shares)


@dataclass(frozen=True)
class KnockOut:
    """Replaces the states of token groups of the conditional half by their mean over captions, before the pass begins.

    Args:
        groups: groups of PARTS whose states are replaced.
        means: mean states of each group, as `caption_means` gives them.
    """

    groups: Sequence[str]
    means: CaptionMeans = field(repr=False)

    def __call__(self, model: Denoiser, setup: SamplingSetup) -> SamplingSetup:
        assert setup.condition is not None
        states, rows = setup.condition.encoder_hidden_states.clone(), setup.cond_slice
        positions = token_groups(setup.condition.prompt_length[rows], states.shape[1])
        for group in self.groups:
            states[rows] = torch.where(positions[group][..., None], self.means.states[group].to(states), states[rows])
        return replace(setup, condition=replace(setup.condition, encoder_hidden_states=states))
