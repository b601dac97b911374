"""Mutated images, metadata, lists of prompts and planted sets: each loads with the right values or is one sentence that names the file.

The quick profile runs in CI, the long one with `make faults`. An audit hook fails the test if anything is executed.
"""

import csv
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from afterglow.datasets.prompts import read_prompts
from afterglow.datasets.sources import load_images
from afterglow.errors import AfterglowError
from afterglow.planting.io import read_planted, write_planted
from afterglow.planting.plants import PlantedSet

EXECUTION = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn", "pickle.find_class", "socket.connect")
watched = False
executed: list[str] = []


def audit(event: str, _: tuple) -> None:
    if watched and event in EXECUTION:
        executed.append(event)


sys.addaudithook(audit)


@contextmanager
def nothing_is_executed() -> Iterator[None]:
    global watched
    watched = True
    try:
        yield
    finally:
        watched = False
    assert not executed


def profiles(quick: int, long: int) -> Any:
    return pytest.mark.parametrize("examples", [quick, pytest.param(long, marks=[pytest.mark.faults, pytest.mark.timeout(1800)])])


def run(check: Callable[..., None], examples: int, *strategies: st.SearchStrategy) -> None:
    profile = settings(
        max_examples=examples,
        deadline=None,
        derandomize=examples < 500,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # failing cases are small enough without being shrunk
    )
    cases = 0

    @wraps(check)
    def counted(*values: Any, **named: Any) -> None:
        nonlocal cases
        cases += 1
        check(*values, **named)

    profile(given(*strategies)(counted))()
    print(f"{cases} mutated inputs: 0 tracebacks, 0 silent wrong values, 0 code executed")


def loaded(load: Callable[[], Any], names: list[str]) -> Any:
    """What `load` returns, or None if it raised one short sentence that names one of the files."""
    with nothing_is_executed():
        try:
            return load()
        except AfterglowError as error:
            text = str(error)
            assert len(text) <= 300 and text.isprintable() and any(name in text for name in names), text
            return None


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (9, 8, 3), dtype=np.uint8)
RGB = Image.fromarray(NOISE)
ORIGINALS = {
    **{f"{mode}.png": encoded(RGB.convert(mode), "PNG") for mode in ("RGB", "L", "P", "1", "RGBA", "LA")},
    "16.png": encoded(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257), "PNG"),
    "transparent.png": encoded(RGB.convert("P"), "PNG", transparency=3),
    "exif.jpg": encoded(RGB, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "cmyk.jpg": encoded(RGB.convert("CMYK"), "JPEG"),
    "a.gif": encoded(RGB, "GIF", save_all=True, append_images=[RGB.rotate(180)]),
    "a.tif": encoded(RGB, "TIFF", compression="tiff_lzw"),
    "f.tif": encoded(Image.fromarray(NOISE[..., 0].astype(np.float32) / 255), "TIFF"),
    "i.tif": encoded(Image.fromarray(NOISE[..., 0].astype(np.int32) * 257), "TIFF"),
    **{f"a.{suffix}": encoded(RGB, kind) for suffix, kind in (("bmp", "BMP"), ("webp", "WEBP"), ("ppm", "PPM"), ("tga", "TGA"))},
}
MUTATION = st.tuples(st.sampled_from(["flip", "cut", "insert", "repeat"]), st.floats(0, 1), st.integers(0, 255))


def mutated(data: bytes, mutations: list[tuple[str, float, int]]) -> bytes:
    for kind, position, value in mutations:
        at = int(position * max(0, len(data) - 1))
        flipped = bytes([data[at] ^ (value or 1)]) if data else b""
        data = {
            "flip": data[:at] + flipped + data[at + 1 :],
            "cut": data[:at],
            "insert": data[:at] + bytes([value]) + data[at:],
            "repeat": data[:at] + data[max(0, at - value) :],
        }[kind]
    return data


@profiles(60, 3000)
@pytest.mark.filterwarnings("ignore")
def test_load_images_of_mutated_image_files_loads_them_or_names_them(examples: int) -> None:
    def check(name: str, mutations: list, channels: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "cat").mkdir()
            (Path(folder) / "cat" / name).write_bytes(mutated(ORIGINALS[name], mutations))
            images = loaded(lambda: load_images("imagefolder", resolution=4, channels=channels, data_dir=folder), [f"cat/{name}"])
            assert images is not None or mutations
            if images is not None:
                assert images.pixels.shape == (1, channels, 4, 4) and images.captions == ("cat",)

    run(check, examples, st.sampled_from(sorted(ORIGINALS)), st.lists(MUTATION, max_size=3), st.sampled_from([1, 3]))


def as_jsonl(rows: list[dict[str, Any]], ascii_only: bool) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows).encode("utf-8", "surrogatepass")


def as_csv(rows: list[dict[str, Any]], _: bool) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def expected_captions(data: bytes, suffix: str, column: str) -> list[Any]:
    """The captions of a list, read once more by the standard library alone."""
    text = data.decode("utf-8-sig")
    if suffix == "txt":
        return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]
    if suffix == "jsonl":
        return [json.loads(line).get(column) for line in text.split("\n") if line.strip()]
    separator = ";" if text.split("\n")[0].count(";") >= text.split("\n")[0].count(",") else ","
    rows = csv.DictReader(io.StringIO(text, newline="\n"), delimiter=separator)
    return [row[column] for row in rows if any(row.values())]


