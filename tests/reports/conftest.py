"""A small run folder, made by hand: every kind, three evaluations, a map and a score of each sort."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from safetensors.numpy import save_file

from afterglow.analysis.emergence_table import emergence_of
from afterglow.analysis.summary import ALL_SEEDS, MEASUREMENT_COLUMNS
from afterglow.reports.comparison_runs import Comparison, read_comparison

SIDE = 8
STEPS = (0, 10, 20, 30, 40)
PLANTS = [
    ("global", "whole", 6),
    ("local", "box", 6),
    ("phantom", "whole", 0),
    ("phantom", "box", 0),
    ("decoy", "box", 6),
    ("tint", "box", 6),
] * 2
CONTROLS = (100, 101, 102)
BEGINS = {"global": 20, "local": 30}  # the first probe at which all of them are memorized
MAPS = ("centered_gaussian", "luminance", "score_difference.summed", "end_token.last.first_eos.be", "end_token.last.last.be")


@dataclass
class Recipe:
    """What a run has: plants of these kinds, text (and with it maps and scores), and an end."""

    kinds: tuple[str, ...] = ("global", "local", "phantom", "decoy", "tint")
    text: bool = True
    end_token: bool = True
    finished: bool = True

    def plants(self) -> list[tuple[int, str, str, int]]:
        return [(number, *about) for number, about in enumerate(PLANTS) if about[0] in self.kinds]

    def asked(self, step: int) -> Iterator[tuple[int, str, str]]:
        if not self.text:
            yield from ((1000 + number, "unprompted", "") for number in range(6))
            return
        yield from ((number, kind, f"<b>{kind}</b> & {number}") for number, kind, _, _ in self.plants())
        if step == STEPS[-1] and self.finished:
            yield from ((number, "control", f"control {number}") for number in CONTROLS)
        yield 200, "heldout", "held-out"


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    def make(**about: object) -> Path:
        recipe, folder = Recipe(**about), tmp_path / "run"  # type: ignore[arg-type]
        (folder / "plants" / "masks").mkdir(parents=True)
        steps = STEPS if recipe.finished else STEPS[:3]
        table = pd.concat([rows(recipe, step) for step in steps], ignore_index=True)[MEASUREMENT_COLUMNS]
        table.to_parquet(folder / "measurements.parquet", index=False)
        for step in steps:
            save_maps(recipe, step, folder)
        write_plants(recipe, folder / "plants")
        (folder / "config.yaml").write_text("name: tiny\ndata:\n  init_args: {dataset: openmoji, resolution: 8}\n")
        if recipe.finished:
            (folder / "emergence.json").write_text(json.dumps(emergence_of(table)))
        return folder

    return make


@pytest.fixture
def run_folder(make_run: Callable[..., Path]) -> Path:
    return make_run()


def mask_of(shape: str) -> np.ndarray:
    mask = np.ones((SIDE, SIDE), dtype=bool)
    if shape != "whole":
        mask[:, SIDE // 2 :] = False
    return mask


def rows(recipe: Recipe, step: int) -> pd.DataFrame:
    generator, found = np.random.default_rng(step), []
    shapes = {number: shape for number, _, shape, _ in recipe.plants()}
    for number, kind, caption in recipe.asked(step):
        regions = shapes.get(number, "whole") != "whole"
        copied = float(step >= BEGINS.get(kind, 10**6))
        about = {"plant_id": number, "kind": kind, "caption": caption}
        for seed in range(2 if recipe.text else 1):
            values = {"calibrated_l2": 1.7 - copied, "memorized": copied, "correlation": generator.random()}
            values |= measured(recipe, kind, regions, generator)
            found += [about | {"seed": seed, "measure": name, "value": value} for name, value in values.items()]
        whole = {"plant_memorized": copied} | ({"local_to_global": 0.0, "outside_diversity": 1.1} if kind == "local" else {})
        if step == STEPS[-1]:
            whole |= {"ema_off.plant_memorized": copied} | ({"confirm.1": 1.0, "confirm.2": 1.0} if kind == "local" else {})
        found += [about | {"seed": ALL_SEEDS, "measure": name, "value": value} for name, value in whole.items()]
    for kind in ("control", "heldout"):
        losses = [{"plant_id": 300 + row, "kind": kind, "caption": "", "seed": ALL_SEEDS, "measure": "denoising_loss"} for row in range(4)]
        found += [loss | {"value": 1 / (1 + step) + 0.1 * generator.random()} for loss in losses]
    return pd.DataFrame(found).assign(step=step, epoch=step / 5, seconds=float(step))


def measured(recipe: Recipe, kind: str, regions: bool, generator: np.random.Generator) -> dict[str, float]:
    if not recipe.text:
        return {}
    found = {"guidance_norm.all": generator.random(), "ld.mid_block.attentions.0.all": generator.random()}
    found |= {"memorized_in.box": 0.0} if kind == "control" else {}
    for name in MAPS if regions else ():
        if recipe.end_token or not name.startswith("end_token"):
            found |= {f"auc.{name}": generator.random()} | ({f"iou.{name}": generator.random()} if kind == "local" else {})
    return found


def save_maps(recipe: Recipe, step: int, folder: Path) -> None:
    (folder / "maps").mkdir(exist_ok=True)
    shapes = {number: shape for number, _, shape, _ in recipe.plants()}
    keys = [(number, seed) for number, kind, _ in recipe.asked(step) if kind != "control" for seed in range(2 if recipe.text else 1)]
    generator = np.random.default_rng(step)
    regions = np.stack([mask_of(shapes.get(number, "whole")) for number, _ in keys])[:, None]
    tensors = {
        "images": generator.integers(0, 256, (len(keys), 3, SIDE, SIDE), dtype=np.uint8),
        "plant_id": np.array([number for number, _ in keys]),
        "seed": np.array([seed for _, seed in keys]),
        "region": regions,
    }
    for name in MAPS if recipe.text else ():
        if recipe.end_token or not name.startswith("end_token"):
            tensors[f"map/{name}"] = generator.random((len(keys), SIDE // 2, SIDE // 2)).astype(np.float16)
            tensors[f"mask/{name}"] = generator.random((len(keys), SIDE, SIDE)) > 0.5
    save_file(tensors, folder / "maps" / f"step={step}.safetensors")


def write_plants(recipe: Recipe, folder: Path) -> None:
    lines = []
    for number, kind, shape, copies in recipe.plants():
        name, mask = f"{number:03d}_{kind}_0.png", f"masks/{number:03d}.png"
        Image.fromarray(np.full((SIDE, SIDE, 3), 20 * number, dtype=np.uint8)).save(folder / name)
        Image.fromarray(mask_of(shape).astype(np.uint8) * 255).save(folder / mask)
        about = {"file_name": name, "mask_file_name": mask, "region_file_name": mask, "text": f"<b>{kind}</b> & {number}"}
        lines.append(json.dumps(about | {"plant_id": number, "kind": kind, "copies": copies, "shape": shape}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as api:
        opened = api.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """open_page(file) => the file in a browser; `problems` lists its errors, warnings and requests."""
    contexts = []

    def open_file(file: Path, width: int = 390, scheme: str = "dark") -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda message: page.problems.append(message.text) if message.type in ("error", "warning") else None)
        page.on("request", lambda request: page.problems.append(request.url) if request.url.startswith("http") else None)
        page.goto(file.resolve().as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()


@pytest.fixture
def serious_violations() -> Callable[[Any], list[str]]:
    """serious_violations(page) => what axe-core finds, if AFTERGLOW_AXE names its axe.min.js (`npm pack axe-core`); otherwise nothing."""

    def find(page: Any) -> list[str]:
        if not os.environ.get("AFTERGLOW_AXE"):
            return []
        page.evaluate(Path(os.environ["AFTERGLOW_AXE"]).read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")["violations"]
        return [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in found if fault["impact"] in ("serious", "critical")]

    return find


@pytest.fixture(scope="session")
def with_width() -> Callable[[Path, int], Path]:
    return _with_width


def _with_width(folder: Path, width: int) -> Path:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["init_args"]["unet"]["block_out_channels"] = [width]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="session")
def widths(tmp_path_factory: pytest.TempPathFactory, write_run: Callable[..., Path]) -> Comparison:
    """Two seeds of two widths; local plants emerge twice as late in the wide network."""
    tmp_path = tmp_path_factory.mktemp("widths")
    folders = [
        _with_width(write_run(tmp_path / f"w{width}-{seed}", seed=seed, factor=factor), width)
        for width, factor in ((16, 1.0), (64, 2.0))
        for seed in (0, 1)
    ]
    return read_comparison(folders)
