import re

import numpy as np
import pytest
import torch
from PIL import Image

from afterglow.models.text_encoder import TextEncoder


@pytest.mark.parametrize("steps", [0, 2])
def test_it_writes_a_folder_that_a_recipe_takes_frozen_and_prints_what_it_learned(steps, tmp_path, command, capsys):
    out, images = tmp_path / "text", tmp_path / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(images / f"{number}.png")
    (images / "metadata.jsonl").write_text("".join(f'{{"file_name": "{number}.png", "text": "item {number}"}}\n' for number in range(6)))
    words = ("--steps", steps, "--length", 8, "--dataset", "imagefolder", "--data-dir", images)
    assert command("text-encoder", "--out", out, *words) == 0
    printed = capsys.readouterr().out
    assert f"{steps} steps on 6 captions" in printed and 0 <= float(re.search(r"([.\d]+) of 6 of these", printed)[1]) <= 1
    encoder = TextEncoder(str(out), length=8)
    assert not encoder.trainable and not encoder.frozen.mask_padding and encoder.tokenizer.pad_token_id == encoder.tokenizer.sep_token_id
    assert set(tmp_path.iterdir()) == {images, out}
    assert command("text-encoder", "--out", out, *words) == 2 and "is not empty" in capsys.readouterr().err
    assert command("text-encoder", "--out", tmp_path / "again", *words) == 0
    again = TextEncoder(str(tmp_path / "again"), length=8)
    assert torch.equal(encoder(["item 1"])[0], again(["item 1"])[0])
    with pytest.raises(ValueError, match="at most 8, the limit of"):
        TextEncoder(str(out), length=9)
