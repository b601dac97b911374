from argparse import ArgumentParser
from types import SimpleNamespace

from afterglow.cli.options import sampler_of, sampler_options


def test_sampler_of_options():
    parser = ArgumentParser()
    sampler_options(parser)
    sampler = sampler_of(SimpleNamespace(grid=8), parser.parse_args(["--steps", "3", "--guidance", "7.5"]))
    assert (sampler.steps, sampler.guidance_scale, dict(sampler.options)) == (3, 7.5, {})
