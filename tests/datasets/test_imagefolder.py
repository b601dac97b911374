import json
import os
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from afterglow import cache
from afterglow.datasets.imagefolder import list_imagefolder
from afterglow.datasets.images import CaptionedImages
from afterglow.errors import AfterglowError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def load_imagefolder(folder: str, resolution: int, channels: int, caption_column: str | None = None) -> CaptionedImages:
    return list_imagefolder(folder, caption_column).decode(resolution, channels)


def save(path: Path, color: tuple[int, ...] = RED, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path)


def write_metadata(folder: Path, rows: list[dict], colors: tuple[tuple[int, ...], ...] = (RED, GREEN, BLUE)) -> str:
    for row, color in zip(rows, colors * len(rows), strict=False):
        save(folder / row["file_name"], color)
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def colors_of(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """The color in the middle of each image."""
    return [tuple(int(value) for value in image[:, 2, 2]) for image in pixels]


def test_class_folders_caption_their_images_and_no_name_is_taken_for_a_split(tmp_path: Path) -> None:
    save(tmp_path / "set" / "big_cat" / "test_1.png", RED)
    save(tmp_path / "set" / "train" / "test_1.png", GREEN)
    images = load_imagefolder(str(tmp_path / "set"), 4, 3)
    assert images.captions == ("big cat", "train")
    assert images.names == ("big_cat/test_1.png", "train/test_1.png")
    assert colors_of(images.pixels) == [RED, GREEN]
    assert images.captions_unique and images.families.tolist() == [-1, -1]


def test_class_captions_are_not_unique(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "set" / "cat" / f"{number}.png")
    images = load_imagefolder(str(tmp_path / "set"), 4, 3)
    assert images.captions == ("cat",) * 3 and not images.captions_unique


def test_train_and_test_folders_give_the_training_images(tmp_path: Path) -> None:
    save(tmp_path / "set" / "train" / "cat" / "1.png", GREEN)
    save(tmp_path / "set" / "test" / "dog" / "1.png", RED)
    images = load_imagefolder(str(tmp_path / "set"), 4, 3)
    assert images.captions == ("cat",) and images.names == ("train/cat/1.png",)
    assert colors_of(images.pixels) == [GREEN]


def test_a_flat_folder_has_empty_captions(tmp_path: Path) -> None:
    save(tmp_path / "set [1]*" / "a.png", RED)
    save(tmp_path / "set [1]*" / "b.JPEG", GREEN)
    (tmp_path / "set [1]*" / "notes.txt").write_text("no image")
    images = load_imagefolder(str(tmp_path / "set [1]*"), 4, 3)
    assert images.captions == ("", "") and not images.captions_unique
    assert images.names == ("a.png", "b.JPEG")


@pytest.mark.parametrize("column", ["text", "caption"])
def test_metadata_gives_captions_and_masks_are_no_images(tmp_path: Path, column: str) -> None:
    rows = [{"file_name": f"{name}.png", "mask_file_name": f"masks/{name}.png", column: f"a {name}"} for name in ("hat", "cup")]
    folder = write_metadata(tmp_path / "set", rows)
    for name in ("hat", "cup"):
        save(tmp_path / "set" / "masks" / f"{name}.png", BLUE, mode="L")
    images = load_imagefolder(folder, 4, 3)
    assert images.captions == ("a hat", "a cup") and images.captions_unique
    assert colors_of(images.pixels) == [RED, GREEN]


def test_missing_mask_is_ignored(tmp_path: Path) -> None:
    folder = write_metadata(tmp_path / "set", [{"file_name": "1.png", "mask_file_name": "gone.png", "text": "a hat"}])
    assert load_imagefolder(folder, 4, 3).captions == ("a hat",)


def test_metadata_as_csv_with_a_caption_column_by_name_and_a_gap(tmp_path: Path) -> None:
    save(tmp_path / "set" / "1.png")
    save(tmp_path / "set" / "2.png")
    (tmp_path / "set" / "metadata.csv").write_text("file_name,text,title\n1.png,ignored,a hat\n2.png,ignored,\n")
    images = load_imagefolder(str(tmp_path / "set"), 4, 3, caption_column="title")
    assert images.captions == ("a hat", "") and not images.captions_unique


def test_image_listed_twice_gets_two_names(tmp_path: Path) -> None:
    folder = write_metadata(tmp_path / "set", [{"file_name": "1.png", "text": "a"}, {"file_name": "1.png", "text": "b"}])
    images = load_imagefolder(folder, 4, 3)
    assert images.captions == ("a", "b") and len(set(images.names)) == 2
    assert all(name.startswith("1.png") for name in images.names)


@pytest.mark.parametrize("split", [False, True])
def test_a_saved_datasets_folder_keeps_its_class_names(tmp_path: Path, split: bool) -> None:
    save(tmp_path / "a" / "1.png", RED)
    save(tmp_path / "b" / "1.png", BLUE)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["ice_cream", "bread"])})
    files = [str(tmp_path / "a" / "1.png"), str(tmp_path / "b" / "1.png")]
    rows = datasets.Dataset.from_dict({"img": files, "label": [1, 0]}, features=features)
    saved = datasets.DatasetDict({"train": rows, "test": rows.select([0])}) if split else rows
    saved.save_to_disk(str(tmp_path / "saved"))
    for file in files:
        Path(file).unlink()
    images = load_imagefolder(str(tmp_path / "saved"), 4, 3)
    assert images.captions == ("bread", "ice cream")
    assert colors_of(images.pixels) == [RED, BLUE] and len(set(images.names)) == 2


