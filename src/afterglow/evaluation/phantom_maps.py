"""Control of the maps of a model without text: the regions of phantoms, which no generation copies."""

from collections.abc import Sequence

import pandas as pd

from afterglow.evaluation.ground_truth import attach_ground_truth, match_to_plants
from afterglow.generations import Generations
from afterglow.measures.registry import available_maps, compute_measures, filter_measures
from afterglow.measures.tables import map_auc_rows
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.targets import Target

NUM_NEAREST = 8  # generations whose maps are compared with the region of a phantom


def phantom_map_rows(generations: Generations, candidates: Sequence[Target], gallery: Gallery, patterns: Sequence[str]) -> pd.DataFrame:
    """auc.<map> of kind phantom: maps of generations that copy nothing, inside the region of each phantom (docs/methods.md#emergence).

    Args:
        generations: of a model without text, with the inputs of the maps.
        candidates: the plants and phantoms that a generation can copy.
        gallery: the training images.
        patterns: names of the maps, with wildcards.

    Returns:
        For each phantom of a region the rows of the NUM_NEAREST generations that are nearest to it inside the region.
    """
    phantoms = [target for target in candidates if target.kind == "phantom" and not target.mask.all()]
    names = filter_measures(available_maps(generations), patterns)
    if not phantoms or not names:
        return pd.DataFrame()
    own = generations[[row for row, kind in enumerate(generations.kind) if kind == "unprompted"]]
    others = own[(match_to_plants(own.images, candidates, gallery)[1] >= 1).nonzero()[:, 0]]
    frames = []
    for phantom in phantoms if len(others) else ():
        distances = match_to_plants(others.images, [phantom], gallery)[1]
        nearest = others[distances.argsort(stable=True)[:NUM_NEAREST]]
        known = attach_ground_truth(nearest, [phantom] * len(nearest), gallery)
        frames.append(map_auc_rows(known, compute_measures(known, names)))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
