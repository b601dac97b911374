import json
from dataclasses import fields, replace
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from afterglow.datasets.images import CaptionedImages
from afterglow.errors import AfterglowError
from afterglow.planting.dataset import PlantedDataset
from afterglow.planting.io import read_planted, write_planted
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import Plant, PlantedSet, PlantingConfig

SMALL = PlantingConfig(
    num_global=2,
    num_local=3,
    num_natural=1,
    num_decoys=2,
    num_tints=2,
    copies=(3,),
    num_backgrounds_per_plant=4,
    num_backgrounds=6,
    num_decoy_images=5,
    num_heldout=4,
)


@pytest.fixture(scope="module")
def planted(images: CaptionedImages) -> PlantedSet:
    return plant_images(images, SMALL, set_size=12, seed=1)


@pytest.fixture
def folder(planted: PlantedSet, tmp_path: Path) -> Path:
    write_planted(planted, tmp_path / "set")
    return tmp_path / "set"


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def rewrite(folder: Path, rows: list[dict]) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def assert_equal(one: object, other: object) -> None:
    for name in (field.name for field in fields(one)):  # type: ignore[arg-type]
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype and np.array_equal(a, b), name
        elif name == "plants":
            for p, q in zip(a, b, strict=True):
                assert_equal(p, q)
        elif name not in ("ineligible_fraction", "names"):  # names are those of the files
            assert a == b, name


@pytest.mark.parametrize("gray", [False, True])
def test_read_planted_equals_what_was_written(gray: bool, planted: PlantedSet, tmp_path: Path) -> None:
    if gray:
        planted = replace(planted, pixels=planted.pixels[:, :1])
    assert write_planted(planted, tmp_path / "set") == sum(len(p.members) or 1 for p in planted.plants) + 12 + 6 + 5 + 4
    back = read_planted(tmp_path / "set")
    assert_equal(planted, back)
    assert all((tmp_path / "set" / name).is_file() for name in back.names) and len(set(back.names)) == len(back.pixels)
    assert back.ineligible_fraction is None
    ours, theirs = PlantedDataset(planted, 7), PlantedDataset(back, 7)
    for a, b in zip(*(vars(samples.batch(range(2 * ours.epoch_length))).values() for samples in (ours, theirs)), strict=True):
        assert np.array_equal(a, b) and type(a) is type(b)


def test_datasets_opens_a_planted_folder(folder: Path, planted: PlantedSet, tmp_path: Path) -> None:
    opened = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert {"image", "mask", "region", "text", "plant_id", "kind", "copies"} <= set(opened.column_names)
    by_id = {row["plant_id"]: row for row in opened if row["kind"] in ("global", "local")}
    for p in planted.of_kind("global", "local"):
        row = by_id[p.plant_id]
        assert (row["text"], row["kind"], row["copies"]) == (p.caption, p.kind, p.copies)
        assert (np.asarray(row["image"]).transpose(2, 0, 1) == planted.pixels[p.members[0]]).all()
        assert ((np.asarray(row["mask"]) > 127) == p.mask[0]).all()
    kinds = [row["kind"] for row in opened]
    assert {kind: kinds.count(kind) for kind in ("control", "background", "decoy_image", "heldout")} == {
        "control": 12,
        "background": 6,
        "decoy_image": 5,
        "heldout": 4,
    }


def test_write_planted_without_everything_writes_only_plants(planted: PlantedSet, tmp_path: Path) -> None:
    for _ in range(2):  # a run that is continued writes them again
        write_planted(planted, tmp_path, everything=False)
    assert {row["plant_id"] for row in rows_of(tmp_path)} == {p.plant_id for p in planted.plants}
    for row in rows_of(tmp_path):
        assert all((tmp_path / row[name]).is_file() for name in ("file_name", "mask_file_name", "region_file_name"))
    with pytest.raises(ValueError, match="contains plants without their training set; write a whole set with `afterglow plant`"):
        read_planted(tmp_path)


def test_write_planted_gives_decoys_an_empty_mask_and_a_region(folder: Path, planted: PlantedSet) -> None:
    for row in rows_of(folder):
        if row["kind"] in ("decoy", "tint"):
            assert not np.asarray(Image.open(folder / row["mask_file_name"])).any()
            region = np.asarray(Image.open(folder / row["region_file_name"])) > 127
            assert (region == planted.plants[row["plant_id"]].region[0]).all()
        if row["kind"] == "tint":
            p: Plant = planted.plants[row["plant_id"]]
            shown = planted.compose(p, 0, int(planted.decoy_pool[0]))
            assert (np.asarray(Image.open(folder / row["file_name"])).transpose(2, 0, 1) == shown).all()