def test_a_saved_folder_that_lost_its_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text("{}")
    with pytest.raises(ValueError, match="saved looks like a saved set but cannot be opened"):
        load_imagefolder(str(tmp_path / "saved"), 4, 3)


def test_a_set_from_the_hub_gives_its_training_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "1.png", GREEN)
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = datasets.Dataset.from_dict({"image": [str(tmp_path / "1.png")], "text": ["a leaf"]}, features=features)
    hub = {"owner/leaves": datasets.DatasetDict(train=rows), "owner/parts": datasets.DatasetDict(a=rows, b=rows)}
    monkeypatch.setattr(datasets, "load_dataset", lambda name: hub[name])
    assert load_imagefolder("owner/leaves", 4, 3).captions == ("a leaf",)
    with pytest.raises(ValueError, match="no split `train`; its splits are a, b"):
        load_imagefolder("owner/parts", 4, 3)


def test_a_saved_mask_is_not_taken_for_the_image(tmp_path: Path) -> None:
    save(tmp_path / "mask.png", BLUE, mode="L")
    save(tmp_path / "img.png", GREEN)
    features = datasets.Features({"mask": datasets.Image(), "img": datasets.Image()})
    files = {name: [str(tmp_path / f"{name}.png")] for name in ("mask", "img")}
    datasets.Dataset.from_dict(files, features=features).save_to_disk(str(tmp_path / "saved"))
    assert colors_of(load_imagefolder(str(tmp_path / "saved"), 4, 3).pixels) == [GREEN]


def test_families_are_numbered_and_captioned_by_their_common_words(tmp_path: Path) -> None:
    captions = ["wave: light skin", "a cup", "wave: dark skin", "red car", "blue car"]
    families = ["hand", None, "hand", "car", "car"]
    rows = [
        {"file_name": f"{number}.png", "text": caption, "family": family}
        for number, (caption, family) in enumerate(zip(captions, families, strict=True))
    ]
    images = load_imagefolder(write_metadata(tmp_path / "set", rows), 4, 3)
    assert images.families.dtype == np.int64 and images.families.tolist() == [0, -1, 0, 1, 1]
    assert images.family_captions == {0: "wave: skin", 1: "car"}


def test_whole_number_families_with_gaps_and_a_caption_of_their_own(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / "set" / f"{number}.png")
    table = "file_name,text,family,family_caption\n0.png,a,7,letters\n1.png,b,7,letters\n2.png,c,,\n3.png,d,-1,\n"
    (tmp_path / "set" / "metadata.csv").write_text(table)
    images = load_imagefolder(str(tmp_path / "set"), 4, 3)
    assert images.families.tolist() == [0, 0, -1, -1] and images.family_captions == {0: "letters"}


