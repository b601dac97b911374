import pytest

from afterglow.cli.parser import CommandParser


@pytest.fixture
def parser():
    parser = CommandParser(prog="afterglow test", description="First line.\n\n  an example\n")
    parser.add_argument("--num-images", type=int, default=4, help="images")
    parser.add_argument("--kinds", nargs="+", default=["a", "b"], help="kinds")
    parser.add_argument("--out", required=True, help="folder")
    parser.add_argument("--flag", action="store_true", help="flag")
    parser.add_argument("--choice", choices=["trailing", "leading"], help="spacing (default: the model's own)")
    parser.add_argument("--data.", dest="data", help="options of a section (default: none)")
    return parser


def test_parser_help_shows_every_default_and_keeps_the_example(parser):
    text = parser.format_help()
    for part in ("images (default: 4)", "kinds (default: a b)", "folder (required)", "flag (default: off)", "(default: the model's own)"):
        assert part in text
    assert "\n  an example\n" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--num-image", "3"], "Unknown option --num-image: did you mean --num-images?"),
        (["--quux", "3"], "Unknown option --quux."),
        (["--out", "x", "--choice", "trailin"], "'trailin' is not a choice: did you mean trailing? Choices: trailing, leading."),
        (["--out", "x", "--num-images", "many"], "many"),
        ([], "The following arguments are required: --out"),
    ],
)
def test_parser_bad_input_is_one_line_with_code_2(parser, capsys, words, sentence):
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(words)
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and sentence in printed and printed.startswith("error: ") and printed.count("\n") == 1


def test_parser_prefix_options_are_kept_unparsed(parser):
    args = parser.parse_args(["--out", "x", "--data.set_size", "3", "--data.planting.copies=[8]"])
    assert args.prefixed == ["--data.set_size", "3", "--data.planting.copies=[8]"] and args.out == "x"