def test_read_planted_names_a_mask_of_another_size(folder: Path) -> None:
    Image.new("L", (4, 6), 255).save(folder / "masks" / "003.png")
    with pytest.raises(ValueError, match=r"Mask '.*003.png' is 4x6, and its image is 8x8"):
        read_planted(folder)


def test_read_planted_names_an_image_of_another_size(folder: Path) -> None:
    name = next(row["file_name"] for row in rows_of(folder) if row["kind"] == "control")
    Image.new("RGB", (16, 8)).save(folder / name)
    with pytest.raises(ValueError, match=rf"Image '.*{name}' is 16x8 in 3 channels, and the first is 8x8 in 3 channels"):
        read_planted(folder)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "scrambled"])
def test_read_planted_names_an_unreadable_image(damage: str, folder: Path) -> None:
    name = next(row["file_name"] for row in rows_of(folder) if row["kind"] == "background")
    content = (folder / name).read_bytes()
    changed = {"empty": b"", "cut": content[:60], "text": b"hello", "scrambled": content[:30] + bytes(reversed(content[30:]))}
    (folder / name).unlink()
    if damage != "missing":
        (folder / name).write_bytes(changed[damage])
    with pytest.raises(ValueError, match=f"{name}' (is missing|.*cannot be read)"):
        read_planted(folder)


def test_read_planted_of_another_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no planted set in '.*nowhere': metadata.jsonl is missing"):
        read_planted(tmp_path / "nowhere")
    rows = rows_of(folder)
    rewrite(folder, [{name: value for name, value in row.items() if name not in ("cluster", "matched_plant")} for row in rows])
    with pytest.raises(ValueError, match="metadata.jsonl', line 1 lacks cluster, matched_plant"):
        read_planted(folder)
    (folder / "metadata.jsonl").write_text("file_name,text\n")
    with pytest.raises(ValueError, match="line 1: this is not JSON"):
        read_planted(folder)


def test_write_planted_to_a_folder_with_files_is_refused(planted: PlantedSet, tmp_path: Path) -> None:
    (tmp_path / "mine.png").touch()
    with pytest.raises(ValueError, match="is not empty"):
        write_planted(planted, tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        write_planted(planted, tmp_path / "mine.png")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_write_planted_interrupted_is_no_planted_set(planted: PlantedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Path] = []

    def save(image: Image.Image, path: Path) -> None:
        saved.append(path)
        if len(saved) == 30:
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(KeyboardInterrupt):
        write_planted(planted, tmp_path / "set")
    with pytest.raises(ValueError, match=r"metadata.jsonl is missing"):
        read_planted(tmp_path / "set")


@pytest.mark.parametrize(("name", "value"), [("kind", "star"), ("backgrounds", 3), ("cluster", "x"), ("plant_id", None)])
def test_read_planted_names_the_line_of_a_wrong_value(folder: Path, name: str, value: object) -> None:
    rows = rows_of(folder)
    place = next(i for i, row in enumerate(rows) if row["kind"] == ("local" if name == "backgrounds" else "heldout"))
    rewrite(folder, [row | ({name: value} if i == place else {}) for i, row in enumerate(rows)])
    with pytest.raises(ValueError, match=rf"metadata.jsonl', line \d+: .*{name}"):
        read_planted(folder)


@pytest.mark.parametrize("column", ["file_name", "mask_file_name", "region_file_name"])
def test_read_planted_of_files_outside_the_folder_is_refused(folder: Path, column: str) -> None:
    rows = rows_of(folder)
    (folder.parent / "out.png").write_bytes((folder / rows[0]["file_name"]).read_bytes())
    (folder / "link.png").symlink_to("../out.png")
    for name in ("../out.png", "link.png", str(folder.parent / "out.png")):
        rewrite(folder, [{**rows[0], column: name}, *rows[1:]])
        with pytest.raises(AfterglowError, match=f"line 1: its {column} '.*out.png|link.png' lies outside the folder of this file"):
            read_planted(folder)
