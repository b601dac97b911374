"""The sources by name, and the one door to them."""

from collections.abc import Callable

from afterglow.datasets.imagefolder import load_imagefolder
from afterglow.datasets.images import CaptionedImages
from afterglow.datasets.openmoji import load_openmoji
from afterglow.datasets.torchvision_sets import load_celeba, load_cifar10, load_fashion_mnist, load_flowers102

SOURCES: dict[str, Callable[..., CaptionedImages]] = {
    "openmoji": load_openmoji,
    "imagefolder": load_imagefolder,
    "cifar10": load_cifar10,
    "celeba": load_celeba,
    "flowers102": load_flowers102,
    "fashion_mnist": load_fashion_mnist,
}


def load_images(
    dataset: str, *, resolution: int, channels: int = 3, data_dir: str | None = None, caption_column: str | None = None
) -> CaptionedImages:
    """The training images of a source as uint8 [N, channels, resolution, resolution], with their captions."""
    if dataset not in SOURCES:
        raise ValueError(f"There is no source {dataset!r}; the sources are {', '.join(SOURCES)}.")
    if channels not in (1, 3):
        raise ValueError(f"Images have 1 or 3 channels, not {channels}.")
    if resolution < 4:
        raise ValueError(f"The resolution must be at least 4 pixels, not {resolution}.")
    if caption_column is not None and dataset != "imagefolder":
        raise ValueError(f"The source {dataset} has no caption columns; only imagefolder has.")
    if dataset == "openmoji":
        if data_dir is not None:
            raise ValueError("The source openmoji is built in and takes no folder.")
        return SOURCES[dataset](resolution, channels)
    if dataset == "imagefolder":
        if data_dir is None:
            raise ValueError("The source imagefolder needs a folder.")
        return SOURCES[dataset](data_dir, resolution, channels, caption_column)
    return SOURCES[dataset](data_dir, resolution, channels)
