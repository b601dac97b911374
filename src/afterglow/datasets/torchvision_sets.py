"""Datasets known by name: CIFAR-10, CelebA, Oxford Flowers 102 and Fashion-MNIST, as plain folders or in torchvision's layout.

Every loader takes the arguments of `afterglow.datasets.sources.load_images`: folder (None downloads to the cache), resolution, channels,
and a split. It raises AfterglowError if the images cannot be read.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from PIL import Image
from torchvision.datasets import CIFAR10, CelebA, FashionMNIST, Flowers102

from afterglow.cache import cache_folder
from afterglow.datasets.imagefolder import IMAGE_SUFFIXES, decode
from afterglow.datasets.images import CaptionedImages
from afterglow.errors import AfterglowError

Set = TypeVar("Set")


@dataclass(frozen=True)
class Layout:
    """The files of one dataset in torchvision's layout, and the archive to fetch where there is no network."""

    source: str
    folder: str
    files: tuple[str, ...]
    archive: str


CIFAR10_LAYOUT = Layout(
    "cifar10",
    "cifar-10-batches-py",
    (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
    "cifar-10-python.tar.gz",
)
FASHION_LAYOUT = Layout(
    "fashion_mnist",
    "FashionMNIST/raw",
    tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")),
    "the four *-ubyte.gz files of Fashion-MNIST",
)
FLOWERS_LAYOUT = Layout(
    "flowers102", "flowers-102", ("jpg", "imagelabels.mat", "setid.mat"), "102flowers.tgz, imagelabels.mat and setid.mat"
)
CELEBA_LAYOUT = Layout(
    "celeba",
    "celeba",
    ("img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"),
    "img_align_celeba.zip, list_attr_celeba.txt and list_eval_partition.txt",
)
CELEBA_PARTITIONS = {"train": 0, "valid": 1, "test": 2}


def load_cifar10(folder: str | None, resolution: int, channels: int, split: str = "train") -> CaptionedImages:
    """Load CIFAR-10 from `[train/]<class>/*.jpg` or `cifar-10-batches-py`; captions are the class names."""
    _check_split("cifar10", split, ("train", "test"))
    if classes := _class_folders(folder, split, CIFAR10_LAYOUT):
        return _read_classes(folder, classes, resolution, channels)
    cifar = _torchvision(CIFAR10_LAYOUT, folder, partial(CIFAR10, train=split == "train"))
    return _read_arrays("cifar10", split, cifar.data, [cifar.classes[target] for target in cifar.targets], resolution, channels)


def load_fashion_mnist(folder: str | None, resolution: int, channels: int, split: str = "train") -> CaptionedImages:
    """Load Fashion-MNIST from `[train/]<class>/*.png` or `FashionMNIST/raw`; captions are the class names, in lower case."""
    _check_split("fashion_mnist", split, ("train", "test"))
    if classes := _class_folders(folder, split, FASHION_LAYOUT):
        return _read_classes(folder, classes, resolution, channels)
    fashion = _torchvision(FASHION_LAYOUT, folder, partial(FashionMNIST, train=split == "train"))
    captions = [fashion.classes[target].lower() for target in fashion.targets.tolist()]
    return _read_arrays("fashion_mnist", split, fashion.data.numpy(), captions, resolution, channels)


def load_flowers102(folder: str | None, resolution: int, channels: int, split: str = "all") -> CaptionedImages:
    """Load Oxford Flowers from `NNN_class_name/*.jpg` (102 or 17 classes, no splits) or `flowers-102`; captions are the class names."""
    _check_split("flowers102", split, ("train", "val", "test", "all"))
    if classes := _class_folders(folder, split, FLOWERS_LAYOUT):
        return _read_classes(folder, classes, resolution, channels)
    flowers: list[tuple[str, int]] = []
    for part in ("train", "val", "test") if split == "all" else (split,):
        loaded = _torchvision(FLOWERS_LAYOUT, folder, partial(Flowers102, split=part, loader=str))
        flowers += [loaded[index] for index in range(len(loaded))]
    files = [Path(file) for file, _ in sorted(flowers)]
    captions = [Flowers102.classes[label] for _, label in sorted(flowers)]
    return _read_files("flowers102", files, [file.name for file in files], captions, resolution, channels)


def load_celeba(folder: str | None, resolution: int, channels: int, split: str = "train") -> CaptionedImages:
    """Load CelebA from `images/` or `img_align_celeba/` beside list_attr_celeba; the attributes of a face are its caption.

    Without list_eval_partition beside them, all images belong to the split "train".
    """
    _check_split("celeba", split, (*CELEBA_PARTITIONS, "all"))
    images = _celeba_images(_downloaded_celeba() if folder is None else Path(folder))
    files = sorted(file for file in images.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if split != "all":
        files = _celeba_split(files, split)
    attributes = _celeba_table(images, "list_attr_celeba")
    if attributes is None:
        raise AfterglowError(f"celeba: list_attr_celeba.csv (or .txt) is not beside {images}.")
    words = [column.lower().replace("_", " ") for column in attributes.columns]
    positive = _rows_of(attributes, files, "list_attr_celeba") > 0
    # A face without any attribute needs a caption: the empty one is what guidance compares with.
    captions = [", ".join(word for word, has in zip(words, row, strict=True) if has) or "face" for row in positive]
    return _read_files("celeba", files, [file.name for file in files], captions, resolution, channels)


def _check_split(source: str, split: str, known: Sequence[str]) -> None:
    if split not in known:
        raise AfterglowError(f"{source} has no split {split!r}; its splits are {', '.join(known)}.")


def _class_folders(folder: str | None, split: str, layout: Layout) -> dict[str, list[Path]]:
    """Class folder => its images, below the folder or its `split`; empty if there are no class folders."""
    if folder is None:
        return {}
    root = Path(folder)
    if not root.is_dir():
        raise AfterglowError(f"{layout.source}: the folder {folder} does not exist.")
    if root.name == Path(layout.folder).parts[0]:  # flowers-102/jpg would pass for a class called "jpg"
        return {}
    root = root / split if (root / split).is_dir() else root
    classes = {entry.name: sorted(_images_in(entry)) for entry in sorted(root.iterdir()) if entry.is_dir()}
    return {name: files for name, files in classes.items() if files}


def _images_in(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES] if folder.is_dir() else []


def _read_classes(folder: str | None, classes: dict[str, list[Path]], resolution: int, channels: int) -> CaptionedImages:
    files = [file for members in classes.values() for file in members]
    captions = [re.sub(r"^\d+[_ -]+", "", file.parent.name).replace("_", " ") for file in files]
    return _read_files(str(folder), files, [f"{file.parent.name}/{file.name}" for file in files], captions, resolution, channels)


def _read_files(
    source: str, files: Sequence[Path], names: Sequence[str], captions: Sequence[str], resolution: int, channels: int
) -> CaptionedImages:
    pixels = decode(source, names, lambda index: Image.open(files[index]), resolution=resolution, channels=channels, upscale=True)
    return _without_families(pixels, captions, names)


def _read_arrays(source: str, split: str, arrays: np.ndarray, captions: Sequence[str], resolution: int, channels: int) -> CaptionedImages:
    """Arrays uint8 [N, H, W] or [N, H, W, 3] => CaptionedImages."""
    names = [f"{split}/{index:05d}" for index in range(len(arrays))]
    pixels = decode(source, names, lambda index: Image.fromarray(arrays[index]), resolution=resolution, channels=channels, upscale=True)
    return _without_families(pixels, captions, names)


def _without_families(pixels: np.ndarray, captions: Sequence[str], names: Sequence[str]) -> CaptionedImages:
    return CaptionedImages(pixels, tuple(captions), tuple(names), np.full(len(names), -1, dtype=np.int64), captions_unique=False)


def _torchvision(layout: Layout, folder: str | None, open_set: Callable[..., Set]) -> Set:
    """Open torchvision's set in the folder given (its root, or the folder that it made there), or download it to the cache."""
    if folder is None:
        return _download(layout, open_set)
    outermost = Path(layout.folder).parts[0]
    root = Path(folder).parent if Path(folder).name == outermost else Path(folder)
    if not (root / layout.folder).is_dir():
        raise AfterglowError(f"{layout.source}: {folder} holds neither class folders with images nor torchvision's {layout.folder}.")
    for file in layout.files:
        if not (root / layout.folder / file).exists():
            raise AfterglowError(f"{layout.source}: {root / layout.folder} lacks {file}.")
    try:
        return open_set(str(root), download=False)
    except Exception as error:
        raise AfterglowError(f"{layout.source}: torchvision cannot read {root / layout.folder} ({error}).") from error


def _download(layout: Layout, open_set: Callable[..., Set]) -> Set:
    cache_folder().mkdir(parents=True, exist_ok=True)
    try:
        return open_set(str(cache_folder()), download=True)
    except Exception as error:  # no network, no disk, a server that has moved, a missing download program
        reason = " ".join(str(error).split())
        raise AfterglowError(
            f"{layout.source}: data_dir is not set and the download failed ({reason}); download {layout.archive} elsewhere, "
            f"unpack it to SOME_FOLDER/{layout.folder} and set data_dir to SOME_FOLDER."
        ) from error


def _downloaded_celeba() -> Path:
    if not _images_in(cache_folder() / "celeba" / "img_align_celeba"):
        _download(CELEBA_LAYOUT, CelebA)
    return cache_folder()


def _celeba_images(root: Path) -> Path:
    """The folder of images: `images`, torchvision's, or the nested one of a widespread copy."""
    if not root.is_dir():
        raise AfterglowError(f"celeba: the folder {root} does not exist.")
    places = ("images", "img_align_celeba", "img_align_celeba/img_align_celeba", "celeba/img_align_celeba")
    for place in places:
        if _images_in(root / place):
            return root / place
    raise AfterglowError(f"celeba: {root} holds no images in any of {', '.join(places)}.")


def _celeba_table(images: Path, stem: str) -> pd.DataFrame | None:
    """An annotation from the nearest folder above the images that has it: one row per image, indexed by file name."""
    for folder in images.parents[:2]:
        if (folder / f"{stem}.csv").exists():
            return pd.read_csv(folder / f"{stem}.csv", index_col=0)
        if (folder / f"{stem}.txt").exists():
            # The original attributes begin with their number and a header that lacks the first column; the partition has neither.
            lines = [line.split() for line in (folder / f"{stem}.txt").read_text().splitlines() if line.strip()]
            header, lines = (lines[1], lines[2:]) if len(lines[0]) == 1 else (["partition"], lines)
            return pd.DataFrame([line[1:] for line in lines], index=[line[0] for line in lines], columns=header).astype(int)
    return None


def _celeba_split(files: list[Path], split: str) -> list[Path]:
    partition = _celeba_table(files[0].parent, "list_eval_partition")
    if partition is None and split != "train":
        raise AfterglowError(f"celeba: list_eval_partition.csv (or .txt) is not beside {files[0].parent}, so it has no split {split!r}.")
    if partition is None:
        return files
    numbers = _rows_of(partition, files, "list_eval_partition")[:, 0]
    return [file for file, number in zip(files, numbers, strict=True) if number == CELEBA_PARTITIONS[split]]


def _rows_of(table: pd.DataFrame, files: Sequence[Path], title: str) -> np.ndarray:
    """Rows of the table for these files, int [N, columns]."""
    names = [file.name for file in files]
    unknown = next((name for name in names if name not in table.index), None)
    if unknown is not None:
        raise AfterglowError(f"celeba: {title} has no row for the image {unknown}.")
    return table.loc[names].to_numpy()
