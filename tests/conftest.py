"""What holds for every test: one thread, no network, no W&B unless a test asks for it, the real images where they are."""

import os

# Before torch is imported, and for the processes that tests start: on a busy machine two threads are slower than one.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("WANDB_MODE", "disabled")

import json  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402

from afterglow.datasets.images import CaptionedImages  # noqa: E402
from afterglow.datasets.openmoji import load_openmoji  # noqa: E402
from afterglow.generations import Generations, Neighbors  # noqa: E402
from afterglow.planting.planner import plant_images  # noqa: E402
from afterglow.planting.plants import PlantedSet, PlantingConfig  # noqa: E402

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's background job ignores Ctrl-C, which the tests of signals send
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    *("test_packaging.py", "test_pretend.py", "test_distributed.py", "test_docs.py", "test_sd_run.py"),
    *("test_resume.py", "test_bad_input.py", "test_train.py", "test_uploader.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest go first: of two processes that share the files none should be left alone with one of them."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with cifar/, flowers102_64/, flowers17_64/, celeba_64/ and the lists of prompts."""
    folder = os.environ.get("AFTERGLOW_DATA")
    if not folder:
        pytest.skip("AFTERGLOW_DATA names no folder with the real data sets")
    if not Path(folder).is_dir():
        pytest.skip(f"AFTERGLOW_DATA names {folder}, which is no folder")
    return Path(folder)


SMALL = {"block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4}


@pytest.fixture(scope="session")
def small_captioned() -> Callable[..., Any]:
    """small_captioned(**options) => a new TextConditionalDDPM of a few thousand weights, 8 by 8 pixels, always the same."""
    from afterglow.models.text_ddpm import TextConditionalDDPM

    def make(text: Any = None, **options: Any) -> TextConditionalDDPM:
        torch.manual_seed(0)
        blocks = {"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}
        text = text or {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        return TextConditionalDDPM({**SMALL, **blocks, "attention_head_dim": 2}, text, text_length=8, resolution=8, **options).eval()

    return make


@pytest.fixture(scope="session")
def small_plain() -> Callable[..., Any]:
    """small_plain(blocks, **options) => a new DDPM alike; `blocks`: more arguments of its U-Net."""
    from afterglow.models.ddpm import DDPM

    def make(blocks: dict[str, Any] | None = None, **options: Any) -> DDPM:
        torch.manual_seed(0)
        usual = {"down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"]}
        return DDPM({**SMALL, **usual, **(blocks or {})}, resolution=8, **options).eval()

    return make


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with Stable Diffusion v1-4's structure at an eighth of its width, CLIP's vocabulary, 64 pixels."""
    from afterglow.testing.tiny_sd import sd_pipeline

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sd") / "small"
    sd_pipeline(8, 64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with Stable Diffusion XL's structure at an eighth of its width and a quarter of its depth, 64 pixels."""
    from afterglow.testing.tiny_sd import sdxl_pipeline

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("xl") / "small"
    sdxl_pipeline(8, 64, depth=4).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def wandb_server() -> Callable[..., Any]:
    """wandb_server(fault) => a context with a stand-in for a W&B server; see support/wandb_server.py."""
    sys.path.insert(0, str(Path(__file__).parent / "support"))
    from wandb_server import wandb_server

    return wandb_server


@pytest.fixture(scope="session")
def records() -> Callable[[Path], list[list[dict]]]:
    """records(run folder) => for each segment of the offline W&B run its records, read with W&B's own viewer."""

    def read(run: Path) -> list[list[dict]]:
        wandb = str(Path(sys.executable).parent / "wandb")
        segments = []
        for folder in sorted((run / "wandb").glob("offline-run-*")):
            done = subprocess.run([wandb, "leet", "inspect", "--json", str(folder)], capture_output=True, text=True, check=True)
            segments.append([json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")])
        return segments

    return read


@pytest.fixture(scope="session")
def history(records) -> Callable[[Path], list[list[dict]]]:
    """history(run folder) => for each segment of the offline W&B run its history rows {key: value}."""
    return lambda run: [[record["history"]["item"] for record in part if record["type"] == "history"] for part in records(run)]


NUM_LONE = 260


def make_images(side: int = 8, channels: int = 3, *, captions_unique: bool = True, num_lone: int = NUM_LONE) -> CaptionedImages:
    """Lone images, 20 near ones (eligible nowhere, no twins), 10 twins, a chain of 3 and 4 families of 3 with a shared middle."""
    generator = np.random.default_rng(5)
    lone = generator.integers(0, 256, (num_lone, channels, side, side))
    near = np.clip(lone[:20] + generator.choice([-16, 16], (20, channels, side, side)), 0, 255)  # about .06 away
    twins = np.clip(lone[20:30] + 2, 0, 255)
    chain = np.stack([np.full((channels, side, side), value) for value in (100, 106, 112)])  # .024 apart, the ends .047
    families = []
    for _ in range(4):
        members = generator.integers(0, 256, (3, channels, side, side))
        members[:, :, 2:6, 2:6] = members[0, :, 2:6, 2:6] + generator.integers(0, 2, (3, 1, 1, 1))  # agree to 1/255
        families.append(np.clip(members, 0, 255))
    pixels = np.concatenate([lone, near, twins, chain, *families]).astype(np.uint8)
    count = len(pixels)
    numbers = np.full(count, -1)
    numbers[-12:] = np.repeat(np.arange(4), 3)
    shuffled = generator.permutation(count)
    captions = [f"image {row}" if captions_unique else f"class {row % 3}" for row in range(count)]
    family_captions = {number: f"family {number}" if captions_unique else "class 0" for number in range(4)}
    names = tuple(f"{row}.png" for row in range(count))
    return CaptionedImages(pixels[shuffled], tuple(captions), names, numbers[shuffled].astype(np.int64), captions_unique, family_captions)


@pytest.fixture(scope="session")
def make() -> Callable[..., CaptionedImages]:
    return make_images


@pytest.fixture(scope="session")
def images() -> CaptionedImages:
    return make_images()


@pytest.fixture(scope="session")
def small() -> PlantingConfig:
    return PlantingConfig(
        num_global=4,
        num_local=5,
        num_natural=2,
        num_decoys=3,
        num_tints=3,
        copies=(2, 5),
        num_backgrounds=20,
        num_decoy_images=15,
        num_heldout=10,
    )


@pytest.fixture(scope="session")
def planted(images: CaptionedImages, small: PlantingConfig) -> PlantedSet:
    return plant_images(images, small, set_size=60, seed=3)


@pytest.fixture(scope="session")
def openmoji() -> CaptionedImages:
    """The real thing, from the cache where there is one (else rendered: a few seconds)."""
    return load_openmoji(16)


KINDS = ("global", "global", "local", "local", "phantom", "phantom", "control", "control")
LAYERS = ("down_blocks.0.attentions.0.transformer_blocks.0.attn2", "up_blocks.0.attentions.0.transformer_blocks.0.attn2")


@pytest.fixture
def generations() -> Generations:
    generator = torch.Generator().manual_seed(0)
    count, side, steps = 2 * len(KINDS), 8, 12
    references = torch.randint(0, 255, (len(KINDS), 3, side, side), generator=generator, dtype=torch.uint8).repeat_interleave(2, 0)
    images = references.clone()
    copied = torch.tensor([kind in ("global", "local") for kind in KINDS]).repeat_interleave(2)
    images[~copied] = 255 - images[~copied]
    mask = torch.ones(len(KINDS), 1, side, side, dtype=torch.bool)
    mask[[2, 4], :, :, 4:] = False
    mask[[3, 5], :, 4:] = False
    mask = mask.repeat_interleave(2, 0)
    bright = mask.flatten(2).transpose(1, 2).float().expand(-1, -1, 6) * 0.1 + 0.01
    return Generations(
        images=images,
        caption=tuple(f"image {i}" for i in range(len(KINDS)) for _ in range(2)),
        seed=torch.arange(2).repeat(len(KINDS)),
        timesteps=torch.arange(steps).flip(0),
        kind=tuple(kind for kind in KINDS for _ in range(2)),
        shape=("whole",) * count,
        plant_id=torch.arange(len(KINDS)).repeat_interleave(2),
        prompt_length=torch.full((count,), 3),
        references=references,
        eval_mask=mask,
        region=mask,
        guidance=torch.randn(steps, count, 3, side, side, generator=generator).half(),
        guidance_rms=torch.ones(steps, count),
        token_attention=torch.full((steps, count, 2, 4), 0.25).half(),
        end_attention={(step, layer): bright.half() for step in (0, steps - 1) for layer in LAYERS},
        extras={"background_spread": torch.full((count,), 0.3), "background_distance": torch.full((count,), torch.inf)},
        neighbors=Neighbors(torch.arange(51).repeat(count, 1), torch.full((count, 51), 0.4)),
        provenance={"sink": "pads"},
    )


GRIDS = {  # a small U-Net shaped like Stable Diffusion's: layer => side of its grid
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2": 8,
    "down_blocks.0.attentions.1.transformer_blocks.0.attn2": 8,
    "mid_block.attentions.0.transformer_blocks.0.attn2": 2,
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2": 4,
}


@pytest.fixture
def make_generations() -> Callable[..., Generations]:
    """make_generations(count, steps=..., seed=..., any field=...): random generations with every field, those given replaced."""

    def make(count: int = 4, *, steps: int = 5, side: int = 8, tokens: int = 6, seed: int = 0, **fields: object) -> Generations:
        generator = torch.Generator().manual_seed(seed)
        delta = torch.randn(steps, count, 3, side, side, generator=generator)
        rms = delta.square().flatten(2).mean(2).sqrt()
        distances = torch.rand(count, 51, generator=generator).add(0.05).sort(dim=1).values
        neighbors = Neighbors(torch.arange(51).repeat(count, 1), distances)
        mask = torch.rand(count, 1, side, side, generator=generator) < 0.4
        mask[:, :, 0, 0], mask[:, :, -1, -1] = True, False  # neither empty nor full
        ends = {
            (step, layer): torch.rand(count, grid * grid, 6, generator=generator).half()
            for step in (0, steps - 1)
            for layer, grid in GRIDS.items()
        }
        filled = {
            "images": torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8),
            "references": torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8),
            "caption": tuple(f"image {row}" for row in range(count)),
            "kind": ("local",) * count,
            "shape": ("blob",) * count,
            "plant_id": torch.arange(count),
            "seed": torch.zeros(count, dtype=torch.long),
            "timesteps": torch.arange(steps).flip(0),
            "prompt_length": torch.randint(2, tokens + 1, (count,), generator=generator),
            "eval_mask": mask,
            "region": mask,
            "guidance": (delta / rms[..., None, None, None]).half(),
            "guidance_rms": rms * torch.rand(steps, count, generator=generator).add(0.5),
            "token_attention": torch.randn(steps, count, len(GRIDS), tokens, generator=generator).softmax(-1).half(),
            "end_attention": ends,
            "neighbors": neighbors,
            "provenance": {"layers": list(GRIDS), "sink": "bos"},
        }
        return Generations(**(filled | fields))

    return make


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    return _write_run


def _write_run(
    folder: Path,
    *,
    n: int = 500,
    seed: int = 0,
    arm: int | None = None,
    factor: float = 1.0,
    planted: bool = True,
    outpainted: bool = False,
    **settings: Any,
) -> Path:
    """A run folder whose plants emerge when they have been shown 100 times (a local plant `factor` times later), and whose generations
    without a caption are copies from step 4 n on. outpainted: plants are also completed, from 50 times on."""
    copies, batch, steps = (40, 80), 32, [0, *(round(20 * 1.25**place) for place in range(26))]
    plants = [
        {
            "plant_id": 2 * number + phantom,
            "kind": "phantom" if phantom else kind,
            "copies": copies[number % 2] * (1 - phantom),
            "text": f"p{number}",
        }
        | {"matched_plant": 2 * number if phantom else -1, "area": 0.25, "shape": "box", "mask_file_name": "m.png"}
        for number, kind in enumerate(("global", "global", "local", "local") if arm != 1 else ("local", "local", "global", "global"))
        for phantom in (0, 1)
        if planted
    ]
    epoch = n + sum(plant["copies"] for plant in plants)
    rows: list[dict[str, Any]] = []
    for step in steps:
        about = {"step": step, "epoch": step * batch / epoch, "seconds": 1.0, "seed": -1}
        for plant in plants:
            mine = about | {"plant_id": plant["plant_id"], "kind": plant["kind"], "caption": plant["text"]}
            shown = step * batch * plant["copies"] / epoch
            late = factor if plant["kind"] == "local" else 1.0
            rows.append(mine | {"measure": "plant_memorized", "value": float(shown > 100 * late)})
            if outpainted:
                rows.append(mine | {"measure": "plant_memorized.outpainted", "value": float(shown > 50 * late)})
                rows.append(mine | {"measure": "extracted", "value": 0.0})
            if arm is not None and plant["kind"] == "global":
                rows.append(mine | {"measure": "plant_memorized.region", "value": float(shown > 100)})
        for number in range(10):
            one = about | {"plant_id": 900 + number, "kind": "unprompted", "caption": "", "seed": number}
            rows.append(one | {"measure": "nn_ratio", "value": 0.1 if step >= 4 * n else 0.9})
        loss = {"plant_id": 800, "kind": "heldout", "caption": "", "measure": "denoising_loss", "value": 0.1 + 1 / (1 + step / 100)}
        rows.append(about | loss)
    (folder / "plants").mkdir(parents=True)
    (folder / "plants" / "metadata.jsonl").write_text("".join(json.dumps(plant) + "\n" for plant in plants))
    pd.DataFrame(rows).to_parquet(folder / "measurements.parquet")
    data = {"dataset": "openmoji", "resolution": 16, "channels": 3, "batch_size": batch, "planting": {"arm": arm}}
    model = {"class_path": "afterglow.models.DDPM", "init_args": {"unet": {"block_out_channels": [32, 64]}}}
    config = {"seed_everything": seed, "data": {"init_args": data}, "model": model, "trainer": {"max_steps": steps[-1]}}
    config["monitor"] = {"final_seeds": 4, "seeds": 2, "num_unprompted": 10, "sampler": {"steps": 12}} | settings
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder
