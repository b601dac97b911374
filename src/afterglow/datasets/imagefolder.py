"""Your own images: a folder of images, a saved `datasets` folder, or a set on the hub."""

import glob
import io
import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath

import datasets
import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from afterglow.cache import allocate
from afterglow.datasets.images import CaptionedImages, to_square
from afterglow.errors import AfterglowError

log = logging.getLogger(__name__)

Image.init()
IMAGE_SUFFIXES = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)
CAPTION_COLUMNS = ("text", "caption")
SPLIT_FOLDERS = {"train", "test", "val", "valid", "validation"}
_CHUNK = 256  # images per task of a thread: one task per image costs more than decoding a small one


def load_imagefolder(folder: str, resolution: int, channels: int, caption_column: str | None = None) -> CaptionedImages:
    """Load a folder of images.

    Args:
        folder: an imagefolder, a `save_to_disk` folder, or a set on the hub ("owner/name"), of which the training split is taken.
        resolution: width and height of the images in pixels.
        channels: 3 for color, 1 for gray.
        caption_column: column with the captions; by default text, caption, or the class names.

    Returns:
        The images and their captions.

    Raises:
        AfterglowError: if the folder or one of its images cannot be read; it names the culprit.
    """
    rows = _open(folder)
    image = _image_column(rows, folder)
    files = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    names = _names([row[image] for row in files], folder)

    def open_image(index: int) -> Image.Image:
        stored = files[index][image]
        return Image.open(io.BytesIO(stored["bytes"]) if stored["bytes"] else stored["path"])

    captions = _captions(rows, names, folder, caption_column)
    families, family_captions = _families(rows, captions)
    pixels = decode(folder, names, open_image, resolution=resolution, channels=channels)
    unique = "" not in captions and len(set(captions)) == len(captions)
    return CaptionedImages(pixels, captions, names, families, unique, family_captions)


def decode(
    source: str, names: Sequence[str], open_image: Callable[[int], Image.Image], *, resolution: int, channels: int, upscale: bool = False
) -> np.ndarray:
    """Decode images in several threads.

    Args:
        source: folder or name of the dataset, for messages.
        names: name of each image.
        open_image: opens an image by its index.
        resolution: width and height of the result in pixels.
        channels: 3 for color, 1 for gray.
        upscale: if False, an image smaller than the resolution is an error.

    Returns:
        uint8 [N, channels, resolution, resolution]; on disk if it is large.

    Raises:
        AfterglowError: if an image cannot be read or is too small; it names the image.
    """
    log.info("Reading %s images from %s.", f"{len(names):,}", source)
    pixels = allocate((len(names), channels, resolution, resolution))

    def fill(start: int) -> None:
        for index in range(start, min(start + _CHUNK, len(names))):
            pixels[index] = _decode_one(source, names[index], partial(open_image, index), resolution, channels, upscale)

    with ThreadPoolExecutor() as pool:
        chunks = range(0, len(names), _CHUNK)
        for _ in tqdm(pool.map(fill, chunks), total=len(chunks), desc="reading images", unit="chunk", delay=2):
            pass  # the loop raises a thread's error here
    return pixels


def _decode_one(source: str, name: str, open_image: Callable[[], Image.Image], resolution: int, channels: int, upscale: bool) -> np.ndarray:
    try:
        with open_image() as image:
            ImageOps.exif_transpose(image, in_place=True)
            size, square = image.size, to_square(image, resolution, channels)
    except FileNotFoundError as error:
        raise AfterglowError(f"{source}: the image {name} is missing.") from error
    except Exception as error:  # a broken file makes Pillow raise OSError, SyntaxError, struct.error and more
        raise AfterglowError(f"{source}: the image {name} cannot be read ({error}).") from error
    if min(size) < resolution and not upscale:
        advice = "remove it, or choose a smaller resolution"
        raise AfterglowError(
            f"{source}: the image {name} has {size[0]} x {size[1]} pixels, less than the resolution {resolution}: {advice}."
        )
    return square


def _open(folder: str) -> datasets.Dataset:
    path = Path(folder)
    if path.is_dir():
        saved = (path / "dataset_dict.json").exists() or (path / "state.json").exists()
        return _open_saved(folder) if saved else _open_imagefolder(_training_folder(path))
    if path.exists() or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", folder):
        raise AfterglowError(f"'{folder}' {'is a file' if path.exists() else 'does not exist'}; a folder of images was expected.")
    try:
        return _training_split(datasets.load_dataset(folder), folder)
    except Exception as error:  # without a network the hub's client raises a dozen kinds
        raise AfterglowError(f"'{folder}' is not a local folder and could not be loaded from the hub ({_reason(error)}).") from error


def _open_saved(folder: str) -> datasets.Dataset:
    try:
        loaded = datasets.load_from_disk(folder)
    except Exception as error:
        raise AfterglowError(f"{folder} looks like a saved set but cannot be opened ({_reason(error)}).") from error
    return _training_split(loaded, folder)


