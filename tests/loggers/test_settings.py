import yaml

from afterglow.loggers.settings import flat_settings

CONFIG = """
seed_everything: 3
model: {class_path: afterglow.models.TextConditionalDDPM, init_args: {unet: {block_out_channels: [32, 64]}}}
data: {init_args: {dataset: openmoji, resolution: 16, set_size: 2000, batch_size: 32, planting: {copies: [250]}}}
optimizer: {learning_rate: 0.002}
trainer: {max_steps: 1200}
mitigations: []
"""


def test_flat_settings_has_what_runs_are_grouped_by():
    flat = flat_settings(yaml.safe_load(CONFIG))
    expected = {
        "dataset": "openmoji",
        "n": 2000,
        "copies": 250,
        "width": "32, 64",
        "seed": 3,
        "mitigation": "none",
        "model": "TextConditionalDDPM",
    }
    assert {name: flat[name] for name in expected} == expected


def test_flat_settings_names_mitigations_and_leaves_out_what_a_model_lacks():
    config = yaml.safe_load(CONFIG) | {"model": {"class_path": "afterglow.models.StableDiffusion"}}
    config["mitigations"] = [{"class_path": "a.SampleDropping"}, {"class_path": "b.CaptionPerturbation"}]
    flat = flat_settings(config)
    assert flat["mitigation"] == "SampleDropping+CaptionPerturbation" and "width" not in flat
