"""The images of a dataset before they are decoded: listed first, so that only what is used is read."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image
from tqdm import tqdm

from afterglow.cache import allocate
from afterglow.datasets.images import CaptionedImages, reason, to_square, upright
from afterglow.errors import AfterglowError, shown

log = logging.getLogger(__name__)

_CHUNK = 256  # images per task of a thread: one task per image costs more than decoding a small one
MAX_FAILURES = 100  # images that cannot be used, after which reading stops


@dataclass(frozen=True)
class ImageList:
    """The images of a dataset before they are decoded.

    Attributes:
        source: folder or name of the dataset, for messages.
        names: name of each image.
        captions: caption of each image.
        open_image: opens an image by its index.
        captions_unique, families, family_captions: as in `CaptionedImages`.
        upscale: if False, an image smaller than the resolution is an error.
    """

    source: str
    names: Sequence[str]
    captions: Sequence[str]
    open_image: Callable[[int], Image.Image]
    captions_unique: bool = False
    families: np.ndarray | None = None
    family_captions: Mapping[int, str] = field(default_factory=dict)
    upscale: bool = False

    def sample(self, count: int, seed: int) -> "ImageList":
        """Return `count` of the images in their order, drawn with the seed; the list itself if it is not longer."""
        if count >= len(self.names):
            return self
        rows = np.sort(np.random.default_rng([seed, 0x5A3]).permutation(len(self.names))[:count])
        return replace(
            self,
            names=[self.names[row] for row in rows],
            captions=[self.captions[row] for row in rows],
            open_image=lambda index: self.open_image(int(rows[index])),
            families=None if self.families is None else self.families[rows],
        )

    def decode(self, resolution: int, channels: int) -> CaptionedImages:
        """Decode the images in several threads.

        Args:
            resolution: width and height of the result in pixels.
            channels: 3 for color, 1 for gray.

        Returns:
            The images; their pixels lie on disk if they are large.

        Raises:
            AfterglowError: if images cannot be read or are too small; it counts them and names the first.
        """
        count = len(self.names)
        log.info("Reading %s images from %s.", f"{count:,}", self.source)
        pixels = allocate((count, channels, resolution, resolution))
        failures: dict[int, str] = {}

        def fill(start: int) -> None:
            for index in range(start, min(start + _CHUNK, count)):
                if len(failures) < MAX_FAILURES:
                    try:
                        pixels[index] = self._square(index, resolution, channels)
                    except FileNotFoundError:
                        failures[index] = "is missing"
                    except Exception as error:  # a broken file makes Pillow raise OSError, SyntaxError, struct.error and more
                        failures[index] = f"cannot be read ({reason(error)})"

        with ThreadPoolExecutor() as pool:
            chunks = range(0, count, _CHUNK)
            list(tqdm(pool.map(fill, chunks), total=len(chunks), desc="reading images", unit="chunk", delay=2))
        if failures:
            raise AfterglowError(self._failure(failures))
        families = np.full(count, -1, dtype=np.int64) if self.families is None else self.families
        return CaptionedImages(pixels, tuple(self.captions), tuple(self.names), families, self.captions_unique, self.family_captions)

    def _square(self, index: int, resolution: int, channels: int) -> np.ndarray:
        with self.open_image(index) as image:
            square = to_square(upright(image), resolution, channels)
            if min(image.size) < resolution and not self.upscale:
                width, height = image.size
                raise ValueError(f"it has {width} x {height} pixels, less than the resolution {resolution}")
        return square

    def _failure(self, failures: Mapping[int, str]) -> str:
        first, *others = sorted(failures)
        text = f"{shown(self.source, 80)}: the image {shown(self.names[first])} {failures[first]}"
        if others:
            more = f"{len(others)}{' or more' if len(failures) >= MAX_FAILURES else ''}"
            text += f", and {more} other images cannot be used ({shown(self.names[others[0]], 30)}{', ...' if others[1:] else ''})"
        return f"{text}."
