import json
from pathlib import Path

import pandas as pd
import pytest

from afterglow import files
from afterglow.errors import AfterglowError

BOMB = b"a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + b"".join(b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 10)) for i in range(1, 9))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (files.read_json, b"{"),
        (files.read_json, b"\xff\xfe{}"),
        (files.read_json, b"[" * 100_000),
        (files.read_json_lines, b'{"a": 1}\n{"a"'),
        (files.read_json_lines, b"[1]\n"),
        (files.read_yaml, b"a: [1"),
        (files.read_yaml, b"- 1\n"),
        (files.read_yaml, b"name: caf\xe9\n"),
        (files.read_yaml, "a: 1\n".encode("utf-16")),
        (files.read_yaml, b"\x00\x01\x02"),
        (files.read_yaml, b"a: !!python/object/apply:os.system [true]\n"),
        (files.read_yaml, b"a: " + b"[" * 3000),
        (files.read_yaml, b"a: " + b"{a: " * 3000 + b"}" * 3000),
        (files.read_yaml, b"model: &m {init_args: *m}\n"),
        (files.read_yaml, BOMB),
        (lambda path: files.read_parquet(path, ()), b"PAR1 torn"),
        (lambda path: files.read_parquet(path, ()), b""),
    ],
)  # fmt: skip
def test_read_of_a_damaged_file_names_it_in_one_short_sentence(read, content, file):
    file.write_bytes(content)
    with pytest.raises(AfterglowError, match=str(file)) as error:
        read(file)
    assert len(str(error.value)) <= 300 and "\n" not in str(error.value)


@pytest.mark.parametrize("read", [files.read_text, files.read_json, files.read_json_lines, files.read_yaml])
def test_read_of_a_missing_file_keeps_the_os_error(read, file):
    with pytest.raises(FileNotFoundError):
        read(file)


def test_read_returns_what_intact_files_hold(file):
    file.write_text('{"a": "caf\u00e9\u2028x"}\n\n{"a": 2}\n', encoding="utf-8")
    assert files.read_json_lines(file, ("a",)) == [{"a": "caf\u00e9\u2028x"}, {"a": 2}]
    with pytest.raises(AfterglowError, match="line 1 lacks b"):
        files.read_json_lines(file, ("a", "b"))
    file.write_text("a: &x [1, 2]\nb: [*x, *x]\n")
    assert files.read_yaml(file) == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
    file.write_text("")
    assert files.read_yaml(file) == {}
    file.write_text(json.dumps([1]))
    assert files.read_json(file) == [1]
    pd.DataFrame({"a": [1]}).to_parquet(file)
    assert files.read_parquet(file, ("a",))["a"].tolist() == [1]
    with pytest.raises(AfterglowError, match="lacks the columns b, c"):
        files.read_parquet(file, ("a", "b", "c"))
