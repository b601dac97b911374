"""`afterglow audit` against truth: the closed-form optimal denoiser of a set copies all of it, and nothing of another set."""

import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from afterglow.cli.audit import FOUND
from afterglow.models.io import export

NOTHING = {f"num_{name}": 0 for name in ("global", "local", "decoys", "tints", "backgrounds", "decoy_images", "heldout")}
FEW = ("--num-inference-steps", 20, "--batch-size", 128)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders of images with a run of each: `mine`, `other`, and `left` and `right`, which share a quarter and nothing else."""
    folder = tmp_path_factory.mktemp("audit")
    generator = np.random.default_rng(0)
    for name, count in (("mine", 24), ("other", 24), ("left", 12), ("right", 12)):
        pixels = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        if name in ("left", "right"):
            pixels[:6, :4, 4:] = np.random.default_rng(9).integers(0, 256, (4, 4, 3))
        (folder / name).mkdir()
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(folder / name / f"{name}-{number:02d}.png")
        data = {"dataset": "imagefolder", "data_dir": str(folder / name), "resolution": 8, "planting": NOTHING}
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "data": {"init_args": data}}))
    for name in ("few", "tiny"):
        (folder / name).mkdir()
    for number in range(10):
        image = np.asarray(Image.open(folder / "mine" / f"mine-{number:02d}.png"))
        Image.fromarray(image[:4, :4]).save(folder / "tiny" / f"{number}.png")
        Image.fromarray(np.pad(image, ((0, 0), (6, 6), (0, 0)))).save(folder / "few" / f"{number}.png")  # wider than high
    return folder


@pytest.fixture
def audit(place, printed, monkeypatch):
    """audit(*words, code=0) => what `afterglow audit` prints, and audit.parquet of DIR after --out DIR."""
    monkeypatch.chdir(place)

    def run(*words, code=0):
        text = printed("audit", *words, code=code)
        out = place / str(words[words.index("--out") + 1]) if "--out" in words else place / "audit"
        return text, pd.read_parquet(out / "audit.parquet") if code != 2 else None

    return run


def test_a_model_that_copies_everything_is_found_to_and_its_set_alone(place, audit):
    said, table = audit("--model", "optimal:runs/mine", "--data", "mine", *FEW, "--num-images", 200, "--fail-on", "whole", code=FOUND)
    assert sorted(table["file_name"]) == [f"mine-{number:02d}.png" for number in range(24)]
    assert (table["verdict"] == "copied whole").all() and (table["calibrated_l2"] < 0.1).all()
    assert table["generations"].sum() == 200 and (table["unseen"] == 24).all() and (table["unseen_as_close"] == 0).all()
    assert "24 are copied whole and 0 in part by 200 generations" in said and "| 0 of 24 " in said and "mine-07.png" in said
    assert "No image was given that the model never saw" in said
    page = (place / "audit" / "audit.html").read_text()
    assert page.count('data-verdict="copied whole"') == 24 and "http" not in page.replace("http://www.w3.org", "")
    said, table = audit("--model", "optimal:runs/other", "--data", "mine", *FEW, "--out", "o", "--fail-on", "copied")
    assert (table["verdict"] == "not copied").all() and "Nothing is copied: none of 96 generations" in said and "confidence" not in said


def test_a_shared_region_is_copied_in_part_by_a_model_that_never_saw_the_images(audit):
    _, table = audit("--model", "optimal:runs/right", "--data", "left", *FEW, "--out", "part", "--fail-on", "copied", code=FOUND)
    part = table[table["verdict"] == "copied in part"]
    assert sorted(part["file_name"]) == [f"left-{number:02d}.png" for number in range(6)] and "copied whole" not in set(table["verdict"])
    assert (part[["left", "top", "right", "bottom"]] == [0.5, 0, 1, 0.5]).all(None) and (part["others_alike"] == 5).all()
    assert audit("--model", "optimal:runs/right", "--data", "left", *FEW, "--out", "part", "--fail-on", "whole")[1].equals(table)


def test_outpainting_finds_the_halves_that_a_model_knows(audit):
    words = ("--data", "mine", *FEW, "--num-images", 48, "--heldout", "other", "--outpaint")
    _, table = audit("--model", "optimal:runs/mine", *words, "--out", "known")
    assert (table["verdict"] == "copied in part").all() and set(table["unseen_as_close"]) == {0}
    boxes = {tuple(box) for box in table[["left", "top", "right", "bottom"]].to_numpy()}
    assert boxes == {(0, 0, 0.5, 1), (0.5, 0, 1, 1), (0, 0, 1, 0.5), (0, 0.5, 1, 1)}


def test_ten_images_of_another_shape_are_cropped_and_evaluated(audit):
    said, table = audit("--model", "optimal:runs/mine", "--data", "few", *FEW, "--num-images", 128, "--out", "few")
    assert (table["verdict"] == "copied whole").all() and len(table) == 10 and "| 0 of 10 " in said


def test_since_which_checkpoint(audit):
    models = ("--model", "optimal:runs/mine", "--checkpoints", "optimal:runs/other", "optimal:runs/mine")
    said, table = audit(*models, "--data", "mine", *FEW, "--num-images", 200, "--heldout", "other", "--out", "since")
    assert table.groupby("checkpoint", sort=False)["verdict"].agg(lambda rows: (rows != "not copied").sum()).tolist() == [0, 24, 24]
    assert set(table["since"].dropna()) == {"2-mine"} and "3 checkpoints" in said and "2-mine" in said
    assert (table[table["verdict"] != "not copied"]["unseen"] == 24).all() and "0 of 24 (0.0% to 14.2%)" in said


def test_captions_of_the_images_are_asked_for(place, audit, small_captioned):
    export(small_captioned(), place / "captioned")
    words = ("--model", "captioned", "--num-inference-steps", 2, "--num-images", 7)
    said, table = audit(*words, "--data", "mine", "--out", "none")
    assert "Sampling 7 images without captions" in said and set(table["generation_caption"]) == {""}
    changed = small_captioned()
    changed.unet.conv_in.weight.data *= 2
    shutil.rmtree(place / "captioned")
    export(changed, place / "captioned")
    assert "other settings (metadata.weights)" in audit(*words, "--data", "mine", "--out", "none", code=2)[0]
    lines = "".join(f'{{"file_name": "mine-{n:02d}.png", "text": "image {min(n, 20)}"}}\n' for n in range(24))
    (place / "mine" / "metadata.jsonl").write_text(lines)
    try:
        said, table = audit(*words, "--data", "mine", "--out", "asked")
    finally:
        (place / "mine" / "metadata.jsonl").unlink()
    assert "with 7 of 21 captions" in said and "14 of 21 captions were not sampled" in said
    assert "There is no evidence that the captions help this model" in said
    assert "image 20" in set(table["caption"]) and set(table["generation_caption"]) <= {f"image {n}" for n in range(21)}


def test_a_run_is_audited_with_what_it_was_trained_on(place, audit):
    about = yaml.safe_load((place / "runs" / "mine" / "config.yaml").read_text())
    planting = about["data"]["init_args"]["planting"] | {"num_global": 2, "copies": [3], "num_heldout": 4}
    about["data"]["init_args"]["planting"] = planting
    (place / "runs" / "planted").mkdir()
    (place / "runs" / "planted" / "config.yaml").write_text(yaml.safe_dump(about))
    _, table = audit("--model", "optimal:runs/planted", "--data", "runs/planted", *FEW, "--num-images", 150, "--out", "run")
    planted = table[table["file_name"].str.startswith("global")]
    assert len(planted) == 6 and (planted["duplicates"] == 2).all() and (table["verdict"] == "copied whole").all()
    assert (table["unseen"] == 4).all() and len(table) == 6 + 24 - 2 - 2 - 4  # phantoms and held-out images are not trained on


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--model", "none", "--data", "mine"), "No model in 'none'"),
        (("--model", "optimal:runs/mine", "--data", "runs"), "contains no images"),
        (("--model", "optimal:runs/mine", "--data", "tiny"), "it has 4 x 4 pixels, less than the resolution 8"),
        (("--model", "optimal:runs/mine", "--data", "mine", "--heldout", "mine"), "All held-out images are near-duplicates"),
        (("--model", "optimal:runs/mine", "--data", "mine", "--lora", "x.safetensors"), "A LoRA is merged into Stable Diffusion"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(audit, words, sentence):
    said, _ = audit(*words, "--out", "bad", code=2)
    assert sentence in said and "Traceback" not in said and said.count("error: ") == 1
    assert ("about " in said) == ("near-duplicates" in said)  # the time is stated before near-duplicates are sought
