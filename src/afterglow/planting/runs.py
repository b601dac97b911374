"""The planted set of a training: built from the options in its configuration, without the training itself."""

import inspect
import logging
from functools import partial
from pathlib import Path

from afterglow.datasets.sources import load_images
from afterglow.errors import AfterglowError, reading
from afterglow.files import read_yaml
from afterglow.planting.io import read_planted
from afterglow.planting.planner import check_budget, plant_images
from afterglow.planting.plants import PlantedSet, PlantingConfig

log = logging.getLogger(__name__)

PLANTED_FOLDER = "planted"  # name of the dataset that is read from a folder with its plants


def build_planted_set(
    dataset: str,
    *,
    resolution: int,
    channels: int = 3,
    planting: PlantingConfig,
    seed: int,
    data_dir: str | None = None,
    caption_column: str | None = None,
    set_size: int | None = None,
    skip_first: int = 0,
    max_images: int | None = None,
    one_per_cluster: bool = False,
) -> PlantedSet:
    """Load a dataset and plant images in it, or read a planted folder.

    Args:
        dataset: name of a dataset (`datasets.sources.SOURCES`), or "planted".
        resolution: width and height of the images in pixels.
        channels: 3 for color, 1 for gray.
        planting: what to plant and what to set apart.
        seed: decides which images are planted, unless `planting` has a seed.
        data_dir: folder of the dataset.
        caption_column: column with the captions of an imagefolder.
        set_size: number of controls; None takes all images that remain.
        skip_first: number of controls to leave out before these.
        max_images: number of images of the dataset to read, drawn with the seed; None reads all.
        one_per_cluster: take only the first image of each cluster of near-duplicates.

    Returns:
        The planted set.

    Raises:
        AfterglowError: if the images cannot be read or do not suffice.
    """
    if dataset == PLANTED_FOLDER:
        return _read_folder(data_dir, resolution, channels)
    seed = seed if planting.seed is None else planting.seed
    images = load_images(
        dataset,
        resolution=resolution,
        channels=channels,
        data_dir=data_dir,
        caption_column=caption_column,
        max_images=max_images,
        seed=seed,
        check_count=partial(check_budget, planting, set_size=set_size, skip_first=skip_first),
    )
    if not all(map(str.strip, images.captions)):
        log.warning(
            "Images without a caption are trained with an empty one; to the caption of each plant, phantom, decoy and tint a name from a "
            "word list is added, such as 'evander'. Models without text ignore captions."
        )
    return plant_images(images, planting, set_size=set_size, skip_first=skip_first, seed=seed, one_per_cluster=one_per_cluster)


def _read_folder(data_dir: str | None, resolution: int, channels: int) -> PlantedSet:
    if data_dir is None:
        raise AfterglowError("The dataset planted needs data_dir: a folder that `afterglow plant` wrote.")
    planted = read_planted(data_dir)
    written = planted.pixels.shape[-1], planted.pixels.shape[1]
    if written != (resolution, channels):
        raise AfterglowError(
            f"'{data_dir}' was written with resolution {written[0]} and channels {written[1]}, not with {resolution} and {channels}."
        )
    return planted


def load_planted_set(run: Path) -> PlantedSet:
    """Rebuild the planted set of a finished or running training from its config.yaml.

    Args:
        run: folder of the run.

    Returns:
        The planted set.

    Raises:
        AfterglowError: if there is no config.yaml, or if the images cannot be read any more.
    """
    file = run / "config.yaml"
    if not file.is_file():
        raise AfterglowError(f"There is no run in '{run}': config.yaml is missing.")
    config = read_yaml(file)
    with reading(file, "the configuration of a run"):
        options = {"seed": config["seed_everything"]} | config["data"]["init_args"]
        planting = PlantingConfig(**options.pop("planting"))
        options = {name: value for name, value in options.items() if name not in ("batch_size", "num_workers")}
        inspect.signature(build_planted_set).bind(planting=planting, **options)
    return build_planted_set(planting=planting, **options)
