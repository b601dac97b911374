"""The datasets by name."""

from importlib import import_module

from afterglow.datasets.images import CaptionedImages
from afterglow.errors import AfterglowError

SOURCES = {  # name => module of its loader, imported on use
    "openmoji": "openmoji",
    "imagefolder": "imagefolder",
    "cifar10": "torchvision_sets",
    "celeba": "torchvision_sets",
    "flowers102": "torchvision_sets",
    "fashion_mnist": "torchvision_sets",
}


def load_images(
    dataset: str, *, resolution: int, channels: int = 3, data_dir: str | None = None, caption_column: str | None = None
) -> CaptionedImages:
    """Load the training images of a dataset with their captions.

    Args:
        dataset: one of SOURCES.
        resolution: width and height of the images in pixels.
        channels: 3 for color, 1 for gray.
        data_dir: folder of the dataset, or a hub id for imagefolder.
        caption_column: column with the captions of an imagefolder.

    Returns:
        The images, uint8 [N, channels, resolution, resolution], and their captions.

    Raises:
        AfterglowError: if an option does not fit the dataset, or the images cannot be read.
    """
    if dataset not in SOURCES:
        raise AfterglowError(f"There is no dataset {dataset!r}; the datasets are {', '.join(SOURCES)}.")
    if channels not in (1, 3):
        raise AfterglowError(f"Images have 1 or 3 channels, not {channels}.")
    if resolution < 4:
        raise AfterglowError(f"The resolution must be at least 4 pixels, not {resolution}.")
    if caption_column is not None and dataset != "imagefolder":
        raise AfterglowError(f"caption_column is an option of imagefolder, and the dataset is {dataset}.")
    if dataset == "openmoji" and data_dir is not None:
        raise AfterglowError("The dataset openmoji is embedded and takes no data_dir.")
    if dataset == "imagefolder" and data_dir is None:
        raise AfterglowError("The dataset imagefolder needs data_dir: a folder of images.")
    load = getattr(import_module(f"afterglow.datasets.{SOURCES[dataset]}"), f"load_{dataset}")
    if dataset == "openmoji":
        return load(resolution, channels)
    return load(data_dir, resolution, channels, *([caption_column] if dataset == "imagefolder" else []))
