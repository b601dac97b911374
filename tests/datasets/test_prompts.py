import json
from collections import Counter

import pytest

from afterglow.datasets.prompts import Prompt, read_prompts, with_labels
from afterglow.errors import AfterglowError


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_jsonl_with_and_without_images_and_labels(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "m.png"):
        (tmp_path / "images" / name).write_bytes(b"x")
    rows = [
        {"caption": "one", "index": 3, "url": "http://x"},
        {"caption": "two", "image": "images/a.png", "mask": "images/m.png", "label": "TM"},
    ]
    found = read_prompts(write(tmp_path / "list.jsonl", rows), kind="control")
    assert found == [Prompt("one", "control"), Prompt("two", "local", tmp_path / "images/a.png", tmp_path / "images/m.png")]


def test_read_prompts_of_csv_and_txt(tmp_path):
    (tmp_path / "t.csv").write_text(';Caption;URL;type\n0;"a; b, and c";http://x;VM\n1;two;u;TM\n')
    assert read_prompts(tmp_path / "t.csv") == [Prompt("a; b, and c", "global"), Prompt("two", "local")]
    (tmp_path / "t.txt").write_text("first\n\nsecond\n")
    assert [p.caption for p in read_prompts(tmp_path / "t.txt")] == ["first", "second"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"caption": "one"}, {"caption": "two", "image": "gone.png"}], r"line 2: its image '.*gone.png' is missing"),
        ([{"caption": "one", "mask": "gone.png"}], r"line 1: its mask '.*gone.png' is missing"),
        ([{"text": "one"}], "line 1: the caption is missing"),
        ([["caption"]], "line 1: this is not a mapping"),
    ],
)
def test_read_prompts_names_what_is_missing(tmp_path, rows, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_prompts(write(tmp_path / "list.jsonl", rows))


def test_read_prompts_of_other_files_is_refused(tmp_path):
    (tmp_path / "bad.jsonl").write_text("{not json}\n")
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "list.xml").write_text("<a/>")
    for name, sentence in (
        ("bad.jsonl", "line 1: this is not JSON"),
        ("empty.jsonl", "is empty"),
        ("list.xml", "must end in"),
        ("no.txt", "does not exist"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read_prompts(tmp_path / name)


def test_with_labels_takes_kinds_of_another_list():
    labels = [Prompt("one", "global"), Prompt("two", "local")]
    assert [p.kind for p in with_labels([Prompt("two", "prompt"), Prompt("one", "prompt")], labels)] == ["local", "global"]
    with pytest.raises(ValueError, match="no caption 'three'"):
        with_labels([Prompt("three", "prompt")], labels)


def test_read_prompts_of_the_authors_files(shared_data):
    if not (shared_data / "sdv1_500_memorized.jsonl").exists():
        pytest.skip("the prompt lists are not among the data sets")
    prompts = read_prompts(shared_data / "sdv1_500_memorized.jsonl")
    labels = read_prompts(shared_data / "memorized_laion_prompts_vm_tm.csv")
    assert len(prompts) == 500 and Counter(p.kind for p in labels) == {"global": 112, "local": 388}
    assert Counter(p.kind for p in with_labels(prompts, labels)) == {"global": 112, "local": 388}


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "{folder}/x.png", "link.png", "linked/x.png"])
@pytest.mark.parametrize("column", ["image", "mask"])
def test_read_prompts_of_files_outside_the_folder_is_refused(tmp_path, name, column):
    (tmp_path / "list" / "a").mkdir(parents=True)
    (tmp_path / "x.png").write_bytes(b"secret")
    (tmp_path / "list" / "link.png").symlink_to("../x.png")
    (tmp_path / "list" / "linked").symlink_to(tmp_path)
    rows = [{"caption": "one", column: name.format(folder=tmp_path)}]
    with pytest.raises(AfterglowError, match=f"line 1: its {column} '.*' lies outside the folder of this file"):
        read_prompts(write(tmp_path / "list" / "list.jsonl", rows))


def test_read_prompts_of_links_inside_the_folder_and_a_linked_folder_is_accepted(tmp_path):
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "x.png").write_bytes(b"x")
    (tmp_path / "list" / "link.png").symlink_to("x.png")
    write(tmp_path / "list" / "list.jsonl", [{"caption": "one", "image": "link.png"}])
    (tmp_path / "same").symlink_to("list")
    assert read_prompts(tmp_path / "same" / "list.jsonl")[0].image == tmp_path / "same" / "link.png"


@pytest.mark.parametrize("name", ["loop.png", "n" * 5000, "a\0b"])
def test_read_prompts_of_names_that_cannot_be_files_is_refused_in_one_sentence(tmp_path, name):
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(AfterglowError, match="line 1: its image '.*' is missing") as caught:
        read_prompts(write(tmp_path / "list.jsonl", [{"caption": "one", "image": name}]))
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(("key", "value"), [("caption", ["a", "b"]), ("caption", 5), ("caption", "a\0b"), ("label", ["TM"]), ("label", 1)])
def test_read_prompts_of_what_is_no_text_is_refused_by_name(tmp_path, key, value):
    with pytest.raises(AfterglowError, match=f"line 1: the {key} "):
        read_prompts(write(tmp_path / "list.jsonl", [{"caption": "one", key: value}]))


def test_read_prompts_of_csv_with_a_byte_order_mark_finds_its_captions(tmp_path):
    (tmp_path / "t.csv").write_text("\ufeffCaption;type\none;VM\n", encoding="utf-8")
    assert read_prompts(tmp_path / "t.csv") == [Prompt("one", "global")]
