from pathlib import Path

import pytest
from jsonargparse import ArgumentError, ArgumentParser

from afterglow.cli.recipes import config_file, explained, known_options, names_recipe, parse_recipe
from afterglow.errors import AfterglowError

KNOWN = {"model.text_length", "optimizer.learning_rate", "trainer.max_steps", "data.planting.copies"}


def error(message: str) -> ArgumentError:
    return ArgumentError(None, message)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            "Parser key \"model\": Does not validate against any of the Union subtypes\n- Problem with given class_path 'x':\n"
            "  Option 'text_lenght' is not accepted",
            "Unknown option model.text_lenght: did you mean model.text_length?",
        ),
        ("Group 'trainer' does not accept option 'max_stepps'", "Unknown option trainer.max_stepps: did you mean trainer.max_steps?"),
        ("unrecognized arguments: --trainer.max_stepps 3", "Unknown option trainer.max_stepps: did you mean trainer.max_steps?"),
        (
            'Parser key "data": Problem: unrecognized arguments: --planting.copes=[8] - Expected',
            "Unknown option data.planting.copes: did you mean data.planting.copies?",
        ),
        ("unrecognized arguments: --quux 3", "Unknown option quux; `afterglow train --help` lists all options."),
        (
            'Parser key "model": Problem: Parser key "text_length": Expected a <class \'int\'>. Got value: abc - Expected',
            "model.text_length must be an integer, not abc.",
        ),
        ('Parser key "trainer.logger": the following arguments are required: save_dir', "trainer.logger cannot be changed"),
        ("Parser key \"config\": File does not exist: 'x.yaml'", "File does not exist: 'x.yaml'"),
    ],
)
def test_explained_is_one_sentence_that_names_the_option(message, sentence):
    assert str(explained(error(message), KNOWN)).startswith(sentence)


@pytest.mark.parametrize("words", [["--data.seed", "3"], ["--model.init_args.seed=3"], ["--config", "recipe.yaml"]])
def test_a_seed_that_would_be_ignored_is_refused(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("data: {init_args: {seed: 3}}")
    with pytest.raises(AfterglowError, match=r"seed follows seed_everything, and data\.planting\.seed is that of"):
        parse_recipe(ArgumentParser(), words)


def test_known_options_include_those_of_classes():
    class Model:
        def __init__(self, rate: float = 1.0) -> None: ...

    parser = ArgumentParser()
    parser.add_argument("--name", default="")
    assert {"name", "model.rate"} <= known_options(parser, model=[Model])


def test_config_file_prefers_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_file("demo.yaml").is_absolute()
    Path("configs").mkdir()
    Path("configs/demo.yaml").write_text("")
    assert config_file("demo.yaml") == Path("configs/demo.yaml")
    with pytest.raises(AfterglowError, match="no configs/none.yaml"):
        config_file("none.yaml")


def test_names_recipe_recognizes_all_spellings():
    assert (
        names_recipe(["--config", "x"]) and names_recipe(["--config=x"]) and names_recipe(["-c", "x"]) and not names_recipe(["--name", "x"])
    )
