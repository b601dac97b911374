import pytest

from afterglow.errors import AfterglowError
from afterglow.loggers.names import check_names, run_id


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a/b", None, ()), "--wandb.project: 'a/b' contains '/'"),
        (("p" * 129, None, ()), "has 129 characters; W&B allows 1 to 128"),
        (("p", "my team", ()), "--wandb.entity: 'my team' contains ' '"),
        (("p", None, ("t" * 70,)), "--wandb.tags: .* has 70 characters; W&B allows 1 to 64"),
        (("p", None, ("",)), "--wandb.tags: '' has 0 characters"),
    ],
)
def test_check_names_refuses_what_wandb_refuses(names, expected):
    with pytest.raises(AfterglowError, match=expected):
        check_names(*names)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\x00\x01", b"a/b", b"x" * 65])
def test_run_id_that_is_damaged_is_replaced_by_that_of_the_recorded_run(tmp_path, content):
    (tmp_path / "offline-run-20261124_120000-abc12345").mkdir()
    (tmp_path / "run_id").write_bytes(content)
    assert run_id(tmp_path) == (tmp_path / "run_id").read_text() == "abc12345"


def test_run_id_is_new_in_an_empty_folder_and_kept_afterwards(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    first = run_id(tmp_path / "wandb")
    assert first and run_id(tmp_path / "wandb") == first and [path.name for path in (tmp_path / "wandb").iterdir()] == ["run_id"]
