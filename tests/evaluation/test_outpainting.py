"""Outpainting on models whose memory is known: the closed-form optimal denoiser of a training set and that of another set."""

import numpy as np
import pandas as pd
import pytest

from afterglow.evaluation.evaluate import Processes, evaluate
from afterglow.evaluation.outpainting import OUTPAINTED_MEASURES, outpainting_requests
from afterglow.evaluation.requests import GenerationPlan
from afterglow.models.optimal import OptimalDenoiser
from afterglow.planting.datamodule import PlantedDataModule
from afterglow.planting.planner import plant_images
from afterglow.planting.plants import PlantingConfig
from afterglow.sampling.loop import Sampler

SAMPLER = Sampler(steps=12)


@pytest.fixture(scope="module")
def data():
    shapes = ("quadrant", "rectangle", "blob")
    options = {"num_decoys": 0, "num_tints": 0, "num_decoy_images": 0, "num_heldout": 16, "num_backgrounds_per_plant": 4, "shapes": shapes}
    planting = PlantingConfig(num_global=3, num_local=3, num_backgrounds=30, copies=(20,), **options)
    module = PlantedDataModule(set_size=40, planting=planting)
    module.setup()
    return module


@pytest.fixture(scope="module")
def rows(data):
    """Completions by the optimal denoiser of one epoch."""
    model = OptimalDenoiser(data.samples.images(data.samples.keys(range(data.samples.epoch_length))).numpy())
    return completions(model, data.planted, num_controls=12)


def completions(model, planted, num_controls=0, seeds=2, **options):
    asked = outpainting_requests(planted, num_controls=num_controls)
    found = [evaluate(model, part, SAMPLER, OUTPAINTED_MEASURES, plan=GenerationPlan(seeds), **options) for part in asked]
    return pd.concat([part.measurements for part in found])


def counts(rows, name):
    plants = rows[rows["measure"] == f"plant_memorized.{name}"]
    return {kind: (int(values.sum()), len(values)) for kind, values in plants.groupby("kind")["value"]}


def test_the_optimal_denoiser_completes_every_plant_and_no_phantom(rows):
    known = counts(rows, "outpainted")
    assert known["global"] == (3, 3) and known["local"] == (3, 3)
    assert known["phantom"] == (0, 6) and known["heldout"][0] <= 2 and known["heldout"][1] == 12  # some emoji have twins
    assert known["control"][0] >= 10  # it memorizes these too, though each was shown once
    fresh = counts(rows, "outpainted_fresh")
    assert fresh["phantom"] == (0, 3) and set(fresh) == {"local", "phantom"}


def test_the_optimal_denoiser_of_other_images_completes_no_plant(data):
    found = counts(completions(OptimalDenoiser(data.planted.pixels[data.planted.heldout]), data.planted), "outpainted")
    assert {kind: memorized for kind, (memorized, _) in found.items()} == {"global": 0, "local": 0, "phantom": 0}


def test_rows_have_their_own_measures_and_the_captions_of_the_plants(data, rows):
    names = {f"{name}.{measure}" for name in ("outpainted", "outpainted_fresh") for measure in OUTPAINTED_MEASURES}
    assert set(rows["measure"]) == names | {"plant_memorized.outpainted", "plant_memorized.outpainted_fresh", "cluster_size"}
    assert set(rows[rows["measure"] == "cluster_size"]["kind"]) == {"control"}
    each = rows[(rows["measure"] == "outpainted.memorized") & (rows["kind"] == "local")]
    assert set(zip(each["plant_id"], each["caption"], strict=True)) == {(p.plant_id, p.caption) for p in data.planted.of_kind("local")}
    assert sorted(each["seed"]) == [0] * 3 + [1] * 3


def test_what_is_known_of_a_target(data):
    planted, requests = data.planted, outpainting_requests(data.planted, num_controls=2)
    assert [request.name for request in requests] == ["outpainted", "outpainted_fresh"]
    plants = {plant.plant_id: plant for plant in planted.plants}
    for request in requests:
        for target, images in zip(request.targets, request.surroundings, strict=True):
            plant = plants.get(target.plant_id)
            if plant is None or plant.mask.all():
                assert target.mask.mean() == 0.5 and np.array_equal(images[0], target.reference)
            elif request.name == "outpainted_fresh":
                assert np.array_equal(target.mask, plant.mask) and np.array_equal(images, planted.pixels[planted.heldout])
            elif plant.kind == "local":
                assert np.array_equal(images, planted.pixels[list(plant.backgrounds)])
    local = next(row for row, target in enumerate(requests[0].targets) if target.kind == "local")
    known = requests[0].known([(local, 0), (local, 4), (local, 1)])
    assert np.array_equal(known.mask[0], ~requests[0].targets[local].mask)
    assert known.images[0].equal(known.images[1]) and not known.images[0].equal(known.images[2])  # four backgrounds in turn


def test_completions_of_two_processes_are_those_of_one(data, small_plain, planted, images, small):
    """Each process completes every second sample; the gather of a lone process gives its own part twice."""
    asked = outpainting_requests(planted, resamplings=2)[0].only({planted.of_kind("local")[0].plant_id})
    samples = GenerationPlan(2).samples(range(len(asked.targets)))
    model, options = small_plain(), {"plan": GenerationPlan(2)}
    whole = evaluate(model, asked, Sampler(steps=2), ("memorized",), **options).generations.images
    other = [asked.known(samples[rank::2]) for rank in (0, 1)]
    assert len(other[0].images) == len(other[1].images) == 1
    for rank in (0, 1):
        gather = Processes(rank, 2, lambda tensor: tensor[None].repeat(2, *[1] * tensor.ndim))
        part = evaluate(model, asked, Sampler(steps=2), ("memorized",), processes=gather, **options).generations.images
        assert part[rank].equal(whole[rank])
    again = outpainting_requests(plant_images(images, small, set_size=60, seed=3), resamplings=2)[0]
    again = again.only([target.plant_id for target in asked.targets])
    assert evaluate(model, again, Sampler(steps=2), ("memorized",), **options).generations.images.equal(whole)
