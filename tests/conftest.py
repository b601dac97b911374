"""What holds for every test: one thread, no network, no W&B unless a test asks for it, the real pictures where they are."""

import os

# Before torch is imported, and for the processes that tests start: on a busy machine two threads are slower than one.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("WANDB_MODE", "disabled")

import json  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


LONGEST = ("test_packaging.py", "test_sd_run.py", "test_launch.py", "test_resume.py", "test_bench_commands.py", "test_extract_command.py")


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
    """small_captioned(**options) => a new CaptionDDPM of a few thousand weights, 8 by 8 pixels, always the same."""
    from afterglow.models import CaptionDDPM

    def make(**options: Any) -> CaptionDDPM:
        torch.manual_seed(0)
        blocks = {"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}
        text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        return CaptionDDPM({**SMALL, **blocks, "attention_head_dim": 2}, text, text_length=8, resolution=8, **options).eval()

    return make


@pytest.fixture(scope="session")
def small_plain() -> Callable[..., Any]:
    """small_plain(blocks, **options) => a new DDPM alike; `blocks`: more arguments of its U-Net."""
    from afterglow.models import DDPM

    def make(blocks: dict[str, Any] | None = None, **options: Any) -> DDPM:
        torch.manual_seed(0)
        usual = {"down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"]}
        return DDPM({**SMALL, **usual, **(blocks or {})}, resolution=8, **options).eval()

    return make


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with Stable Diffusion v1-4's structure at an eighth of its width, CLIP's vocabulary, 64 pixels."""
    from afterglow.models.sd_shape import sd_pipeline

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sd") / "small"
    sd_pipeline(8, 64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def history() -> Callable[[Path], list[list[dict]]]:
    """history(run folder) => for each segment of the offline W&B run its history rows {key: value}, read with W&B's own viewer."""

    def read(run: Path) -> list[list[dict]]:
        wandb = str(Path(sys.executable).parent / "wandb")
        segments = []
        for folder in sorted((run / "wandb").glob("offline-run-*")):
            done = subprocess.run([wandb, "leet", "inspect", "--json", str(folder)], capture_output=True, text=True, check=True)
            records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            segments.append([record["history"]["item"] for record in records if record["type"] == "history"])
        return segments

    return read