def _open_imagefolder(path: Path) -> datasets.Dataset:
    if not any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*")):
        raise AfterglowError(f"{path} contains no images.")
    # Not data_dir: it reads splits out of names, so that an image called test_2.png or a class called train empties the rest.
    # No labels: `datasets` infers none for a single class; the captions take them from the names, in every case.
    files = f"{glob.escape(str(path.resolve()))}/**"
    try:
        return datasets.load_dataset("imagefolder", data_files={"train": files}, split="train", drop_labels=True)
    except Exception as error:
        raise AfterglowError(f"{path}: its metadata cannot be read ({_reason(error)}).") from error


def _reason(error: Exception) -> str:
    """First line of the cause; `datasets` wraps it in an error that says only where."""
    return str(error.__cause__ or error).partition("\n")[0]


def _training_folder(path: Path) -> Path:
    """The folder itself, or its `train` if the set has one folder per split."""
    inside = {entry.name for entry in path.iterdir() if entry.is_dir()}
    return path / "train" if "train" in inside and len(inside) > 1 and inside <= SPLIT_FOLDERS else path


def _training_split(loaded: datasets.Dataset | datasets.DatasetDict, folder: str) -> datasets.Dataset:
    if isinstance(loaded, datasets.Dataset):
        return loaded
    if "train" in loaded or len(loaded) == 1:
        return loaded["train"] if "train" in loaded else next(iter(loaded.values()))
    raise AfterglowError(f"{folder} has no split `train`; its splits are {', '.join(loaded)}.")


def _image_column(rows: datasets.Dataset, folder: str) -> str:
    columns = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Image) and name != "mask"]
    if not columns or not len(rows):
        raise AfterglowError(f"{folder} contains no images.")
    return "image" if "image" in columns else columns[0]


def _names(stored: Sequence[dict | None], folder: str) -> tuple[str, ...]:
    """Paths below the folder, with the number of the row if an image is listed twice or has no path."""
    root, names = Path(folder).resolve(), []
    for row, image in enumerate(stored):
        if image is None:
            raise AfterglowError(f"{folder}: row {row} names no image.")
        path = Path(image["path"] or f"{row:06d}")
        names.append(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name)
    return tuple(names) if len(set(names)) == len(names) else tuple(f"{name}#{row}" for row, name in enumerate(names))


def _captions(rows: datasets.Dataset, names: Sequence[str], folder: str, column: str | None) -> tuple[str, ...]:
    """The caption column, else the class labels, else the name of each image's sub-folder ("" where it lies in none)."""
    if column is not None and column not in rows.features:
        raise AfterglowError(f"{folder} has no caption column {column!r}; its columns are {', '.join(rows.column_names)}.")
    labels = [name for name, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]
    column = column or next((name for name in (*CAPTION_COLUMNS, *labels) if name in rows.features), None)
    if column is None:
        _refuse_unnamed_captions(rows, folder)
        captions = tuple(PurePosixPath(name).parent.name.replace("_", " ") for name in names)
        if not any(captions):
            log.warning("No captions found in %s: training images get an empty caption, and each plant gets an invented name.", folder)
        return captions
    feature = rows.features[column]
    if isinstance(feature, datasets.ClassLabel):
        classes = [name.replace("_", " ") for name in feature.names]
        return tuple("" if label in (None, -1) else classes[label] for label in rows[column])
    if getattr(feature, "dtype", None) not in ("string", "large_string"):
        raise AfterglowError(f"{folder}: the caption column {column!r} holds {feature}, not text.")
    return tuple(caption or "" for caption in rows[column])


def _refuse_unnamed_captions(rows: datasets.Dataset, folder: str) -> None:
    texts = [name for name, feature in rows.features.items() if getattr(feature, "dtype", None) in ("string", "large_string")]
    texts = [name for name in texts if name not in ("family", "family_caption")]
    if texts:
        raise AfterglowError(
            f"{folder} has no caption column `text` or `caption`; set caption_column to one of its text columns: {', '.join(texts)}."
        )


def _families(rows: datasets.Dataset, captions: Sequence[str]) -> tuple[np.ndarray, dict[int, str]]:
    """Column `family` => int64 [N] numbered from 0 in order of appearance (-1 = of none), and the caption of each number."""
    if "family" not in rows.features:
        return np.full(len(rows), -1, dtype=np.int64), {}
    numbers: dict[object, int] = {}
    families = [-1 if _no_family(family) else numbers.setdefault(family, len(numbers)) for family in rows["family"]]
    given = list(rows["family_caption"]) if "family_caption" in rows.features else [None] * len(rows)
    family_captions = {}
    for number in numbers.values():
        members = [row for row, family in enumerate(families) if family == number]
        named = next((given[row] for row in members if given[row]), None)
        family_captions[number] = named or _common_words([captions[row] for row in members])
    return np.array(families, dtype=np.int64), family_captions


def _no_family(family: object) -> bool:
    return family is None or family == "" or family == -1 or family != family  # an integer column with gaps comes as NaN


def _common_words(captions: Sequence[str]) -> str:
    others = [set(caption.split()) for caption in captions[1:]]
    return " ".join(word for word in captions[0].split() if all(word in other for other in others)).strip(" ,:;")
