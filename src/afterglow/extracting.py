"""Extraction: which training set a model is judged against, what it is asked for, and what came of it."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from afterglow.asking import Asked
from afterglow.collect import Order
from afterglow.collect.embeddings import mean_tokens, patch_tokens, sscd
from afterglow.collect.extraction import Space, background, embedding_space, judge, pixel_space
from afterglow.data.groups import picture_of, tiles
from afterglow.data.neighbours import Gallery
from afterglow.data.plants import TRAINED, PlantedSet
from afterglow.data.stored import cache_folder, content_key
from afterglow.data.subjects import CAPTURED, Subject, subjects
from afterglow.evidence import Evidence, parts_of
from afterglow.measures.extraction import fractions, write_generations
from afterglow.models import Denoiser
from afterglow.report.extraction import extracted_figure, extraction_text, histograms_figure


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
        raise ValueError(f"At least one picture must be generated, and --num-images is {count}.")
    if given and not model.has_text:
        raise ValueError(f"--caption asks for '{given[0]}', and {type(model).__name__} has no captions.")
    if not model.has_text:
        return [""] * count
    return [given[number % len(given)] for number in range(count)] if given else training_captions(planted, count)


def space_of(gallery: Gallery, args: Any, share: tuple[int, int]) -> Space:
    """Where similarity is measured: SSCD or the mean patch token where a file is given, else pixels.

    What is embedded once is kept in the cache, by the weights, the preprocessing and the picture.
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


def plants_of(planted: PlantedSet) -> list[Subject]:
    """What generations can be copies of beside the training pictures; phantoms are the false alarms."""
    return [subject for subject in subjects(planted, num_controls=0, num_heldout=0) if subject.kind in CAPTURED]


def ask_extraction(captions: Sequence[str], gallery: Gallery, space: Space, grid: int, plants: Sequence[Subject] = ()) -> Asked:
    """Generations for these captions, each judged by the training set, and by what was planted in it."""
    tiles(gallery.pixels.shape[-1], grid)  # which refuses a grid that does not fit, before anything is generated

    def finish(evidence: Evidence, rows: list[int]) -> Evidence:
        return judge(evidence, gallery, space, grid, plants)

    return Asked(captions, finish, {"training": len(gallery.pixels), "space": space.name, "tiles": grid})


def captured_plants(table: pd.DataFrame, plants: Sequence[Subject]) -> pd.DataFrame:
    """A row a plant: plant_id, kind, caption, and how many generations copy it in its mask."""
    counts = table["plant"].value_counts()
    rows = [(plant.plant_id, plant.kind, plant.caption, int(counts.get(plant.plant_id, 0))) for plant in plants]
    return pd.DataFrame(rows, columns=["plant_id", "kind", "caption", "generations"])


def summarize(
    out: Path, order: Order, gallery: Gallery, space: Space, about: dict[str, Any], num_background: int, plants: Sequence[Subject] = ()
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
        captured_plants(table, plants).to_parquet(out / "plants.parquet", index=False)
    histograms_figure(table, training, space.name, out / "histograms.png")

    @lru_cache(maxsize=2)
    def images_of(part: int) -> np.ndarray:
        return Evidence.load(parts[part]).images.numpy()

    def image_of(generation: int) -> np.ndarray:
        part, place = divmod(generation, order.prompts_per_part)
        return images_of(part)[place]

    extracted_figure(table, image_of, lambda row: picture_of(gallery, row), about["tiles"], out / "extracted.png")
    text = extraction_text(found, table, training, about)
    (out / "summary.txt").write_text(text + "\n", encoding="utf-8")
    print(text)
    print(f"\n{out}: extract.parquet, summary.txt, extracted.png, histograms.png")
    names = ["extracted", "extracted_loosely", "tile", "tile_loosely", *(f"captured_{kind}" for kind in dict.fromkeys(kinds.values()))]
    named = dict(zip([*names, "similar"], found, strict=True))
    numbers = {f"extraction/{name}": part.count / part.total for name, part in named.items()}
    return numbers | {f"extraction/{name}_distinct": float(part.distinct) for name, part in named.items() if part.distinct is not None}
