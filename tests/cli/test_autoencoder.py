import re

import numpy as np
import pytest
from PIL import Image

from afterglow.models.io import open_model


def test_it_writes_a_folder_that_opens_and_prints_its_error_on_held_out_images(tmp_path, command, capsys):
    out, images = tmp_path / "small", tmp_path / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(images / f"{number}.png")
    (images / "metadata.jsonl").write_text("".join(f'{{"file_name": "{number}.png", "text": "{number}"}}\n' for number in range(20)))
    assert command("autoencoder", "--out", str(out), "--steps", "2", "--dataset", "imagefolder", "--data-dir", str(images)) == 0
    printed = capsys.readouterr().out
    error, block = (float(value) for value in re.search(r"RMS ([.\d]+), .*block means: ([.\d]+)", printed).groups())
    assert "held-out images" in printed and 0 < error < 1 and 0 < block < 1
    model = open_model(out)
    assert model.image_shape() == (3, 64, 64) and model.scaling_factor != 0.18215


@pytest.mark.parametrize(("arguments", "culprit"), [(("--width-divisor", "3"), "'3' is not a choice"), (("--resolution", "96"), "not 96")])
def test_bad_input_is_refused_in_one_sentence(arguments, culprit, tmp_path, command, capsys):
    assert command("autoencoder", "--out", str(tmp_path / "x"), *arguments) == 2
    assert culprit in capsys.readouterr().err and not (tmp_path / "x").exists()
