from dataclasses import replace
from functools import partial

import pytest

from afterglow.analysis.emergence_table import emergence_of
from afterglow.callbacks.run_files import load_early_snapshot
from afterglow.callbacks.training_evaluation import EvaluationSettings, TrainingEvaluation
from afterglow.errors import AfterglowError
from afterglow.models.optimal import OptimalDenoiser
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.plants import PlantingConfig
from afterglow.sampling.loop import Sampler

SETTINGS = {"seeds": 2, "final_seeds": 3, "num_controls": 5, "num_heldout": 2, "batch_size": 64, "curvature_vectors": 1}


def evaluation_of(planted, tmp_path, measures=(), sampler=Sampler(), num_unprompted=7):
    settings = EvaluationSettings(sampler=sampler, measures=measures, final_measures=measures, num_unprompted=num_unprompted, **SETTINGS)
    return TrainingEvaluation(settings, planted, planted, planted.gallery(), partial(load_early_snapshot, folder=tmp_path))


@pytest.fixture(scope="module")
def data():
    planting = PlantingConfig(num_global=2, num_local=2, num_decoys=0, num_tints=0, num_decoy_images=0, copies=(40,), num_backgrounds=20)
    module = PlantedDataModule(set_size=30, planting=planting)
    module.setup()
    return module


def test_request_of_a_captioned_model_has_controls_at_the_last_evaluation_only(data, tmp_path):
    evaluation, model = evaluation_of(data.planted, tmp_path), type("Model", (), {"has_text": True})()
    last, inner = (evaluation.request(model, last=last).targets for last in (True, False))
    assert len(last) == 8 + 5 + 2 and len({target.plant_id for target in last}) == len(last)
    assert len(inner) == 8 + 2 and "control" not in {target.kind for target in inner}
    unplanted = replace(evaluation, reconstructed=replace(data.planted, plants=(), heldout=data.planted.heldout[:0]))
    with pytest.raises(AfterglowError, match="num_heldout and --monitor.num_heldout"):
        unplanted.request(model, last=False)


def test_request_of_an_unconditional_model_is_unprompted(data, tmp_path):
    request = evaluation_of(data.planted, tmp_path).request(type("Model", (), {"has_text": False})(), last=True)
    assert len(request.targets) == 7 and {target.kind for target in request.targets} == {"unprompted"} and request.append


def test_run_on_the_optimal_denoiser_extracts_every_plant_and_no_phantom(data, tmp_path):
    """The optimal denoiser of one epoch copies everything: its generations are matched to their plants, and local ones are localized."""
    model = OptimalDenoiser(data.samples.images(data.samples.keys(range(data.samples.epoch_length))).numpy())
    measures = ["calibrated_l2", "nn_ratio", "patch_nearness", "centered_gaussian"]
    rows = evaluation_of(data.planted, tmp_path, measures, Sampler(steps=25), 48).run(model, last=True).measurements
    plants = rows[rows["measure"] == "plant_memorized"].groupby("kind")["value"].agg(["sum", "count"])
    assert plants.loc["global"].tolist() == [2, 2] and plants.loc["local"].tolist() == [2, 2] and plants.loc["phantom", "count"] == 4
    assert plants.loc["phantom", "sum"] <= 1 and plants.loc["unprompted", "count"] == 48
    extracted = rows[rows["measure"] == "extracted"].groupby("kind")["value"].sum()
    assert extracted["global"] + extracted["local"] > 0.6  # 160 of the 190 images of an epoch
    assert plants.loc["unprompted", "sum"] / 48 + extracted["local"] >= 0.95  # a region with a new background is no copy of a whole image
    assert set(rows[rows["measure"].str.startswith("iou.")]["kind"]) == {"local"}
    completed = rows[rows["measure"] == "plant_memorized.outpainted"].groupby("kind")["value"].agg(["sum", "count"])
    assert completed.loc["global"].tolist() == [2, 2] and completed.loc["phantom"].tolist() == [0, 4]
    assert completed.loc["control", "count"] == completed.loc["heldout", "count"] == 5
    unseen = rows[rows["measure"] == "unseen.memorized"]
    assert set(unseen["kind"]) == {"heldout"} and emergence_of(rows.assign(step=6))["unseen"]["images"] == len(unseen)


def test_outpainting_can_be_turned_off_and_is_for_models_without_text(data, tmp_path):
    plain, captioned = (type("Model", (), {"has_text": text, "is_latent": False})() for text in (False, True))
    evaluation = evaluation_of(data.planted, tmp_path)
    assert len(evaluation.outpainting(plain, last=False)) == 2 and evaluation.outpainting(captioned, last=False) == []
    assert replace(evaluation, settings=replace(evaluation.settings, resamplings=0)).outpainting(plain, last=False) == []


def test_confirmations_evaluate_undecided_plants_with_new_seeds(data, tmp_path):
    model = OptimalDenoiser(data.planted.pixels[[p.members[0] for p in data.planted.of_kind("global")]])
    evaluation = evaluation_of(data.planted, tmp_path, (), Sampler(steps=5))
    rows = evaluation.run(model, last=True).measurements
    assert evaluation.confirmations(model, rows.assign(step=0).iloc[:0]) == []
    confirmed = evaluation.confirmations(model, rows.assign(step=5))
    names = [name + within for within in ("", ".outpainted") for name in ("confirm.1", "confirm.2")]
    assert [set(frame["measure"]) for frame in confirmed] == [{name} for name in names]
    assert {"global"} <= set(confirmed[0]["kind"]) and "unprompted" not in set(confirmed[0]["kind"])
