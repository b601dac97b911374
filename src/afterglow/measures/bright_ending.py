"""Bright Ending, LD, S and LS (Chen et al. 2025): the cross-attention to the end token and other token groups, and scores of its map."""

from collections.abc import Sequence

import torch
from torch import Tensor

from afterglow.attention_names import ATTENTION_COLUMNS
from afterglow.functional import attention, guidance
from afterglow.functional.pixels import resize, to_unit
from afterglow.generations import Generations

_GROUP_COLUMNS = {
    group: [ATTENTION_COLUMNS.index(column) for column in columns]
    for group, columns in {
        "bos": ("bos",), "words": ("words",), "first_end": ("first_eos",), "pads": ("pads",), "end_and_pads": ("first_eos", "pads"),
    }.items()
}  # fmt: skip
SSCD_COPY = 0.5  # SSCD cosine from which the authors call a sample memorized


def end_token_map(generations: Generations, layers: list[str], *, rule: str = "first_eos", step: int = -1) -> Tensor:
    """Attention to the end token at one step, mean over heads and layers, [B, h, w], unnormalized (docs/methods.md#bright-ending).

    Args:
        generations: with end_attention of these layers at this step.
        layers: layers to average; layers of different grids are brought to the finest one bilinearly.
        rule: first_eos (official), last (the last position) or eos_and_pads (their mean); or another of ATTENTION_COLUMNS.
        step: index into the sampler's steps; -1 is the last.
    """
    assert generations.end_attention is not None
    index, column = step % len(generations.timesteps), ATTENTION_COLUMNS.index(rule)
    height, width = generations.images.shape[-2:]
    return attention.mean_of_grids([generations.end_attention[index, layer][..., column].float() for layer in layers], height / width)


def sink_darkness(generations: Generations, layers: list[str], *, step: int = -1) -> Tensor:
    """1 - A_S, [B, h, w] in [0, 1]: A_S is the attention to the token group without caption (docs/methods.md#token-groups).

    S is BOS for a causal text encoder and the padding otherwise; `sink_group` decides, and the provenance of the generations names it.
    """
    return 1 - end_token_map(generations, layers, rule=generations.provenance["sink"], step=step)


def sink_darkness_mean(generations: Generations, layers: list[str]) -> Tensor:
    """Mean of sink darkness at the last step, [B]: the share of the attention that does not go to the sink."""
    return sink_darkness(generations, layers).flatten(1).mean(1)


def attention_mass(generations: Generations, layers: list[str], *, group: str) -> Tensor:
    """Share of the attention of all pixels that a token group gets at the last step, mean over heads and layers, [B] in [0, 1].

    group: one of TOKEN_GROUPS. The masses of BOS, words, first end token and pads sum to 1. Our definition
    (docs/methods.md#token-groups): each layer counts alike, however fine its grid.
    """
    assert generations.end_attention is not None
    step, columns = len(generations.timesteps) - 1, _GROUP_COLUMNS[group]
    kept = [generations.end_attention[step, layer].float() for layer in layers]
    return torch.stack([tensor[..., columns].sum(-1).mean(1) for tensor in kept]).mean(0)


def bright_ending(generations: Generations, layers: list[str]) -> Tensor:
    """The map of the last step by the end-token rule of the collection, [B, h, w]."""
    return end_token_map(generations, layers, rule=generations.provenance.get("end_token", "first_eos"))


def end_token_mean(generations: Generations, layers: list[str]) -> Tensor:
    """Mean of the map, [B]: a weak detector, and the paper's histogram."""
    return bright_ending(generations, layers).flatten(1).mean(1)


def end_token_max(generations: Generations, layers: list[str]) -> Tensor:
    """Maximum of the map, [B]."""
    return bright_ending(generations, layers).flatten(1).amax(1)


def effective_area(generations: Generations, layers: list[str]) -> Tensor:
    """Share of the image that a binary mask as uneven as the map would cover, [B]."""
    return attention.effective_area(bright_ending(generations, layers))


def local_detection(
    generations: Generations, layers: list[str], num_steps: int | None = None, *, area_neutral: bool = False, other_caption: bool = False
) -> Tensor:
    """LD over the first `num_steps` sampler steps (None: all), [B]; units of eps (docs/methods.md#local-detection).

    One pass is enough: all Delta_t are kept, and the map of the last step is applied to them afterwards.

    Args:
        generations: with guidance and the attention of the last step.
        layers: layers of the end-token map.
        num_steps: number of sampler steps.
        area_neutral: divide by the root mean square of the map instead of its mean.
        other_caption: control: use the map of the next sample with another caption; NaN if there is none.
    """
    assert generations.guidance is not None and generations.guidance_rms is not None
    delta, rms, weight = generations.guidance[:num_steps], generations.guidance_rms[:num_steps], bright_ending(generations, layers)
    if other_caption:
        others = next_of_another_caption(generations.caption)
        weight = weight[others.clamp(min=0)].where((others >= 0)[:, None, None], torch.nan)
    return guidance.local_detection(delta, rms, weight, area_neutral=area_neutral)


def next_of_another_caption(captions: Sequence[str]) -> Tensor:
    """Index of the next sample with another caption, cyclic, int64 [B]; -1 without one.

    >>> next_of_another_caption(["a", "a", "b"]).tolist(), next_of_another_caption(["a"]).tolist()
    ([2, 2, 0], [-1])
    """
    count, numbers = len(captions), torch.tensor([captions.index(caption) for caption in captions])
    places = torch.arange(count)
    ahead = ((places[None] - places[:, None]) % count).where(numbers[None] != numbers[:, None], count)
    nearest = ahead.amin(1)
    return ((places + nearest) % count).where(nearest < count, -1)


def sscd_similarity(generations: Generations) -> Tensor:
    """SSCD cosine of a sample and its reference, [B] (docs/methods.md#sscd); model and preprocessing are in the provenance."""
    return generations.extras["sscd"]


def similarity(generations: Generations, layers: list[str] | None = None, *, normalized: bool = False, latent: bool = False) -> Tensor:
    """S = -1[SSCD < .5] ||x_hat - x||_2, and with layers LS = -1[SSCD < .5] ||(x_hat - x) m||_2, [B] (docs/methods.md#local-similarity).

    The value is 0 where SSCD already marks a copy, which gives ties in every AUC.

    Args:
        generations: with extras['sscd'] and references, or extras['latent_difference'].
        layers: layers of the end-token map m, resized bilinearly; None gives S.
        normalized: divide by mean(m). LS as published grows with the brightness of m, which is larger for memorized images.
        latent: use the difference of the encoded images (scaled latents) instead of [0, 1] pixels.
    """
    if latent:
        difference = generations.extras["latent_difference"].float()
    else:
        assert generations.references is not None
        difference = to_unit(generations.images) - to_unit(generations.references)
    scale: Tensor | float = 1.0
    if layers is not None:
        weight = resize(bright_ending(generations, layers).float(), difference.shape[-2:])
        difference = difference * weight[:, None]
        scale = weight.flatten(1).mean(1) if normalized else 1.0
    return -difference.flatten(1).norm(dim=1) / scale * (sscd_similarity(generations) < SSCD_COPY)
