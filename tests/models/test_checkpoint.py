import errno
import random
from pathlib import Path

import pytest
import torch

from afterglow.errors import AfterglowError
from afterglow.models.checkpoint import read_checkpoint, write_checkpoint

SAVED = {"state": {"a": torch.randn(40, 40), "b": torch.arange(10)}, "global_step": 3}


def equal(checkpoint: dict) -> bool:
    return checkpoint["global_step"] == 3 and all(torch.equal(checkpoint["state"][name], SAVED["state"][name]) for name in "ab")


def test_write_checkpoint_is_read_by_torch_and_leaves_nothing_else(tmp_path):
    file = tmp_path / "checkpoints/last.ckpt"
    write_checkpoint(SAVED, file)
    assert equal(torch.load(file, weights_only=True)) and equal(read_checkpoint(file)) and equal(read_checkpoint(file, mmap=True))
    assert list(file.parent.iterdir()) == [file]


def test_read_checkpoint_with_any_byte_changed_is_refused_or_equal(tmp_path):
    file, damaged = tmp_path / "last.ckpt", tmp_path / "damaged.ckpt"
    write_checkpoint(SAVED, file)
    data, generator, refused = file.read_bytes(), random.Random(0), 0
    for position in generator.sample(range(len(data)), 400):
        changed = bytearray(data)
        changed[position] ^= 1 << generator.randrange(8)
        damaged.write_bytes(changed)
        try:
            assert equal(read_checkpoint(damaged))  # the byte fills a gap between two tensors
        except AfterglowError as error:
            refused += 1
            assert "damaged.ckpt" in str(error) and len(str(error)) < 300
    assert refused > 200


@pytest.mark.parametrize("part", [0, 1, 100, 3000, -1])
def test_read_checkpoint_of_a_truncated_file_is_refused(tmp_path, part):
    file = tmp_path / "last.ckpt"
    write_checkpoint(SAVED, file)
    file.write_bytes(file.read_bytes()[:part])
    with pytest.raises(AfterglowError, match="is not a readable checkpoint"):
        read_checkpoint(file)


def test_read_checkpoint_names_a_missing_and_a_foreign_file(tmp_path):
    with pytest.raises(AfterglowError, match="There is no checkpoint"):
        read_checkpoint(tmp_path / "last.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(AfterglowError, match="not a checkpoint of a training"):
        read_checkpoint(tmp_path / "list.ckpt")


@pytest.mark.parametrize("moment", ["write", "fsync", "rename"])
def test_write_checkpoint_on_a_full_disk_keeps_the_old_file_and_names_it(tmp_path, monkeypatch, moment):
    file = tmp_path / "last.ckpt"
    write_checkpoint({"old": 1}, file)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Full:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.stream.close()

        write = full

        def flush(self):
            pass

    opened = Path.open
    if moment == "write":
        monkeypatch.setattr(Path, "open", lambda self, *mode: Full(opened(self, *mode)))
    else:
        monkeypatch.setattr("os.fsync" if moment == "fsync" else "os.replace", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_checkpoint(SAVED, file)
    assert caught.value.filename == str(file) and caught.value.errno == errno.ENOSPC
    assert torch.load(file, weights_only=True) == {"old": 1} and list(tmp_path.iterdir()) == [file]