def test_images_of_any_shape_and_mode_become_squares(tmp_path: Path) -> None:
    save(tmp_path / "set" / "gray.png", (90, 90, 90), mode="L")
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "set" / "transparent.png")
    wide = Image.new("RGB", (24, 8), RED)
    wide.paste(GREEN, (8, 0, 16, 8))
    wide.save(tmp_path / "set" / "wide.png")
    color = load_imagefolder(str(tmp_path / "set"), 4, 3)
    assert colors_of(color.pixels) == [(90, 90, 90), (255, 255, 255), GREEN]
    assert (color.pixels[2] == np.array(GREEN)[:, None, None]).all()
    gray = load_imagefolder(str(tmp_path / "set"), 4, 1)
    assert gray.pixels.shape == (3, 1, 4, 4) and gray.pixels[:2, 0, 0, 0].tolist() == [90, 255]


def test_photograph_is_rotated_by_its_exif_orientation(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), RED)
    image.paste(GREEN, (0, 0, 8, 4))
    exif = Image.Exif()
    exif[274] = 3  # turned by half a turn
    (tmp_path / "set").mkdir()
    image.save(tmp_path / "set" / "1.png", exif=exif)
    pixels = load_imagefolder(str(tmp_path / "set"), 4, 3).pixels
    assert pixels[0, :, 0, 0].tolist() == list(RED) and pixels[0, :, 3, 0].tolist() == list(GREEN)


def test_missing_or_empty_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="nowhere' does not exist"):
        load_imagefolder(str(tmp_path / "nowhere"), 4, 3)
    with pytest.raises(ValueError, match="notes.txt' is a file"):
        load_imagefolder(str(tmp_path / "empty" / "notes.txt"), 4, 3)
    with pytest.raises(ValueError, match="empty contains no images"):
        load_imagefolder(str(tmp_path / "empty"), 4, 3)


def test_unreachable_hub_set_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> None:
        raise ConnectionError("no route\nand a long story")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ValueError, match=r"^'owner/leaves' is not a local folder and could not be loaded from the hub \(no route\)\.$"):
        load_imagefolder("owner/leaves", 4, 3)


@pytest.mark.parametrize("kept", [0, 60])
def test_a_broken_image_is_named(tmp_path: Path, kept: int) -> None:
    save(tmp_path / "set" / "cat" / "fine.png")
    broken = tmp_path / "set" / "cat" / "broken.png"
    Image.effect_noise((32, 32), 50).save(broken)
    broken.write_bytes(broken.read_bytes()[:kept])
    with pytest.raises(ValueError, match="the image cat/broken.png cannot be read"):
        load_imagefolder(str(tmp_path / "set"), 4, 3)


def test_metadata_naming_a_missing_image_or_none_is_refused(tmp_path: Path) -> None:
    folder = write_metadata(tmp_path / "set", [{"file_name": f"{number}.png", "text": "a"} for number in range(2)])
    (tmp_path / "set" / "1.png").unlink()
    with pytest.raises(ValueError, match="the image 1.png is missing"):
        load_imagefolder(folder, 4, 3)
    (tmp_path / "set" / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a"}\n{"file_name": null, "text": "b"}\n')
    with pytest.raises(ValueError, match="metadata.jsonl', line 2 names no image"):
        load_imagefolder(folder, 4, 3)


def test_metadata_that_cannot_be_read_names_the_folder(tmp_path: Path) -> None:
    save(tmp_path / "set" / "1.png")
    (tmp_path / "set" / "metadata.jsonl").write_text("{nonsense\n")
    with pytest.raises(ValueError, match=r"set/metadata.jsonl', line 1: this is not JSON \(.*\)\.$"):
        load_imagefolder(str(tmp_path / "set"), 4, 3)


def test_caption_column_that_is_missing_or_not_text_is_refused(tmp_path: Path) -> None:
    folder = write_metadata(tmp_path / "set", [{"file_name": "1.png", "title": "a hat", "score": 3}])
    with pytest.raises(ValueError, match="no caption column 'prompt'; its columns are title, score"):
        load_imagefolder(folder, 4, 3, caption_column="prompt")
    with pytest.raises(ValueError, match=r"line 1: the caption \(score\) is 3, not text"):
        load_imagefolder(folder, 4, 3, caption_column="score")
    with pytest.raises(ValueError, match="set caption_column to one of its text columns: title"):
        load_imagefolder(folder, 4, 3)


def test_real_flowers(shared_data: Path) -> None:
    folder = shared_data / "flowers17_64" / "01_daffodil"
    images = load_imagefolder(str(folder), 16, 3)
    assert len(images) == len(list(folder.glob("*.jpg"))) > 0
    assert set(images.captions) == {""} and images.pixels.std() > 20


def test_a_set_too_large_for_memory_is_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, color in enumerate((RED, GREEN, BLUE)):
        save(tmp_path / "set" / "a" / f"{number}.png", color)
    expected = load_imagefolder(str(tmp_path / "set"), 4, 3).pixels
    monkeypatch.setattr(cache, "MAX_IN_MEMORY", 10)
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path / "kept"))
    pixels = load_imagefolder(str(tmp_path / "set"), 4, 3).pixels
    assert isinstance(pixels, np.memmap) and np.array_equal(pixels, expected)
    assert list((tmp_path / "kept").iterdir()) == []  # without a name, gone with the process