CAPTIONS = st.text(max_size=12) | st.sampled_from(["a\u2028b", "a\x85b", "\x0b", "a\0b", "<script>alert(1)</script>", '"', "a;b,c", "\r"])
WRONG = (
    st.none() | st.integers() | st.lists(st.text(max_size=3), max_size=2) | st.dictionaries(st.text(max_size=2), st.booleans(), max_size=1)
)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@profiles(40, 2000)
def test_load_images_with_mutated_metadata_keeps_its_captions_or_names_it(examples: int, suffix: str) -> None:
    image = ORIGINALS["RGB.png"]

    def check(captions: list, ascii_only: bool, mutations: list) -> None:
        rows = [{"file_name": f"{number}.png", "text": caption} for number, caption in enumerate(captions)]
        data = mutated((as_jsonl if suffix == "jsonl" else as_csv)(rows, ascii_only), mutations)
        with tempfile.TemporaryDirectory() as folder:
            for number in range(len(captions)):
                (Path(folder) / f"{number}.png").write_bytes(image)
            (Path(folder) / f"metadata.{suffix}").write_bytes(data)
            images = loaded(
                lambda: load_images("imagefolder", resolution=4, data_dir=folder, caption_column="text"), [f"metadata.{suffix}", folder]
            )
        if images is not None:
            assert list(images.captions) == [caption or "" for caption in expected_captions(data, suffix, "text")]
        elif not mutations and all(isinstance(caption, str) and caption.isprintable() for caption in captions):
            raise AssertionError(f"{data!r} was refused")

    captions = st.lists(CAPTIONS if suffix == "csv" else CAPTIONS | WRONG, min_size=1, max_size=4)
    run(check, examples, captions, st.booleans(), st.lists(MUTATION, max_size=2))


PATHS = st.sampled_from(["in.png", "sub/in.png", "../out.png", "link.png", "sub/../in.png", "loop.png", "/etc/hostname", "a\0b", "x" * 300])


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "txt"])
@profiles(30, 2000)
def test_read_prompts_of_mutated_lists_keeps_captions_and_stays_in_the_folder(examples: int, suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "list"
    (folder / "sub").mkdir(parents=True)
    for file in (folder / "in.png", folder / "sub" / "in.png", tmp_path / "out.png"):
        file.write_bytes(ORIGINALS["RGB.png"])
    (folder / "link.png").symlink_to("../out.png")
    (folder / "loop.png").symlink_to("loop.png")

    def check(entries: list, ascii_only: bool, mutations: list) -> None:
        if suffix == "txt":
            data = "\n".join(str(caption) for caption, _ in entries).encode("utf-8", "surrogatepass")
        else:
            rows = [{"caption": caption, "image": image} for caption, image in entries]
            data = (as_jsonl if suffix == "jsonl" else as_csv)(rows, ascii_only)
        data = mutated(data, mutations)
        (folder / f"list.{suffix}").write_bytes(data)
        prompts = loaded(lambda: read_prompts(folder / f"list.{suffix}"), [f"list.{suffix}"])
        if prompts is not None:
            assert [prompt.caption for prompt in prompts] == expected_captions(data, suffix, "caption")
            assert all(prompt.image is None or prompt.image.resolve().is_relative_to(folder.resolve()) for prompt in prompts)

    entries = st.lists(st.tuples(CAPTIONS if suffix != "jsonl" else CAPTIONS | WRONG, st.none() | PATHS), min_size=1, max_size=3)
    run(check, examples, entries, st.booleans(), st.lists(MUTATION, max_size=2))


VALUES = st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)


@profiles(40, 2000)
@pytest.mark.filterwarnings("ignore")
def test_read_planted_of_a_mutated_folder_reads_it_or_names_it(examples: int, planted: PlantedSet, tmp_path: Path) -> None:
    write_planted(planted, tmp_path / "set")
    metadata = tmp_path / "set" / "metadata.jsonl"
    original = [json.loads(line) for line in metadata.read_text().split("\n") if line]
    columns = sorted(original[0])

    def check(changes: list, mutations: list) -> None:
        rows = [dict(row) for row in original]
        for position, column, value in changes:
            rows[int(position * (len(rows) - 1))][column] = value
        metadata.write_bytes(mutated(as_jsonl(rows, ascii_only=True), mutations))
        again = loaded(lambda: read_planted(tmp_path / "set"), [str(tmp_path / "set")])
        if not changes and not mutations:
            assert again is not None and np.array_equal(again.pixels, planted.pixels) and again.captions == planted.captions

    changes = st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from(columns), VALUES | st.sampled_from(["../x.png", "global", "heldout"])), max_size=2
    )
    run(check, examples, changes, st.lists(MUTATION, max_size=2))


def test_audit_hook_notices_a_program_that_is_started() -> None:
    with pytest.raises(AssertionError), nothing_is_executed():
        import subprocess

        subprocess.run(["true"], check=True)
    executed.clear()


def test_loaded_refuses_errors_that_are_long_or_name_nothing() -> None:
    for text in ("x.png " + "y" * 300, "something is wrong", "x.png\nbroken"):

        def load(text: str = text) -> None:
            raise AfterglowError(text)

        with pytest.raises(AssertionError, match=re.escape(text[:5])):
            loaded(load, ["x.png"])
