import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets.cifar as torchvision_cifar
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import CIFAR10, CelebA, Flowers102

from afterglow.cache import cache_folder
from afterglow.datasets.images import CaptionedImages
from afterglow.datasets.listing import ImageList
from afterglow.datasets.torchvision_sets import list_celeba, list_cifar10, list_fashion_mnist, list_flowers102

Load = Callable[..., CaptionedImages]


def loader(list_images: Callable[..., ImageList]) -> Load:
    return lambda folder, resolution, channels: list_images(folder).decode(resolution, channels)


load_celeba, load_cifar10, load_fashion_mnist, load_flowers102 = map(
    loader, (list_celeba, list_cifar10, list_fashion_mnist, list_flowers102)
)
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def save(path: Path, color: tuple[int, int, int] = (255, 0, 0), size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def write_cifar(root: Path) -> None:
    """Six batches of two images; image k of batch b is all 20 b + k, of class b + k."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{batch}" for batch in range(1, 6)), "test_batch"]):
        data = np.stack([np.full(3072, 20 * number + k, dtype=np.uint8) for k in range(2)])
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": [number, number + 1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": CLASSES}))


@pytest.fixture
def any_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generated files have other checksums than the published ones."""
    monkeypatch.setattr(torchvision_cifar, "check_integrity", lambda path, md5: Path(path).exists())
    monkeypatch.setattr(Flowers102, "_check_integrity", lambda self: True)


def write_fashion(root: Path) -> None:
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 3), ("t10k", 2)):
        pixels = np.stack([np.full((28, 28), 50 * index, dtype=np.uint8) for index in range(count)])
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + pixels.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + bytes([0, 9, 1][:count]))


def write_flowers(root: Path) -> None:
    for number in range(1, 7):
        save(root / "flowers-102" / "jpg" / f"image_{number:05d}.jpg", (40 * number, 0, 0), size=(12, 8))
    savemat(root / "flowers-102" / "imagelabels.mat", {"labels": [[1, 1, 2, 2, 102, 102]]})
    savemat(root / "flowers-102" / "setid.mat", {"trnid": [[6, 2]], "valid": [[3, 4]], "tstid": [[5, 1]]})


