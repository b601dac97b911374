"""Datasets known by name: CIFAR-10, CelebA, Oxford Flowers 102 and Fashion-MNIST, as plain folders or in torchvision's layout.

`list_NAME(folder)` lists the training images; without a folder they are downloaded to the cache. It raises AfterglowError if they cannot
be read.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from PIL import Image
from torchvision.datasets import CIFAR10, CelebA, FashionMNIST, Flowers102

from afterglow.cache import cache_folder
from afterglow.datasets.images import IMAGE_SUFFIXES, open_image
from afterglow.datasets.listing import ImageList
from afterglow.errors import AfterglowError, reading, shown

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


def list_cifar10(folder: str | None) -> ImageList:
    """List CIFAR-10 from `[train/]<class>/*.jpg` or `cifar-10-batches-py`; captions are the class names."""
    if classes := _class_folders(folder, CIFAR10_LAYOUT):
        return classes
    cifar = _torchvision(CIFAR10_LAYOUT, folder, CIFAR10)
    return _arrays("cifar10", cifar.data, [cifar.classes[target] for target in cifar.targets])


def list_fashion_mnist(folder: str | None) -> ImageList:
    """List Fashion-MNIST from `[train/]<class>/*.png` or `FashionMNIST/raw`; captions are the class names, in lower case."""
    if classes := _class_folders(folder, FASHION_LAYOUT):
        return classes
    fashion = _torchvision(FASHION_LAYOUT, folder, FashionMNIST)
    return _arrays("fashion_mnist", fashion.data.numpy(), [fashion.classes[target].lower() for target in fashion.targets.tolist()])


def list_flowers102(folder: str | None) -> ImageList:
    """List Oxford Flowers from `NNN_class_name/*.jpg` (102 or 17 classes) or `flowers-102` (all splits); captions are the class names."""
    if classes := _class_folders(folder, FLOWERS_LAYOUT):
        return classes
    flowers: list[tuple[str, int]] = []
    for part in ("train", "val", "test"):
        loaded = _torchvision(FLOWERS_LAYOUT, folder, lambda root, download: Flowers102(root, part, download=download, loader=str))  # noqa: B023
        flowers += [loaded[index] for index in range(len(loaded))]
    files = [Path(file) for file, _ in sorted(flowers)]
    return _image_files("flowers102", files, [file.name for file in files], [Flowers102.classes[label] for _, label in sorted(flowers)])


def list_celeba(folder: str | None) -> ImageList:
    """List CelebA from `images/` or `img_align_celeba/` beside list_attr_celeba; the attributes of a face are its caption.

    Without list_eval_partition beside them, all images are training images.
    """
    images = _celeba_images(_downloaded_celeba() if folder is None else Path(folder))
    files = _images_in(images)
    partition = _celeba_table(images, "list_eval_partition")
    if partition is not None:
        numbers = _rows_of(partition, files, "list_eval_partition")[:, 0]
        files = [file for file, number in zip(files, numbers, strict=True) if number == 0]
    attributes = _celeba_table(images, "list_attr_celeba")
    if attributes is None:
        raise AfterglowError(f"celeba: list_attr_celeba.csv (or .txt) is not beside {shown(images, 100)}.")
    words = [column.lower().replace("_", " ") for column in attributes.columns]
    positive = _rows_of(attributes, files, "list_attr_celeba") > 0
    # A face without any attribute needs a caption: the empty one is what guidance compares with.
    captions = [", ".join(word for word, has in zip(words, row, strict=True) if has) or "face" for row in positive]
    return _image_files("celeba", files, [file.name for file in files], captions)


def _class_folders(folder: str | None, layout: Layout) -> ImageList | None:
    """The images of class folders below the folder or its `train`; None if there are none."""
    if folder is None:
        return None
    root = Path(folder)
    if not root.is_dir():
        raise AfterglowError(f"{layout.source}: the folder {shown(folder, 150)} does not exist.")
    if root.name == Path(layout.folder).parts[0]:  # flowers-102/jpg would pass for a class called "jpg"
        return None
    root = root / "train" if (root / "train").is_dir() else root
    files = [file for entry in sorted(root.iterdir()) if entry.is_dir() for file in _images_in(entry)]
    captions = [re.sub(r"^\d+[_ -]+", "", file.parent.name).replace("_", " ") for file in files]
    return _image_files(folder, files, [f"{file.parent.name}/{file.name}" for file in files], captions) if files else None


def _images_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES) if folder.is_dir() else []


def _image_files(source: str, files: Sequence[Path], names: Sequence[str], captions: Sequence[str]) -> ImageList:
    return ImageList(source, names, captions, lambda index: open_image(files[index]), upscale=True)


def _arrays(source: str, arrays: np.ndarray, captions: Sequence[str]) -> ImageList:
    """Arrays uint8 [N, H, W] or [N, H, W, 3] as a list of images."""
    names = [f"train/{index:05d}" for index in range(len(arrays))]
    return ImageList(source, names, captions, lambda index: Image.fromarray(arrays[index]), upscale=True)


def _torchvision(layout: Layout, folder: str | None, open_set: Callable[..., Set]) -> Set:
    """Open torchvision's set in the folder given (its root, or the folder that it made there), or download it to the cache."""
    if folder is None:
        return _download(layout, open_set)
    outermost = Path(layout.folder).parts[0]
    root = Path(folder).parent if Path(folder).name == outermost else Path(folder)
    if not (root / layout.folder).is_dir():
        raise AfterglowError(
            f"{layout.source}: {shown(folder, 100)} holds neither class folders with images nor torchvision's {layout.folder}."
        )
    for file in layout.files:
        if not (root / layout.folder / file).exists():
            raise AfterglowError(f"{layout.source}: {shown(root / layout.folder, 150)} lacks {file}.")
    try:
        return open_set(str(root), download=False)
    except Exception as error:
        raise AfterglowError(
            f"{layout.source}: torchvision cannot read {shown(root / layout.folder, 120)} ({shown(error, 100)})."
        ) from error


