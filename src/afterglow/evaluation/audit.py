"""What an audit asks a model for, and what its generations have in common with the audited images (docs/guides/audit.md)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from afterglow.analysis.audit import AuditMatches, Unseen, audit_verdicts, cells_per_side, heldout_evidence
from afterglow.datasets.prompts import Prompt
from afterglow.evaluation.audited_set import AuditedSet
from afterglow.evaluation.extraction import NOTHING_ELSE
from afterglow.evaluation.false_positives import MAX_UNSEEN
from afterglow.evaluation.outpainting import RESAMPLINGS
from afterglow.evaluation.region_copies import images_with_content, map_regions, match_region, num_near, region_masks, windows
from afterglow.evaluation.requests import EvalRequest
from afterglow.functional.distances import calibrated_l2
from afterglow.functional.pixels import to_signed
from afterglow.generations import Generations
from afterglow.models.denoiser import Denoiser
from afterglow.neighbors.gallery import Gallery
from afterglow.neighbors.search import nearest
from afterglow.planting.regions import region
from afterglow.sampling.known import KnownPixels
from afterglow.sampling.recorder import CaptureConfig

MAPS = CaptureConfig(tokens=False, end_steps=(-1,))  # what regions are made of
RULE = 3  # changes with what `common_content` computes, so that samples of another rule are not taken over
_CHUNK = 64  # real images that are compared together


def audit_captions(model: Denoiser, captions: Sequence[str], count: int) -> list[str]:
    """`count` captions: those of the images in turn, those of most images first; empty ones for a model or images without text.

    Captions of equally many images are in random order (seed 0), so that those of held-out images are asked for like all others.
    """
    if not model.has_text or not any(captions):
        return [""] * count
    shuffled = [captions[row] for row in np.random.default_rng(0).permutation(len(captions)).tolist()]
    return np.resize([caption for caption, _ in Counter(shuffled).most_common()], count).tolist()


@dataclass(frozen=True, kw_only=True)
class AuditRequest(EvalRequest):
    """One generation per caption, compared with all images, whole and in regions.

    Args:
        capture: what is recorded of the sampling.
    """

    targets: Sequence[Prompt]
    gallery: Gallery
    capture: CaptureConfig

    def attach(self, generations: Generations, rows: Sequence[int]) -> Generations:
        """Add the extras of `common_content`, in whose place all that was recorded is dropped."""
        fixed, side = windows(generations.images.shape[-1]), generations.images.shape[-1]
        free = map_regions(generations)
        plain = Generations(
            generations.images, generations.caption, generations.seed, generations.timesteps, provenance=generations.provenance
        )
        found = common_content(generations.images, fixed, free, self.gallery)
        return replace(plain, extras={**found, "known": self.known_cells(rows, side)})

    def known_cells(self, rows: Sequence[int], side: int) -> Tensor:
        """The cells of which something was given to the model, bool [B, cells^2]."""
        return torch.zeros(len(rows), cells_per_side(side) ** 2, dtype=torch.bool)


@dataclass(frozen=True, kw_only=True)
class CompletionRequest(AuditRequest):
    """Each generation completes an image of which it is shown one half; the images, in a seeded order, and the four halves take turns."""

    order: np.ndarray

    def hidden(self, row: int) -> np.ndarray:
        """The half that generation `row` does not know, bool [1, H, W]."""
        turn, place = divmod(row, len(self.order))
        return region("half", self.gallery.pixels.shape[-1], turn + place, np.random.default_rng(0))[1][None]

    def known(self, samples: Sequence[tuple[int, int]]) -> KnownPixels:
        images = np.stack([self.gallery.image(self.order[row % len(self.order)]) for row, _ in samples])
        masks = np.stack([~self.hidden(row) for row, _ in samples])
        return KnownPixels(to_signed(torch.from_numpy(images)), torch.from_numpy(masks), RESAMPLINGS)

    def known_cells(self, rows: Sequence[int], side: int) -> Tensor:
        scale = side // cells_per_side(side)
        return torch.from_numpy(np.stack([~self.hidden(row)[0, ::scale, ::scale] for row in rows])).flatten(1)


def audit_request(model: Denoiser, images: AuditedSet, captions: Sequence[str], *, outpaint: bool = False) -> AuditRequest:
    """The request of an audit: one generation per caption.

    outpaint: a CompletionRequest; captions are not used.
    """
    cells_per_side(images.pixels.shape[-1])
    gallery = Gallery(images.pixels, images.clusters, device=model.device, names=images.names)
    texts = [""] * len(captions) if outpaint else captions
    targets = [Prompt(caption, "prompt" if caption else "unprompted") for caption in texts]
    capture = MAPS if any(texts) else NOTHING_ELSE
    order = np.random.default_rng(0).permutation(len(images.pixels))  # so that held-out images are completed like all others
    request = AuditRequest(targets=targets, gallery=gallery, capture=capture, metadata={"images": len(images.pixels), "rule": RULE})
    return CompletionRequest(**vars(request), order=order) if outpaint else request


def num_calibrating(gallery: Gallery) -> int:
    """Number of other clusters whose mean distance calibrates that of a whole image; in a region as many other images."""
    return min(num_near(len(gallery.pixels)), len(np.unique(gallery.clusters)) - 1)


def common_content(images: Tensor, fixed: Tensor, free: Tensor, gallery: Gallery, own: Tensor | None = None) -> dict[str, Tensor]:
    """What images have in common with the training images, whole and in regions.

    Args:
        images: uint8 [B, C, H, W].
        fixed: regions of all images, bool [W, cells, cells].
        free: further regions of each image, bool [B, M, cells, cells].
        own: int64 [B], rows of these images if they are training images: each is compared with those that do not share its content.

    Returns:
        whole, calibrated distance to the nearest training image, and its cluster, [B]; value and row of each region, as RegionMatch has
        them, [B, W + M]; free, the given ones, bool [B, M, cells^2].
    """
    side = images.shape[-1]
    left_out = [] if own is None else [{cluster} for cluster in gallery.clusters[own.numpy()].tolist()]
    full = torch.ones(1, side, side, dtype=torch.bool)
    near = gallery.nearest(images, full, left_out, num_clusters=num_near(len(gallery.pixels)) + 1)
    masks = [*region_masks(fixed, side)[:, None], *region_masks(free, side).transpose(0, 1)[:, :, None]]
    found = [match_region(images, mask, gallery, own) for mask in masks]
    return {
        "whole": calibrated_l2(near.distances[:, 0], near.distances[:, 1:]),
        "cluster": near.clusters[:, 0],
        "region_value": torch.stack([match.values for match in found], 1),
        "region_row": torch.stack([match.rows for match in found], 1),
        "free": free.flatten(2),
    }


def compared_with_each_other(request: AuditRequest, free: Tensor) -> Unseen:
    """The tests of an audit on at most MAX_UNSEEN of its images, each against those that do not share its content.

    free: regions of generations, bool [G, M, cells^2], which the images take in turn.
    """
    gallery = request.gallery
    own = np.random.default_rng(0).permutation(len(gallery.pixels))[:MAX_UNSEEN]
    cells, tables = cells_per_side(gallery.pixels.shape[-1]), []
    for start in range(0, len(own), _CHUNK):
        rows = torch.from_numpy(own[start : start + _CHUNK])
        some = free[torch.arange(start, start + len(rows)) % len(free)].unflatten(-1, (cells, cells))
        images = torch.from_numpy(np.asarray(gallery.pixels[rows.numpy()]))
        tables.append(common_content(images, windows(images.shape[-1]), some, gallery, rows))
    whole, parts = (torch.cat([table[name] for table in tables]) for name in ("whole", "region_value"))
    return Unseen(whole.numpy(), parts.amin(1).numpy())


def evidence_of(parts: Iterable[Generations], request: AuditRequest) -> tuple[AuditMatches, Tensor]:
    """What the parts of a collection have in common with the audited images, and the free regions of all generations.

    Of completions only regions count of which nothing was known.
    """
    gallery, first, shared = request.gallery, 0, _RegionsInCommon(request.gallery)
    whole, clusters, free = [], [], []
    closest, distance = np.zeros(len(gallery.pixels), np.int64), np.full(len(gallery.pixels), np.inf, np.float32)
    for part in parts:
        extras = part.extras
        shared.add(extras, first)
        whole.append(extras["whole"].masked_fill(extras["known"].any(1), torch.inf).numpy())
        clusters.append(extras["cluster"].numpy())
        free.append(extras["free"])
        row, near = (found[:, 0].numpy() for found in nearest(gallery.pixels, part.images, 1, device=gallery.device))
        closest, distance = np.where(near < distance, first + row, closest), np.minimum(near, distance)
        first += len(part)
    return AuditMatches(np.concatenate(whole), np.concatenate(clusters), *shared.found(), closest, distance), torch.cat(free)


class _RegionsInCommon:
    """Collects the regions in which generations show what images have there."""

    def __init__(self, gallery: Gallery) -> None:
        self.gallery, self.side = gallery, gallery.pixels.shape[-1]
        self.windows = windows(self.side)
        self.tables: list[pd.DataFrame] = []
        self.cells: list[np.ndarray] = []

    def add(self, extras: Mapping[str, Tensor], first: int) -> None:
        """Add what the extras of some generations hold. first: number of the first of them."""
        count, cells = len(extras["free"]), self.windows.shape[-1]
        regions = torch.cat([self.windows.flatten(1).expand(count, -1, -1), extras["free"]], 1)
        values = extras["region_value"].masked_fill((regions & extras["known"][:, None]).any(-1), torch.inf)
        for place in range(values.shape[1]):
            samples = (values[:, place] < 1).nonzero()[:, 0]
            if not len(samples):
                continue
            rows, which = extras["region_row"][samples, place], torch.arange(len(samples))
            if place < len(self.windows):
                rows, which = rows.unique(return_inverse=True)
                masks = region_masks(self.windows[place], self.side)[None]
            else:
                masks = region_masks(regions[samples, place].unflatten(-1, (cells, cells)), self.side)[:, None]
            sample, image = images_with_content(rows, masks, self.gallery)[which].nonzero().T
            start = sum(map(len, self.cells))
            columns = {
                "region": start + sample,
                "generation": first + samples[sample],
                "image": image,
                "value": values[samples[sample], place],
            }
            self.tables.append(pd.DataFrame({name: column.numpy() for name, column in columns.items()}))
            self.cells.append(regions[samples, place].numpy())

    def found(self) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
        """`parts`, `cells` and `coverage` of the evidence."""
        fixed = self.windows.flatten(1).numpy()
        nothing = pd.DataFrame({"region": [], "generation": [], "image": []}, dtype=np.int64).assign(value=0.0)
        cells = np.concatenate([fixed[:0], *self.cells])
        return pd.concat(self.tables, ignore_index=True) if self.tables else nothing, cells, fixed.sum(0)


def audit_generations(
    parts: Iterable[Generations], request: AuditRequest, images: AuditedSet, each_other: Unseen | None = None
) -> tuple[pd.DataFrame, Unseen]:
    """The verdict on each audited image, and the images that the model never saw with which it is compared.

    Args:
        parts: all generations of the request.
        each_other: of another checkpoint; without held-out images they are not computed again.
    """
    evidence, free = evidence_of(parts, request)
    if images.count < len(images.names):
        evidence, unseen = heldout_evidence(evidence, images.clusters, images.count)
    else:
        unseen = each_other or compared_with_each_other(request, free)
    return audit_verdicts(evidence, images.clusters[: images.count], unseen), unseen
