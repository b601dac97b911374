from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afterglow.datasets.images import CaptionedImages
from afterglow.datasets.sources import SOURCES, load_images


@pytest.fixture
def classes(tmp_path: Path) -> str:
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8), 100 * number).save(tmp_path / name / "0.png")
    return str(tmp_path)


@pytest.mark.parametrize("source", ["imagefolder", "cifar10", "flowers102", "fashion_mnist"])
def test_load_images_reads_class_folders_for_every_dataset(source: str, classes: str) -> None:
    images = load_images(source, resolution=4, channels=1, data_dir=classes)
    assert isinstance(images, CaptionedImages) and images.captions == ("cat", "dog")
    assert images.pixels.shape == (2, 1, 4, 4) and images.pixels[:, 0, 0, 0].tolist() == [0, 100]


def test_load_images_passes_the_caption_column_on(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "set" / "0.png")
    (tmp_path / "set" / "metadata.csv").write_text("file_name,text,title\n0.png,one,two\n")
    assert load_images("imagefolder", resolution=4, data_dir=str(tmp_path / "set"), caption_column="title").captions == ("two",)


def test_load_images_of_openmoji_needs_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def images(resolution: int, channels: int) -> CaptionedImages:
        return CaptionedImages(
            np.zeros((1, channels, resolution, resolution), np.uint8), ("a",), ("a",), np.array([-1]), captions_unique=True
        )

    monkeypatch.setattr("afterglow.datasets.openmoji.load_openmoji", images)
    assert load_images("openmoji", resolution=8).pixels.shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match="takes no data_dir"):
        load_images("openmoji", resolution=8, data_dir="somewhere")


def test_sources_contain_every_loader() -> None:
    modules = [import_module(f"afterglow.datasets.{name}") for name in set(SOURCES.values())]
    listed = {name.removeprefix("list_") for module in modules for name in vars(module) if name.startswith("list_")}
    assert set(SOURCES) == listed | {"openmoji"}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"dataset": "mnist"}, "no dataset 'mnist'; the datasets are openmoji, imagefolder, cifar10, celeba, flowers102, fashion_mnist"),
        ({"channels": 2}, "1 or 3 channels, not 2"),
        ({"resolution": 3}, "at least 4 pixels, not 3"),
        ({"dataset": "imagefolder", "data_dir": None}, "imagefolder needs data_dir"),
        ({"dataset": "cifar"}, "did you mean cifar10"),
        ({"max_images": 0}, "max_images must be at least 1"),
        ({"dataset": "openmoji", "data_dir": None, "max_images": 5}, "takes no data_dir and no max_images"),
        ({"caption_column": "text"}, "caption_column is an option of imagefolder, and the dataset is cifar10"),
    ],
)
def test_load_images_with_wrong_options_is_refused(wrong: dict, sentence: str, classes: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_images(**({"dataset": "cifar10", "resolution": 8, "data_dir": classes} | wrong))


def test_load_images_reports_the_count_before_it_decodes(classes: str) -> None:
    counts = []

    def check(count: int) -> None:
        counts.append(count)
        raise KeyError

    (Path(classes) / "cat" / "1.png").write_text("no image")
    for limit in (None, 1):
        with pytest.raises(KeyError):
            load_images("imagefolder", resolution=4, data_dir=classes, max_images=limit, check_count=check)
    assert counts == [3, 1]