def test_load_imagefolder_announces_reading_and_missing_captions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("flat/0.png", "classes/cat/0.png"):
        save(tmp_path / name, RED)
    with caplog.at_level("INFO", "afterglow"):
        load_imagefolder(str(tmp_path / "classes"), 4, 3)
    assert caplog.messages == [f"Reading 1 images from {tmp_path / 'classes'}."]
    load_imagefolder(str(tmp_path / "flat"), 4, 3)
    assert f"{tmp_path / 'flat'}: 1 of 1 images have no caption (0.png)." in caplog.messages


def test_files_that_are_left_out_are_counted_and_named_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "set"
    write_metadata(folder, [{"file_name": "a.png", "mask_file_name": "masks/a.png", "text": "a hat"}])
    for name in ("masks/a.png", "b.png", "c.png", ".hidden.png", "sub/deep.png"):
        save(folder / name)
    (folder / "noext").write_bytes((folder / "a.png").read_bytes())
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "self.png").symlink_to("self.png")
    (folder / "sub" / "up").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    assert load_imagefolder(str(folder), 4, 3).names == ("a.png",)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{folder}: left out are 3 images that its metadata does not list (b.png, c.png, sub/deep.png); 4 broken links, loops of links "
        "or pipes (gone.png, pipe.png, self.png, ...); 1 files without the suffix of an image (noext)."
    ]


def test_links_to_images_and_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "cat" / "1.png", GREEN)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a cat").symlink_to(tmp_path / "elsewhere" / "cat")
    images = load_imagefolder(str(tmp_path / "set"), 4, 3)
    assert images.names == ("a cat/1.png",) and images.captions == ("a cat",)


