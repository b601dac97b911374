"""Folders of images for benchmarks."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def write_folder(folder: Path, images: list[tuple[str, np.ndarray, str]]) -> None:
    """Write images, uint8 [3, H, W], with name and caption as an imagefolder."""
    folder.mkdir(parents=True)
    for name, pixels, _ in images:
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{name}.png")
    lines = (json.dumps({"file_name": f"{name}.png", "text": caption}) + "\n" for name, _, caption in images)
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{folder}: {len(images)} images")
