import json
from pathlib import Path

import pandas as pd
import pytest

from afterglow.datasets.tables import checked_text, read_table
from afterglow.errors import AfterglowError

LEGAL = ["a\u2028b", "a\x85b", "a\x0bb", "caf\u00e9", "\U0001f44b hat", 'say "x", y; z']


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".txt"])
def test_read_table_of_legal_unicode_returns_every_caption_unchanged(suffix: str, mark: bytes, tmp_path: Path) -> None:
    quoted = ["caption", *('"{}"'.format(text.replace('"', '""')) for text in LEGAL)]
    lines = {".jsonl": [json.dumps({"caption": text}, ensure_ascii=False) for text in LEGAL], ".csv": quoted, ".txt": LEGAL}[suffix]
    file = tmp_path / f"list{suffix}"
    for end in ("\n", "\r\n"):
        file.write_bytes(mark + end.join([*lines, "", ""]).encode())
        rows = read_table(file)
        assert [row["caption"] for _, row in rows] == LEGAL
        assert [line for line, _ in rows] == [number + (suffix == ".csv") for number in range(1, len(LEGAL) + 1)]


def test_read_table_of_csv_accepts_long_fields_and_newlines_in_quotation_marks(tmp_path: Path) -> None:
    long = "x" * 200_000
    (tmp_path / "list.csv").write_text(f'caption,type\n"one\ntwo",VM\n{long},TM\n')
    rows = read_table(tmp_path / "list.csv")
    assert rows == [(3, {"caption": "one\ntwo", "type": "VM"}), (4, {"caption": long, "type": "TM"})]


def test_read_table_of_parquet_gives_none_for_missing_values(tmp_path: Path) -> None:
    pd.DataFrame({"text": ["a", None], "family": [1.0, None]}).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet") == [(1, {"text": "a", "family": 1.0}), (2, {"text": None, "family": None})]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b'{"caption": "x"}\n{"caption": "caf\xe9"}\n', "line 2: this is not JSON Lines in UTF-8; save the file as UTF-8"),
        ("a.csv", "caption\nx\ny\n".encode("utf-16"), "line 1: .* save the file as UTF-8"),
        ("a.txt", b"fine\n\n\xff\n", "line 3: .* save the file as UTF-8"),
        ("a.jsonl", b"\n" + b"[" * 100_000 + b"\n", "line 2: the brackets are nested too deeply"),
        ("a.jsonl", b'{"n": ' + b"1" * 10_000 + b"}\n", r"line 1: this is not JSON \(Exceeds the limit"),
        ("a.csv", b"caption,type\nx,y\nx\n", "line 3: 1 values for the 2 columns"),
        ("a.csv", b"caption,type\nx,y,z\n", "line 2: 3 values for the 2 columns .* in quotation marks"),
        ("a.csv", b'caption,type\n"x,y\nz,y\n', "line 3: this is not CSV .unexpected end of data"),
        ("a.csv", b"caption,caption\nx,y\n", "line 1: two columns have the same name"),
        ("a.parquet", b"PAR1", "a.parquet' cannot be read"),
    ],
)
def test_read_table_of_a_damaged_file_names_file_and_line(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AfterglowError, match=sentence) as caught:
        read_table(tmp_path / name)
    assert name in str(caught.value) and len(str(caught.value)) <= 300


@pytest.mark.parametrize("value", [["a", "b"], 5, {"a": 1}, "a\0b", "a\ud800b"])
def test_checked_text_of_no_storable_text_is_refused_by_name(value: object) -> None:
    with pytest.raises(AfterglowError, match="^line 3: the caption"):
        checked_text(value, "caption", "line 3")
    assert checked_text("a\u2028b", "caption", "line 3") == "a\u2028b"
