"""The datasets by name."""

from collections.abc import Callable
from importlib import import_module

from afterglow.datasets.images import CaptionedImages
from afterglow.errors import AfterglowError, did_you_mean

SOURCES = {  # name => module of its loader, imported on use
    "openmoji": "openmoji",
    "imagefolder": "imagefolder",
    "cifar10": "torchvision_sets",
    "celeba": "torchvision_sets",
    "flowers102": "torchvision_sets",
    "fashion_mnist": "torchvision_sets",
}


def load_images(
    dataset: str,
    *,
    resolution: int,
    channels: int = 3,
    data_dir: str | None = None,
    caption_column: str | None = None,
    max_images: int | None = None,
    seed: int = 0,
    check_count: Callable[[int], None] = lambda count: None,
) -> CaptionedImages:
    """Load the training images of a dataset with their captions.

    Args:
        dataset: one of SOURCES.
        resolution: width and height of the images in pixels.
        channels: 3 for color, 1 for gray.
        data_dir: folder of the dataset, or a hub id for imagefolder.
        caption_column: column with the captions of an imagefolder.
        max_images: number of images to read, drawn with the seed; None reads all.
        seed: of this draw.
        check_count: called with the number of images before they are decoded; it may raise AfterglowError.

    Returns:
        The images, uint8 [N, channels, resolution, resolution], and their captions.

    Raises:
        AfterglowError: if an option does not fit the dataset, or the images cannot be read.
    """
    if dataset not in SOURCES:
        raise AfterglowError(
            f"There is no dataset {dataset!r}; the datasets are {', '.join(SOURCES)}{did_you_mean(dataset, SOURCES) or '.'}"
        )
    if channels not in (1, 3):
        raise AfterglowError(f"Images have 1 or 3 channels, not {channels}.")
    if resolution < 4:
        raise AfterglowError(f"The resolution must be at least 4 pixels, not {resolution}.")
    if caption_column is not None and dataset != "imagefolder":
        raise AfterglowError(f"caption_column is an option of imagefolder, and the dataset is {dataset}.")
    if max_images is not None and max_images < 1:
        raise AfterglowError(f"max_images must be at least 1, and it is {max_images}.")
    if dataset == "openmoji":
        if data_dir is not None or max_images is not None:
            raise AfterglowError("The dataset openmoji is embedded and takes no data_dir and no max_images.")
        from afterglow.datasets.openmoji import load_openmoji

        images = load_openmoji(resolution, channels)
        check_count(len(images))
        return images
    if dataset == "imagefolder" and data_dir is None:
        raise AfterglowError("The dataset imagefolder needs data_dir: a folder of images.")
    list_images = getattr(import_module(f"afterglow.datasets.{SOURCES[dataset]}"), f"list_{dataset}")
    listed = list_images(data_dir, *([caption_column] if dataset == "imagefolder" else []))
    if max_images is not None:
        listed = listed.sample(max_images, seed)
    check_count(len(listed.names))
    return listed.decode(resolution, channels)
