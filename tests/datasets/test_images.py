import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from afterglow.datasets.images import IMAGE_SUFFIXES, CaptionedImages, opaque, read_image, to_square
from afterglow.errors import AfterglowError


def test_the_middle_square_is_kept_and_averaged() -> None:
    wide = np.zeros((4, 12, 3), dtype=np.uint8)
    wide[:, 4:8] = np.random.default_rng(0).integers(0, 256, (4, 4, 3))
    blocks = wide[:, 4:8].reshape(2, 2, 2, 2, 3).mean(axis=(1, 3))  # the plain mean of each block of 2x2
    small = to_square(Image.fromarray(wide), 2, 3)
    assert np.abs(small.transpose(1, 2, 0) - blocks).max() <= 1  # Pillow rounds once per direction
    assert (to_square(Image.fromarray(wide.transpose(1, 0, 2)), 2, 3) == small.transpose(0, 2, 1)).all()


def test_a_image_of_the_right_size_is_not_touched() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert (to_square(Image.fromarray(pixels), 8, 3).transpose(1, 2, 0) == pixels).all()
    assert to_square(Image.fromarray(pixels[:4, :4]), 8, 3).shape == (3, 8, 8)  # enlarged


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_transparent_background_is_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    if mode == "P":
        image.info["transparency"] = image.getpixel((0, 0))
    assert (to_square(image, 4, 3) == 255).all()


def test_gray_follows_the_weights_of_the_standard() -> None:
    gray = to_square(Image.new("RGB", (4, 4), (200, 100, 50)), 4, 1)
    assert gray.shape == (1, 4, 4) and abs(int(gray[0, 0, 0]) - (0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1
    assert to_square(Image.new("L", (4, 4), 90), 4, 3).tolist() == np.full((3, 4, 4), 90).tolist()


def test_captioned_images_check_their_shapes() -> None:
    pixels = np.zeros((2, 3, 4, 4), np.uint8)
    assert len(CaptionedImages(pixels, ("a", "b"), ("1", "2"), np.array([-1, -1]), True)) == 2
    for wrong in ((pixels.astype(float), ("a", "b")), (pixels, ("a",)), (pixels[0], ("a", "b"))):
        with pytest.raises(AssertionError):
            CaptionedImages(*wrong, ("1", "2"), np.array([-1, -1]), True)


def saved(folder: Path, name: str, image: Image.Image, **options: Any) -> Image.Image:
    """The image as `read_image` gives it back from a file."""
    image.save(folder / name, **options)
    return read_image(folder / name)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_read_image_of_16_bit_gray_divides_by_257(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 16384, 32768], [65535, 65278, 128, 129]], dtype=np.uint16)
    image = saved(tmp_path, f"gray.{suffix}", Image.fromarray(values))
    assert image.mode == "L" and np.asarray(image).tolist() == np.round(values / 257).astype(int).tolist()
    assert to_square(image, 2, 3).shape == (3, 2, 2)


def test_read_image_of_16_bit_gray_in_any_byte_order_gives_the_same(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 16, dtype=np.uint16).reshape(4, 4)
    for mode, dtype in (("I;16", "<u2"), ("I;16B", ">u2")):
        image = opaque(Image.frombytes(mode, (4, 4), values.astype(dtype).tobytes()))
        assert np.asarray(image).tolist() == np.round(values / 257).astype(int).tolist()