def _download(layout: Layout, open_set: Callable[..., Set]) -> Set:
    cache_folder().mkdir(parents=True, exist_ok=True)
    try:
        return open_set(str(cache_folder()), download=True)
    except Exception as error:  # no network, no disk, a server that has moved, a missing download program
        raise AfterglowError(
            f"{layout.source}: data_dir is not set and the download failed ({shown(' '.join(str(error).split()), 60)}); download "
            f"{layout.archive} elsewhere, unpack it to SOME_FOLDER/{layout.folder} and set data_dir to SOME_FOLDER."
        ) from error


def _downloaded_celeba() -> Path:
    if not _images_in(cache_folder() / "celeba" / "img_align_celeba"):
        _download(CELEBA_LAYOUT, CelebA)
    return cache_folder()


def _celeba_images(root: Path) -> Path:
    """The folder of images: `images`, torchvision's, or the nested one of a widespread copy."""
    if not root.is_dir():
        raise AfterglowError(f"celeba: the folder {shown(root, 150)} does not exist.")
    places = ("images", "img_align_celeba", "img_align_celeba/img_align_celeba", "celeba/img_align_celeba")
    for place in places:
        if _images_in(root / place):
            return root / place
    raise AfterglowError(f"celeba: {shown(root, 100)} holds no images in any of {', '.join(places)}.")


def _celeba_table(images: Path, stem: str) -> pd.DataFrame | None:
    """An annotation from the nearest folder above the images that has it: one row per image, indexed by file name."""
    for folder in images.parents[:2]:
        for file in (folder / f"{stem}.csv", folder / f"{stem}.txt"):
            if file.exists():
                with reading(file):
                    return pd.read_csv(file, index_col=0) if file.suffix == ".csv" else _celeba_text(file)
    return None


def _celeba_text(file: Path) -> pd.DataFrame:
    """The original attributes begin with their number and a header that lacks the first column; the partition has neither."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    header, lines = (lines[1], lines[2:]) if len(lines[0]) == 1 else (["partition"], lines)
    return pd.DataFrame([line[1:] for line in lines], index=[line[0] for line in lines], columns=header).astype(int)


def _rows_of(table: pd.DataFrame, files: Sequence[Path], title: str) -> np.ndarray:
    """Rows of the table for these files, int [N, columns]."""
    names = [file.name for file in files]
    unknown = next((name for name in names if name not in table.index), None)
    if unknown is not None:
        raise AfterglowError(f"celeba: {title} has no row for the image {shown(unknown)}.")
    return table.loc[names].to_numpy()
