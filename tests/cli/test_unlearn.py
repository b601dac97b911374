import pandas as pd

from afterglow.cli.unlearn import forgotten_samples, unlearning_text
from afterglow.models.io import open_model
from afterglow.planting.dataset import PlantedDataset
from afterglow.planting.runs import load_planted_set

WORDS = ("unlearn", "--model", "runs/x", "--run", "runs/x", "--num-inference-steps", 2, "--num-images", 1, "--steps", 2, "--pairs", 4)


def test_a_plant_and_a_file_are_forgotten_and_the_model_is_written(inside, command, capsys):
    planted = load_planted_set(inside / "runs" / "x")
    row = int(planted.controls[1])
    words = (*WORDS, "--kinds", "local", "--plants", 1, "--files", planted.names[row])
    assert command(*words, "--out", "unlearned") == 0
    printed = capsys.readouterr().out
    rows = pd.read_parquet("unlearned/unlearning.parquet")
    plants = rows[rows["measure"] == "plant_memorized"].drop_duplicates("plant_id").set_index("plant_id")
    first = planted.of_kind("local")[0].plant_id
    assert set(plants.index[plants["forgotten"]]) == {first, len(planted.plants) + row} and set(plants["kind"]) > {"global", "phantom"}
    samples = rows[rows["measure"] == "calibrated_l2"].pivot(index=["plant_id", "seed"], columns="state", values="value")
    assert samples.notna().all(None) and (samples["before"] != samples["after"]).any()
    assert "Denoising loss: heldout" in printed or "Denoising loss: control" in printed
    own = forgotten_samples(PlantedDataset(planted, 0), {first, len(planted.plants) + row})
    assert own.sum() == planted.of_kind("local")[0].copies + 1  # its appearances in an epoch, and the file's one
    assert command(*words, "--out", "unlearned") == 2 and "not empty" in capsys.readouterr().err
    assert command(*WORDS, "--files", "gone.png", "--out", "other") == 2 and "gone.png" in capsys.readouterr().err
    assert open_model("unlearned/model").image_shape() == planted.pixels.shape[1:]


def test_the_text_counts_forgotten_and_kept_plants_apart():
    about = {"measure": "plant_memorized", "kind": "local"}
    rows = [about | {"forgotten": forgotten, "state": state, "value": value} for forgotten, state, value in [
        (True, "before", 1.0), (True, "after", 0.0), (False, "before", 1.0), (False, "after", 1.0),
    ]]  # fmt: skip
    rows += [
        {"measure": "denoising_loss", "kind": "heldout", "forgotten": False, "state": s, "value": v}
        for s, v in (("before", 1), ("after", 2))
    ]
    text = unlearning_text(pd.DataFrame(rows))
    lines = [
        [cell.strip().split(" (")[0] for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| local")
    ]
    assert lines == [["local", "forgotten", "1 of 1", "0 of 1"], ["local", "kept", "1 of 1", "1 of 1"]]
    assert "heldout 1.0000 -> 2.0000" in text