def png(width: int, height: int, depth: int, color: int, rows: bytes, transparency: bytes = b"") -> bytes:
    """A PNG file of one chunk of uncompressed rows; Pillow itself writes no 16-bit color."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    extra = chunk(b"tRNS", transparency) if transparency else b""
    stride = len(rows) // height
    data = b"".join(b"\0" + rows[start : start + stride] for start in range(0, len(rows), stride))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_read_image_of_16_bit_color_keeps_the_upper_byte(tmp_path: Path) -> None:
    values = np.array([[[65535, 0, 16384], [32768, 257, 40000]]], dtype=">u2")
    (tmp_path / "color.png").write_bytes(png(2, 1, 16, 2, values.tobytes()))
    assert np.asarray(read_image(tmp_path / "color.png")).tolist() == (values >> 8).tolist()


@pytest.mark.parametrize(
    ("depth", "color", "pixels", "transparency", "expected"),
    [
        (8, 2, bytes([1, 2, 3, 9, 9, 9]), struct.pack(">HHH", 1, 2, 3), [[255, 255, 255], [9, 9, 9]]),
        (8, 0, bytes([7, 9]), struct.pack(">H", 7), [[255, 255, 255], [9, 9, 9]]),
        (16, 0, struct.pack(">HH", 771, 2313), struct.pack(">H", 771), [[255, 255, 255], [9, 9, 9]]),
    ],
)
def test_read_image_of_a_png_with_a_transparent_color_puts_it_on_white(
    depth: int, color: int, pixels: bytes, transparency: bytes, expected: list, tmp_path: Path
) -> None:
    (tmp_path / "t.png").write_bytes(png(2, 1, depth, color, pixels, transparency))
    assert np.asarray(read_image(tmp_path / "t.png").convert("RGB")).tolist() == [expected]


def test_read_image_of_float_multiplies_by_255(tmp_path: Path) -> None:
    values = np.array([[0, 0.5], [0.25, 1]], dtype=np.float32)
    image = saved(tmp_path, "f.tif", Image.fromarray(values))
    assert np.asarray(image).tolist() == [[0, 128], [64, 255]]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.array([[0, 255.0]], dtype=np.float32), "floating-point values span 0 to 255, not 0 to 1"),
        (np.array([[-0.1, 0.5]], dtype=np.float32), "span -0.1 to 0.5"),
        (np.array([[0, np.nan]], dtype=np.float32), "span nan to nan"),
        (np.array([[0, 70_000]], dtype=np.int32), "32-bit integers span 0 to 70000"),
        (np.array([[0, 200]], dtype=np.int32), "span 0 to 200; 16-bit values"),
        (np.array([[-5, 300]], dtype=np.int32), "span -5 to 300"),
    ],
)
def test_read_image_of_values_without_a_known_scale_is_refused_by_name(values: np.ndarray, sentence: str, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "odd.tif")
    with pytest.raises(AfterglowError, match=f"odd.tif' .*{sentence}"):
        read_image(tmp_path / "odd.tif")


@pytest.mark.parametrize(
    ("name", "mode", "color", "expected", "tolerance"),
    [
        ("cmyk.tif", "CMYK", (0, 255, 255, 0), (255, 0, 0), 0),
        ("cmyk.jpg", "CMYK", (0, 255, 255, 0), (255, 0, 0), 3),
        ("bit.png", "1", 1, (255, 255, 255), 0),
        ("la.png", "LA", (100, 0), (255, 255, 255), 0),
        ("la.png", "LA", (100, 255), (100, 100, 100), 0),
        ("rgba.png", "RGBA", (200, 0, 0, 128), (227, 127, 127), 1),
        ("rgba.webp", "RGBA", (200, 0, 0, 0), (255, 255, 255), 0),
    ],
)
def test_read_image_of_each_mode_gives_its_color_on_white(
    name: str, mode: str, color: Any, expected: tuple, tolerance: int, tmp_path: Path
) -> None:
    image = saved(tmp_path, name, Image.new(mode, (8, 8), color)).convert("RGB")
    assert np.abs(np.array(image.getpixel((3, 3))) - np.array(expected)).max() <= tolerance


def test_read_image_of_palettes_gives_their_colors_and_transparent_ones_on_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert np.asarray(saved(tmp_path, "p.png", palette)).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    for name, transparency in (("p.png", 1), ("bytes.png", b"\xff\x00"), ("p.gif", 1)):
        image = saved(tmp_path, name, palette, transparency=transparency)
        assert np.asarray(image).tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_read_image_of_an_animation_gives_the_first_frame(suffix: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ((200, 0, 0), (0, 0, 200))]
    options = {"lossless": True} if suffix == "webp" else {}
    image = saved(tmp_path, f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    assert image.convert("RGB").getpixel((1, 1)) == (200, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_image_turns_it_as_its_exif_orientation_says(orientation: int, tmp_path: Path) -> None:
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    flipped = gray[::-1, ::-1]
    turned = (gray, gray[:, ::-1], flipped, gray[::-1], gray.T, np.rot90(gray), flipped.T, np.rot90(gray, -1))
    stored = turned[orientation - 1]
    exif = Image.Exif()
    exif[274] = orientation
    assert np.array_equal(np.asarray(saved(tmp_path, "e.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)), gray)


def test_read_image_names_a_file_that_is_missing_damaged_or_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    os.mkfifo(tmp_path / "pipe.png")
    for name, cause in (("gone.png", "no such file"), ("pipe.png", "no such file"), ("text.png", "no known image format")):
        with pytest.raises(AfterglowError, match=f"{name}' is missing or cannot be read .{cause}"):
            read_image(tmp_path / name)


def test_open_image_runs_no_other_program_for_a_disguised_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *args, **options: pytest.fail("a program was started"))
    Image.new("RGB", (8, 8)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(AfterglowError, match="no known image format"):
        read_image(tmp_path / "x.png")
    assert not {".eps", ".ps", ".wmf", ".h5"} & IMAGE_SUFFIXES and {".png", ".jpg", ".webp", ".tif"} <= IMAGE_SUFFIXES