def write_celeba(root: Path) -> None:
    """The original format: a count, a header with a space at its end, columns of uneven width."""
    for number in range(1, 4):
        save(root / "celeba" / "img_align_celeba" / f"00000{number}.jpg", (70 * number, 0, 0), size=(8, 12))
    attributes = "3\n5_o_Clock_Shadow Bald Young \n000001.jpg -1  1  1\n000002.jpg  1 -1 -1\n000003.jpg -1 -1 -1\n"
    (root / "celeba" / "list_attr_celeba.txt").write_text(attributes)
    (root / "celeba" / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 2\n000003.jpg 0\n")


def test_cache_folder_is_the_variables_or_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("AFTERGLOW_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "afterglow"


def test_cifar10_class_folders_by_the_set_or_the_split(tmp_path: Path) -> None:
    save(tmp_path / "cifar" / "train" / "airplane" / "0000.jpg", (200, 200, 200))
    save(tmp_path / "cifar" / "train" / "truck" / "0000.jpg", (50, 50, 50))
    save(tmp_path / "cifar" / "test" / "bird" / "0000.jpg")
    images = load_cifar10(str(tmp_path / "cifar"), 4, 1)
    assert images.captions == ("airplane", "truck") and not images.captions_unique
    assert images.names == ("airplane/0000.jpg", "truck/0000.jpg")
    assert images.pixels.shape == (2, 1, 4, 4) and np.abs(images.pixels[:, 0, 0, 0] - np.array([200, 50])).max() <= 2
    assert load_cifar10(str(tmp_path / "cifar" / "train"), 4, 1).captions == images.captions
    assert load_cifar10(str(tmp_path / "cifar" / "test"), 4, 3).captions == ("bird",)


@pytest.mark.parametrize("given", [".", "cifar-10-batches-py"])
def test_cifar10_in_torchvision_layout(tmp_path: Path, any_checksum: None, given: str) -> None:
    write_cifar(tmp_path)
    train = load_cifar10(str(tmp_path / given), 4, 3)
    assert train.pixels[:, 1, 2, 3].tolist() == [20 * batch + k for batch in range(5) for k in range(2)]
    assert train.captions == tuple(CLASSES[batch + k] for batch in range(5) for k in range(2))
    assert len(set(train.names)) == 10 and not train.captions_unique


def test_cifar10_comes_to_the_cache_where_there_is_a_network(tmp_path: Path, any_checksum: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(CIFAR10, "download", lambda self: write_cifar(Path(self.root)))
    assert len(load_cifar10(None, 4, 3)) == 10
    assert (tmp_path / "cache" / "cifar-10-batches-py").is_dir()


@pytest.mark.parametrize(
    ("load", "torchvision_set", "archive", "place"),
    [
        (load_cifar10, CIFAR10, "cifar-10-python.tar.gz", "SOME_FOLDER/cifar-10-batches-py"),
        (load_celeba, CelebA, "img_align_celeba.zip", "SOME_FOLDER/celeba"),
        (load_flowers102, Flowers102, "102flowers.tgz", "SOME_FOLDER/flowers-102"),
    ],
)
def test_failed_download_names_the_files_to_fetch(
    load: Load, torchvision_set: type, archive: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(self: object) -> None:
        raise URLError("no\nroute")

    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path))
    monkeypatch.setattr(torchvision_set, "download", unreachable)
    with pytest.raises(ValueError, match="data_dir is not set and the download failed .*no route") as caught:
        load(None, 4, 3)
    assert "\n" not in str(caught.value) and archive in str(caught.value) and place in str(caught.value)


def test_a_broken_torchvision_folder_is_refused_in_one_sentence(tmp_path: Path, any_checksum: None) -> None:
    write_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cifar10: torchvision cannot read .*cifar-10-batches-py"):
        load_cifar10(str(tmp_path), 4, 3)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").unlink()
    with pytest.raises(ValueError, match="cifar-10-batches-py lacks data_batch_2"):
        load_cifar10(str(tmp_path), 4, 3)


def test_published_checksums_are_verified(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    with pytest.raises(ValueError, match="torchvision cannot read .*corrupted"):
        load_cifar10(str(tmp_path), 4, 3)


@pytest.mark.parametrize(
    ("load", "wanted"),
    [(load_cifar10, "cifar-10-batches-py"), (load_fashion_mnist, "FashionMNIST/raw"), (load_flowers102, "flowers-102")],
)
def test_folder_with_neither_layout_names_the_expected_layouts(load: Load, wanted: str, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=f"neither class folders with images nor torchvision's {wanted}"):
        load(str(tmp_path), 4, 3)
    with pytest.raises(ValueError, match="nowhere does not exist"):
        load(str(tmp_path / "nowhere"), 4, 3)


def test_a_broken_image_of_a_class_is_named(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "0000.jpg")
    (tmp_path / "cat" / "0001.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="the image cat/0001.jpg cannot be read"):
        load_cifar10(str(tmp_path), 4, 3)


@pytest.mark.parametrize("given", [".", "FashionMNIST"])
def test_fashion_mnist_in_torchvision_layout(tmp_path: Path, given: str) -> None:
    write_fashion(tmp_path)
    train = load_fashion_mnist(str(tmp_path / given), 28, 1)
    assert train.captions == ("t-shirt/top", "ankle boot", "trouser") and not train.captions_unique
    assert train.pixels.shape == (3, 1, 28, 28) and train.pixels[:, 0, 5, 5].tolist() == [0, 50, 100]
    assert load_fashion_mnist(str(tmp_path / given), 32, 3).pixels.shape == (3, 3, 32, 32)  # enlarged


def test_fashion_mnist_class_folders(tmp_path: Path) -> None:
    save(tmp_path / "train" / "ankle_boot" / "0.png", (9, 9, 9))
    images = load_fashion_mnist(str(tmp_path), 4, 1)
    assert images.captions == ("ankle boot",) and (images.pixels == 9).all()


def test_flowers_class_folders_lose_their_numbers(tmp_path: Path) -> None:
    save(tmp_path / "001_pink_primrose" / "image_00002.jpg")
    save(tmp_path / "102_blackberry_lily" / "image_00001.jpg")
    (tmp_path / "labels.csv").write_text("file,label\n")
    images = load_flowers102(str(tmp_path), 4, 3)
    assert images.captions == ("pink primrose", "blackberry lily") and not images.captions_unique
    assert images.names[0] == "001_pink_primrose/image_00002.jpg"


@pytest.mark.parametrize("given", [".", "flowers-102"])
def test_flowers_in_torchvision_layout(tmp_path: Path, any_checksum: None, given: str) -> None:
    write_flowers(tmp_path)
    images = load_flowers102(str(tmp_path / given), 4, 3)
    assert images.names == tuple(f"image_{number:05d}.jpg" for number in range(1, 7))
    assert images.captions == ("pink primrose",) * 2 + ("hard-leaved pocket orchid",) * 2 + ("blackberry lily",) * 2
    assert np.abs(images.pixels[:, 0, 0, 0].astype(int) - 40 * np.arange(1, 7)).max() <= 2


def test_celeba_captions_are_the_attributes_of_a_face(tmp_path: Path) -> None:
    save(tmp_path / "images" / "000007.jpg")
    save(tmp_path / "images" / "000002.jpg", (0, 255, 0))
    save(tmp_path / "images" / "000003.jpg")
    table = "image_id,Attractive,High_Cheekbones,Young\n000002.jpg,1,1,1\n000003.jpg,-1,-1,-1\n000007.jpg,-1,1,-1\n000009.jpg,1,1,1\n"
    (tmp_path / "list_attr_celeba.csv").write_text(table)
    images = load_celeba(str(tmp_path), 4, 3)
    assert images.names == ("000002.jpg", "000003.jpg", "000007.jpg") and not images.captions_unique
    assert images.captions == ("attractive, high cheekbones, young", "face", "high cheekbones")
    assert images.pixels[0, 1].min() > 200 > 50 > images.pixels[0, 0].max()


def test_celeba_in_torchvision_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_celeba(tmp_path)
    train = load_celeba(str(tmp_path), 4, 3)
    assert train.names == ("000001.jpg", "000003.jpg") and train.captions == ("bald, young", "face")
    assert load_celeba(str(tmp_path / "celeba"), 4, 3).names == ("000001.jpg", "000003.jpg")
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path))
    assert load_celeba(None, 4, 3).names == train.names


def test_celeba_names_what_is_missing(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    save(tmp_path / "celeba" / "img_align_celeba" / "000004.jpg")
    with pytest.raises(ValueError, match="list_eval_partition has no row for the image 000004.jpg"):
        load_celeba(str(tmp_path), 4, 3)
    (tmp_path / "celeba" / "img_align_celeba" / "000004.jpg").unlink()
    (tmp_path / "celeba" / "list_attr_celeba.txt").unlink()
    with pytest.raises(ValueError, match="list_attr_celeba.csv .* is not beside"):
        load_celeba(str(tmp_path), 4, 3)
    with pytest.raises(ValueError, match="holds no images in any of images, img_align_celeba"):
        load_celeba(str(tmp_path / "celeba" / "img_align_celeba"), 4, 3)
    with pytest.raises(ValueError, match="nowhere does not exist"):
        load_celeba(str(tmp_path / "nowhere"), 4, 3)


def few(source: Path, target: Path, count: int = 5) -> str:
    """A folder with links to the first images of every sub-folder: the real files, in a second instead of a minute."""
    for folder in sorted(entry for entry in source.iterdir() if entry.is_dir()):
        (target / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:count]:
            (target / folder.name / file.name).symlink_to(file)
    return str(target)


def test_real_cifar10(shared_data: Path, tmp_path: Path) -> None:
    images = load_cifar10(few(shared_data / "cifar" / "train", tmp_path / "train"), 32, 3)
    assert list(dict.fromkeys(images.captions)) == CLASSES and len(images) == 50
    with Image.open(shared_data / "cifar" / "train" / "airplane" / "0000.jpg") as first:
        np.testing.assert_array_equal(images.pixels[0], np.asarray(first).transpose(2, 0, 1))


def test_real_flowers(shared_data: Path, tmp_path: Path) -> None:
    images = load_flowers102(few(shared_data / "flowers102_64", tmp_path / "flowers", count=1), 64, 3)
    assert len(images) == len(set(images.captions)) == 102
    assert images.captions[0] == "pink primrose" and images.captions[-1] == "blackberry lily"
    seventeen = load_flowers102(few(shared_data / "flowers17_64", tmp_path / "seventeen", count=1), 64, 3)
    assert len(seventeen) == 17 and seventeen.captions[2] == "lily of the valley"


def test_real_celeba(shared_data: Path, tmp_path: Path) -> None:
    folder = few(shared_data / "celeba_64", tmp_path)
    (tmp_path / "list_attr_celeba.csv").symlink_to(shared_data / "celeba_64" / "list_attr_celeba.csv")
    images = load_celeba(folder, 64, 3)
    assert len(images) == 5 and images.names[0] == "000001.jpg" and images.pixels.std() > 20
    assert images.captions[1].startswith("bags under eyes, big nose") and images.captions[1].endswith("smiling, young")