@pytest.mark.parametrize("name", ["metadata.json", "Metadata.jsonl", "meta_data.csv"])
def test_metadata_under_a_name_that_would_be_ignored_is_refused(tmp_path: Path, name: str) -> None:
    save(tmp_path / "set" / "1.png")
    (tmp_path / "set" / name).write_text('{"file_name": "1.png", "text": "a hat"}')
    with pytest.raises(AfterglowError, match=f"{name}' would not be read; name it metadata.jsonl, .csv or .parquet"):
        load_imagefolder(str(tmp_path / "set"), 4, 3)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("metadata.jsonl", b"\n", "metadata.jsonl' is empty"),
        ("metadata.csv", b"file_name,text\n", "metadata.csv' is empty"),
        ("metadata.jsonl", b'{"text": "a"}\n', "line 1: there is no column file_name; the columns are text"),
        ("metadata.jsonl", b'{"file_name": "1.png", "text": ["a", "b"]}\n', r"line 1: the caption .text. is \['a', 'b'\], not text"),
        ("metadata.csv", b"file_name,text\n1.png,p\0q\n", "line 2: the caption .text. contains a NUL character"),
        ("metadata.csv", b"file_name,text\n1.png\n", "line 2: 1 values for the 2 columns"),
        ("metadata.csv", b"file_name,text\n1.png,a,b\n", "line 2: 3 values for the 2 columns"),
        ("metadata.csv", b"file_name,text\n1.png,caf\xe9\n", "line 2: this is not text in UTF-8"),
        ("metadata.jsonl", b'{"file_name": "../x.png", "text": "a"}\n', "line 1: the image '../x.png' lies outside the folder"),
        ("metadata.jsonl", b'{"file_name": "/x.png", "text": "a"}\n', "line 1: the image '/x.png' lies outside the folder"),
        ("metadata.jsonl", b'{"file_name": 5, "text": "a"}\n', "line 1: the file_name is 5, not text"),
    ],
)
def test_metadata_that_cannot_be_used_names_file_and_line(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    save(tmp_path / "set" / "1.png")
    save(tmp_path / "x.png")
    (tmp_path / "set" / name).write_bytes(content)
    with pytest.raises(AfterglowError, match=sentence) as caught:
        load_imagefolder(str(tmp_path / "set"), 4, 3)
    assert len(str(caught.value)) <= 300


def test_metadata_in_two_formats_is_refused(tmp_path: Path) -> None:
    folder = write_metadata(tmp_path / "set", [{"file_name": "1.png", "text": "a"}])
    (tmp_path / "set" / "metadata.csv").write_text("file_name,text\n1.png,a\n")
    with pytest.raises(AfterglowError, match=r"several formats \(metadata.csv, metadata.jsonl\); keep one"):
        load_imagefolder(folder, 4, 3)


def test_metadata_as_parquet_gives_captions(tmp_path: Path) -> None:
    save(tmp_path / "set" / "1.png")
    pd.DataFrame({"file_name": ["1.png"], "text": ["a hat"]}).to_parquet(tmp_path / "set" / "metadata.parquet")
    assert load_imagefolder(str(tmp_path / "set"), 4, 3).captions == ("a hat",)


def test_a_file_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path / "set" / "1.png")
    os.rename(tmp_path / "set" / "1.png", os.fsencode(tmp_path / "set") + b"/caf\xe9.png")
    with pytest.raises(AfterglowError, match=r"the file name 'caf\\udce9.png' is not UTF-8; rename the file"):
        load_imagefolder(str(tmp_path / "set"), 4, 3)


def test_legal_unicode_in_captions_passes_unchanged(tmp_path: Path) -> None:
    captions = ["a\u2028b", "a\x85b", "a\x0bb", "\U0001f44b", "<script>alert(1)</script>"]
    rows = [{"file_name": f"{number}.png", "text": caption} for number, caption in enumerate(captions)]
    folder = write_metadata(tmp_path / "set", rows)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "set" / "metadata.jsonl").write_text("\ufeff" + text, encoding="utf-8")
    assert load_imagefolder(folder, 4, 3).captions == tuple(captions)


def test_images_without_a_caption_among_others_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_metadata(tmp_path / "set", [{"file_name": "a.png", "text": "a hat"}, {"file_name": "b.png", "text": None}])
    images = load_imagefolder(folder, 4, 3)
    assert images.captions == ("a hat", "") and not images.captions_unique
    assert "1 of 2 images have no caption (b.png)" in caplog.text


def test_flat_training_folder_beside_a_test_folder_has_no_captions(tmp_path: Path) -> None:
    save(tmp_path / "set" / "train" / "1.png")
    save(tmp_path / "set" / "test" / "2.png")
    assert load_imagefolder(str(tmp_path / "set"), 4, 3).captions == ("",)


def test_sixteen_bit_images_of_a_folder_keep_their_gray_levels(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number, level in enumerate((0.25, 0.75)):
        Image.fromarray(np.full((8, 8), round(level * 65535), dtype=np.uint16)).save(tmp_path / "set" / f"{number}.png")
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(tmp_path / "set" / "2.tif")
    for channels in (1, 3):
        assert load_imagefolder(str(tmp_path / "set"), 4, channels).pixels[:, -1, 0, 0].tolist() == [64, 191, 128]
