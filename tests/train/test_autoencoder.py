import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afterglow.models import open_model

COMMAND = Path(__file__).parents[2] / "train" / "autoencoder.py"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["autoencoder.py", *arguments])
    try:
        runpy.run_path(str(COMMAND), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_it_writes_a_folder_that_opens_and_prints_its_error_on_held_out_pictures(tmp_path, monkeypatch, capsys):
    out, pictures = tmp_path / "small", tmp_path / "pictures"
    pictures.mkdir()
    generator = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(pictures / f"{number}.png")
    (pictures / "metadata.jsonl").write_text("".join(f'{{"file_name": "{number}.png", "text": "{number}"}}\n' for number in range(20)))
    assert run(monkeypatch, "--out", str(out), "--steps", "2", "--source", "imagefolder", "--folder", str(pictures)) == 0
    printed = capsys.readouterr().out
    error, block = (float(value) for value in re.search(r"RMS ([.\d]+), .*block means: ([.\d]+)", printed).groups())
    assert "held-out pictures" in printed and 0 < error < 1 and 0 < block < 1
    model = open_model(out)
    assert model.picture_shape() == (3, 64, 64) and model.scaling != 0.18215


@pytest.mark.parametrize(("arguments", "culprit"), [(("--divide", "3"), "not by 3"), (("--resolution", "96"), "it is 96")])
def test_bad_input_is_one_sentence(arguments, culprit, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "--out", str(tmp_path / "x"), *arguments) == 2
    assert culprit in capsys.readouterr().err and not (tmp_path / "x").exists()
