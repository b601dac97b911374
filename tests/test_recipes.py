"""Every recipe, overlay and sweep is accepted by the parser, and the architectures are those that they are named after."""

from pathlib import Path

import pytest
import torch
import yaml
from diffusers import UNet2DModel

from afterglow.cli import main
from afterglow.models.text_encoder import SMALL_TEXT

ROOT = Path(__file__).parents[1]
RECIPES = sorted({*(ROOT / "configs").glob("*.yaml"), *(ROOT / "configs/findings").glob("*.yaml")} - {ROOT / "configs/base.yaml"})
SWEEPS = sorted((ROOT / "configs/sweeps").glob("*.yaml"))


def printed(capsys, *arguments: str) -> dict:
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments, "--print_config"])
    out = capsys.readouterr()
    assert stop.value.code in (0, None), out.err
    return yaml.safe_load(out.out)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_accepted_and_keeps_its_values(recipe, capsys):
    own = yaml.safe_load(recipe.read_text())
    found = printed(capsys, "--config", str(recipe))
    assert found["model"]["class_path"] == own["model"]["class_path"]
    assert found["trainer"]["max_steps"] == own["trainer"]["max_steps"] and found["data"]["init_args"]["resolution"] >= 16


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
def test_the_parameters_of_a_sweep_reach_the_run(sweep, capsys):
    about = yaml.safe_load(sweep.read_text())
    recipe = about["command"][about["command"].index("--config") + 1]
    chosen = {name: values["values"][-1] for name, values in about["parameters"].items()}
    found = printed(capsys, "--config", str(ROOT / recipe), *(f"--{name}={value}" for name, value in chosen.items()))
    for name, value in chosen.items():
        place = found
        for key in name.replace("data.", "data.init_args.").replace("model.", "model.init_args.").split("."):
            place = place[key]
        assert place == (yaml.safe_load(value) if isinstance(value, str) else value)
    assert (ROOT / about["program"]).is_file() and about["command"][-1] == "${args}"


@pytest.mark.parametrize(("recipe", "millions"), [("cifar10_ddpm", 35.746), ("celeba_gray32", 4.023)])
def test_the_public_architectures_have_their_number_of_parameters(recipe, millions):
    config = yaml.safe_load((ROOT / f"configs/{recipe}.yaml").read_text())
    channels = config["data"]["init_args"].get("channels", 3)
    with torch.device("meta"):
        network = UNet2DModel(sample_size=32, in_channels=channels, out_channels=channels, **config["model"]["init_args"]["unet"])
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=1e-3)


def test_the_narrow_overlay_fits_the_recipes_of_large_images(capsys):
    for recipe in ("celeba64", "flowers64"):
        found = printed(capsys, "--config", str(ROOT / f"configs/{recipe}.yaml"), "--config", str(ROOT / "configs/overlays/narrow.yaml"))
        assert found["data"]["init_args"]["resolution"] == 32 and found["model"]["init_args"]["unet"]["block_out_channels"][0] == 16


def test_the_overlays_of_endings_replace_the_encoder_of_the_demo(capsys):
    files = [ROOT / "configs/demo.yaml", *(ROOT / f"configs/overlays/{name}.yaml" for name in ("endings", "text_causal"))]
    found = printed(capsys, *(word for file in files for word in ("--config", str(file))))
    assert found["model"]["init_args"]["text"] == SMALL_TEXT and found["trainer"]["max_steps"] == 1600
    assert "token_group.last.*" in found["monitor"]["measures"]
    monitor, data = found["monitor"], found["data"]["init_args"]  # E3 keeps what its first runs had, whatever the demo changes
    assert (monitor["budget"], monitor["first_fraction"], monitor["step_ratio"], monitor["sampler"]["steps"]) == (1, 0.02, 1.5, 12)
    assert (monitor["num_controls"], monitor["batch_size"]) == (64, 32)
    assert (data["set_size"], data["batch_size"], data["planting"]["copies"]) == (2000, 32, [250])


SETS = {"cifar10": "cifar", "celeba": "celeba_64", "flowers102": "flowers102_64"}
OF_32_PIXELS = {  # docs/guides/own-data.md#times: files and options, and what they plant
    "arms": (["findings/photographs_32"], ["--data.planting.arm", "1"], "8 global, 8 local, 16 phantom"),
    "unconditional": (["findings/unconditional", "overlays/pixels_32"], [], "8 global, 8 local, 16 phantom"),
    "sizes": (["findings/photograph_sizes", "overlays/pixels_32"], [], "nothing"),
}
FEW = ["--data.max_images", "1200", "--monitor.batch_size", "8", "--monitor.sampler.steps", "2", "--monitor.final_measures", "null"]


def files(*names: str) -> list[str]:
    return [word for name in names for word in ("--config", str(ROOT / f"configs/{name}.yaml"))]


@pytest.mark.parametrize("recipe", ["unconditional", "photograph_sizes"])
def test_the_overlay_of_32_pixels_changes_the_resolution_and_the_levels_alone(recipe, capsys):
    small = printed(capsys, *files(f"findings/{recipe}"))
    large = printed(capsys, *files(f"findings/{recipe}", "overlays/pixels_32"))
    for found, side, levels in ((small, 16, 2), (large, 32, 3)):
        assert found["data"]["init_args"].pop("resolution") == side and found["model"]["init_args"].pop("resolution", side) == side
        unet = found["model"]["init_args"]["unet"]
        assert {len(unet.pop(name)) for name in ("down_block_types", "up_block_types", "block_out_channels")} == {levels}
    assert large == small


@pytest.mark.parametrize("dataset", SETS)
@pytest.mark.parametrize("recipe", OF_32_PIXELS)
def test_a_recipe_of_32_pixels_plants_in_photographs_and_trains(recipe, dataset, shared_data, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, options, planted = OF_32_PIXELS[recipe]
    of_set = ["--data.dataset", dataset, "--data.data_dir", str(shared_data / SETS[dataset])]
    main(["train", *files(*names), *options, *of_set, *FEW, "--dry-run"])
    out = capsys.readouterr().out
    assert f"training images; planted: {planted}" in out and "Evaluation: " in out
