from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from afterglow.datasets.images import CaptionedImages
from afterglow.planting import runs
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.dataset import Batch
from afterglow.planting.io import write_planted
from afterglow.planting.plants import PlantedSet, PlantingConfig


@pytest.fixture
def make_data(monkeypatch: pytest.MonkeyPatch, images: CaptionedImages, stream_planting: PlantingConfig) -> Callable[[], PlantedDataModule]:
    def make() -> PlantedDataModule:
        monkeypatch.setattr(runs, "load_images", lambda source, **_: images)
        data = PlantedDataModule(resolution=8, planting=stream_planting, set_size=30, seed=2, batch_size=8)
        data.setup()
        return data

    return make


def trainer(step: int, accumulated: int = 1) -> SimpleNamespace:
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(global_step=step, accumulate_grad_batches=accumulated, max_steps=100, strategy=strategy)


@pytest.mark.parametrize(("world_size", "accumulated"), [(1, 1), (2, 1), (1, 2), (2, 2), (1, 4)])
def test_train_dataloader_of_any_split_gives_the_same_samples_per_step(
    world_size: int, accumulated: int, make_data: Callable[[], PlantedDataModule]
) -> None:
    """Processes and accumulated batches; begun anew, or resumed at step 3."""
    seen = []
    for rank in range(world_size):
        data = make_data()
        data.rank, data.world_size, data.trainer = rank, world_size, trainer(3, accumulated)  # type: ignore[assignment]
        loader = iter(data.train_dataloader())
        for _ in range(accumulated):
            batch: Batch = next(loader)
            assert len(batch.image) == 8 // (world_size * accumulated)
            seen += batch.index.tolist()
    assert sorted(seen) == list(range(24, 32))


def test_batch_size_that_does_not_divide_is_refused(make_data: Callable[[], PlantedDataModule]) -> None:
    data = make_data()
    data.trainer = trainer(0, 3)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="batch_size 8 does not divide into 3 parts"):
        data.train_dataloader()
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        PlantedDataModule(batch_size=0)


def test_planted_folder_gives_the_samples_of_the_original_set(
    make_data: Callable[[], PlantedDataModule], stream_set: PlantedSet, tmp_path: Path
) -> None:
    write_planted(stream_set, tmp_path / "set")
    data = PlantedDataModule("planted", str(tmp_path / "set"), resolution=8, seed=2)
    data.prepare_data()
    data.setup()
    direct = make_data()
    ours, theirs = (samples.batch(range(samples.epoch_length)) for samples in (data.samples, direct.samples))
    assert torch.equal(ours.image, theirs.image) and (ours.caption, ours.kind) == (theirs.caption, theirs.kind)
    for wrong in ({"resolution": 16}, {"resolution": 8, "channels": 1}):
        with pytest.raises(ValueError, match="was written with resolution 8 and channels 3, not with"):
            PlantedDataModule("planted", str(tmp_path / "set"), **wrong).setup()
    with pytest.raises(ValueError, match="dataset planted needs data_dir"):
        PlantedDataModule("planted", resolution=8).setup()


def test_describe_is_one_line_on_the_plants(make_data: Callable[[], PlantedDataModule], stream_set: PlantedSet, tmp_path: Path) -> None:
    line = make_data().describe()
    assert line.startswith("30 training images; planted: 3 global, 3 local, 2 natural, 3 decoy, 2 tint, 6 phantom; ")
    assert f"{stream_set.ineligible_fraction:.0%} of the images resemble another one" in line
    write_planted(stream_set, tmp_path / "set")
    again = PlantedDataModule("planted", str(tmp_path / "set"), resolution=8)
    again.setup()
    assert again.describe() == line.rpartition("; ")[0]  # a folder does not know how many were refused


def test_train_dataloader_has_no_length_since_lightning_would_end_the_epoch_of_a_resumed_training_too_early(
    make_data: Callable[[], PlantedDataModule],
) -> None:
    data = make_data()
    data.trainer = trainer(3)  # type: ignore[assignment]
    with pytest.raises(TypeError):
        len(data.train_dataloader())
