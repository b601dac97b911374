"""The tables, figures and text of a finished extraction."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from afterglow.analysis.extraction import fractions, write_generations
from afterglow.evaluation.extraction import SimilaritySpace, background_similarity, extracted_plants
from afterglow.evaluation.plan import GenerationPlan
from afterglow.generations import Generations, parts_of
from afterglow.neighbors.gallery import Gallery
from afterglow.planting.targets import Target
from afterglow.reports.extraction import extracted_figure, extraction_text, histograms_figure


def summarize(
    out: Path,
    plan: GenerationPlan,
    num_images: int,
    gallery: Gallery,
    space: SimilaritySpace,
    about: dict[str, Any],
    num_background: int,
    plants: Sequence[Target] = (),
) -> dict[str, float] | None:
    """Write the table, the figures and the summary of a finished extraction; its numbers for the tracker.

    None where parts are missing, which other processes are still at: the last one writes.
    """
    parts = parts_of(out)
    if len(parts) < len(plan.parts(num_images)):
        return None
    table = write_generations(parts, out / "extract.parquet")
    training = background_similarity(space, num_background)
    kinds = {plant.plant_id: plant.kind for plant in plants}
    found = fractions(table, training, kinds)
    if plants:
        extracted_plants(table, plants).to_parquet(out / "plants.parquet", index=False)
    histograms_figure(table, training, space.name, out / "histograms.png")

    @lru_cache(maxsize=2)
    def images_of(part: int) -> np.ndarray:
        return Generations.load(parts[part]).images.numpy()

    def image_of(generation: int) -> np.ndarray:
        part, place = divmod(generation, plan.prompts_per_part)
        return images_of(part)[place]

    extracted_figure(table, image_of, lambda row: gallery.image(row), about["tiles"], out / "extracted.png")
    text = extraction_text(found, table, training, about)
    (out / "summary.txt").write_text(text + "\n", encoding="utf-8")
    print(text)
    print(f"\n{out}: extract.parquet, summary.txt, extracted.png, histograms.png")
    names = ["extracted", "extracted_loosely", "tile", "tile_loosely", *(f"captured_{kind}" for kind in dict.fromkeys(kinds.values()))]
    named = dict(zip([*names, "similar"], found, strict=True))
    numbers = {f"extraction/{name}": part.count / part.total for name, part in named.items()}
    return numbers | {f"extraction/{name}_distinct": float(part.distinct) for name, part in named.items() if part.distinct is not None}
