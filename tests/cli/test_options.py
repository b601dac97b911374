import importlib
from types import SimpleNamespace

import pytest
from diffusers import DDPMScheduler

from afterglow.cli import COMMANDS, options
from afterglow.cli.parser import CommandParser

PARSED = [name for name in COMMANDS if name != "train"]


@pytest.mark.parametrize("name", PARSED)
def test_every_option_of_a_command_has_a_text_with_its_default(name):
    module = importlib.import_module(f"afterglow.cli.{name.replace('-', '_')}")
    parser = CommandParser(prog=f"afterglow {name}", description=module.__doc__)
    module.add_arguments(parser)
    formatter = parser._get_formatter()
    for action in parser._actions[1:]:
        text = formatter._get_help_string(action)
        assert action.help and (not action.option_strings or "default: " in text or "(required)" in text), action.option_strings
        assert "None" not in text and "(default: )" not in text, action.option_strings


def test_the_default_scale_of_guidance_is_that_of_the_model():
    parser = CommandParser(prog="x")
    options.add_sampler_arguments(parser)
    models = [SimpleNamespace(is_latent=latent, scheduler=DDPMScheduler()) for latent in (True, False)]
    assert [options.sampler_from(parser.parse_args([]), model).guidance_scale for model in models] == [7.5, 1]


def test_there_is_one_training_seed_for_each_run():
    assert options.training_seeds(None, ["a", "b"]) == {} and options.training_seeds([3, 3], ["a", "b"]) == {"a": 3, "b": 3}
    with pytest.raises(ValueError, match="names 1 training seeds for 2 runs"):
        options.training_seeds([3], ["a", "b"])


@pytest.mark.parametrize(("latent_factor", "spacing", "expected"), [(1, None, "trailing"), (8, None, None), (8, "leading", "leading")])
def test_sampler_from_keeps_the_own_spacing_of_latent_models(latent_factor, spacing, expected):
    parser = CommandParser(prog="x")
    options.add_sampler_arguments(parser)
    args = parser.parse_args(["--num-inference-steps", "7", "--guidance-scale", "2", *(["--timestep-spacing", spacing] if spacing else [])])
    sampler = options.sampler_from(args, SimpleNamespace(is_latent=latent_factor > 1, scheduler=DDPMScheduler()))
    assert (sampler.steps, sampler.guidance_scale, sampler.options.get("timestep_spacing")) == (7, 2, expected)
