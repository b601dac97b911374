"""Extraction: which training set a model is judged against, what it is asked for, and what came of it."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from afterglow.analysis.extraction import fractions, write_generations
from afterglow.cache import cache_folder, content_key
from afterglow.evaluation.embeddings import mean_tokens, patch_tokens, sscd
from afterglow.evaluation.extraction import SimilaritySpace, background, embedding_space, judge, pixel_space
from afterglow.evaluation.requests import EvalRequest
from afterglow.evaluation.store import GenerationPlan
from afterglow.generations import Generations, parts_of
from afterglow.kinds import COPYABLE, TRAINED
from afterglow.models.denoiser import Denoiser
from afterglow.neighbors.gallery import Gallery, tile_masks
from afterglow.planting.plants import PlantedSet
from afterglow.planting.targets import Target, evaluation_targets
from afterglow.reports.extraction import extracted_figure, extraction_text, histograms_figure


def training_captions(planted: PlantedSet, count: int, seed: int = 0) -> list[str]:
    """The distinct captions that were trained on, in a seeded order, again and again up to `count`."""
    shown = [p.caption for p in planted.of_kind(*TRAINED) if p.copies] + [planted.captions[row] for row in planted.controls.tolist()]
    distinct = list(dict.fromkeys(shown))
    order = np.random.default_rng(seed).permutation(len(distinct))
    return [distinct[order[number % len(order)]] for number in range(count)]


def captions_for(model: Denoiser, planted: PlantedSet, count: int, given: Sequence[str]) -> list[str]:
    """What a model is asked for: nothing without text, else the captions that were given, else the training set's, in turn.

    Raises ValueError where there is no generation to make, or a model without text is given captions.
    """
    if count < 1:
        raise ValueError(f"At least one image must be generated, and --num-images is {count}.")
    if given and not model.has_text:
        raise ValueError(f"--caption asks for '{given[0]}', and {type(model).__name__} has no captions.")
    if not model.has_text:
        return [""] * count
    return [given[number % len(given)] for number in range(count)] if given else training_captions(planted, count)


def space_of(gallery: Gallery, args: Any, share: tuple[int, int]) -> SimilaritySpace:
    """Where similarity is measured: SSCD or the mean patch token where a file is given, else pixels.

    What is embedded once is kept in the cache, by the weights, the preprocessing and the image.
    """
    if args.sscd and args.tokens:
        raise ValueError("One similarity at a time: --sscd or --tokens.")
    if not (args.sscd or args.tokens):
        return pixel_space(gallery)
    embedding = sscd(args.sscd, args.sscd_transform) if args.sscd else mean_tokens(patch_tokens(args.tokens))
    source = Path(args.sscd or args.tokens)
    files = sorted(source.glob("*")) if source.is_dir() else [source] if source.is_file() else []
    weights = content_key(embedding.name, *(file.read_bytes() for file in files if file.is_file()))
    return embedding_space(embedding, gallery, cache_folder() / "embeddings" / weights.hex(), share)


def plants_of(planted: PlantedSet) -> list[Target]:
    """What generations can be copies of beside the training images; phantoms are the false alarms."""
    return [subject for subject in evaluation_targets(planted, num_controls=0, num_heldout=0) if subject.kind in COPYABLE]


def extraction_request(
    captions: Sequence[str], gallery: Gallery, space: SimilaritySpace, grid: int, plants: Sequence[Target] = ()
) -> EvalRequest:
    """Generations for these captions, each judged by the training set, and by what was planted in it."""
    tile_masks(gallery.pixels.shape[-1], grid)  # which refuses a grid that does not fit, before anything is generated

    def finish(generations: Generations, rows: list[int]) -> Generations:
        return judge(generations, gallery, space, grid, plants)

    return EvalRequest(captions, finish, {"training": len(gallery.pixels), "space": space.name, "tiles": grid})


def extracted_plants(table: pd.DataFrame, plants: Sequence[Target]) -> pd.DataFrame:
    """A row a plant: plant_id, kind, caption, and how many generations copy it in its mask."""
    counts = table["plant"].value_counts()
    rows = [(plant.plant_id, plant.kind, plant.caption, int(counts.get(plant.plant_id, 0))) for plant in plants]
    return pd.DataFrame(rows, columns=["plant_id", "kind", "caption", "generations"])


def summarize(
    out: Path,
    order: GenerationPlan,
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
    if len(parts) < len(order.parts()):
        return None
    table = write_generations(parts, out / "extract.parquet")
    training = background(space, num_background)
    kinds = {plant.plant_id: plant.kind for plant in plants}
    found = fractions(table, training, kinds)
    if plants:
        extracted_plants(table, plants).to_parquet(out / "plants.parquet", index=False)
    histograms_figure(table, training, space.name, out / "histograms.png")

    @lru_cache(maxsize=2)
    def images_of(part: int) -> np.ndarray:
        return Generations.load(parts[part]).images.numpy()

    def image_of(generation: int) -> np.ndarray:
        part, place = divmod(generation, order.prompts_per_part)
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
