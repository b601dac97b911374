"""The sources by name, and the one door to them."""

from collections.abc import Callable

from afterglow.data.folders import load_imagefolder
from afterglow.data.named import load_celeba, load_cifar10, load_fashion_mnist, load_flowers102
from afterglow.data.openmoji import load_openmoji
from afterglow.data.pictures import Pictures

SOURCES: dict[str, Callable[..., Pictures]] = {
    "openmoji": load_openmoji,
    "imagefolder": load_imagefolder,
    "cifar10": load_cifar10,
    "celeba": load_celeba,
    "flowers102": load_flowers102,
    "fashion_mnist": load_fashion_mnist,
}


def load_pictures(
    source: str, *, resolution: int, channels: int = 3, folder: str | None = None, caption_column: str | None = None
) -> Pictures:
    """The training pictures of a source as uint8 [N, channels, resolution, resolution], with their captions."""
    if source not in SOURCES:
        raise ValueError(f"There is no source {source!r}; the sources are {', '.join(SOURCES)}.")
    if channels not in (1, 3):
        raise ValueError(f"Pictures have 1 or 3 channels, not {channels}.")
    if resolution < 4:
        raise ValueError(f"The resolution must be at least 4 pixels, not {resolution}.")
    if caption_column is not None and source != "imagefolder":
        raise ValueError(f"The source {source} has no caption columns; only imagefolder has.")
    if source == "openmoji":
        if folder is not None:
            raise ValueError("The source openmoji is built in and takes no folder.")
        return SOURCES[source](resolution, channels)
    if source == "imagefolder":
        if folder is None:
            raise ValueError("The source imagefolder needs a folder.")
        return SOURCES[source](folder, resolution, channels, caption_column)
    return SOURCES[source](folder, resolution, channels)
