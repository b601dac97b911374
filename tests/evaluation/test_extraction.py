import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from afterglow.analysis.extraction import generation_rows
from afterglow.evaluation.embeddings import Encoder
from afterglow.evaluation.extraction import (
    attach_nearest,
    extraction_captions,
    extraction_request,
    tile_extras,
    training_captions,
    unseen_images,
    unseen_rows,
)
from afterglow.evaluation.similarity import background_similarity, embedding_space, pixel_space
from afterglow.evaluation.training_set import training_set
from afterglow.functional.distances import masked_rms
from afterglow.functional.pixels import to_unit
from afterglow.generations import Generations
from afterglow.measures.memorized import calibrated_l2
from afterglow.neighbors.gallery import Gallery, Template, tile_masks


@pytest.fixture(scope="module")
def gallery():
    rows = np.random.default_rng(0).integers(0, 256, (70, 3, 8, 8), dtype=np.uint8)
    rows[1] = rows[0]
    return Gallery(rows, np.array([0, 0, *range(1, 69)]))


def generated(images):
    count = len(images)
    return Generations(torch.from_numpy(images), ("",) * count, torch.arange(count), torch.arange(3), provenance={})


@pytest.fixture(scope="module")
def evaluated(gallery):
    fresh = np.random.default_rng(1).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
    fresh[0, :, 4:, 4:] = gallery.pixels[9][:, 4:, 4:]
    return attach_nearest(generated(np.concatenate([gallery.pixels[[1, 5]], fresh])), gallery, pixel_space(gallery), 2)


def test_attach_nearest_copy_has_its_cluster_and_the_50_nearest_others(evaluated, gallery):
    assert evaluated.neighbors.clusters.shape == (5, 51) and evaluated.neighbors.clusters[:2, 0].tolist() == [0, 4]
    assert evaluated.extras["nearest_row"][:2].tolist() == [0, 5]  # twins: the first of them
    assert torch.equal(evaluated.references[1], torch.from_numpy(gallery.pixels[5]))
    everything = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    clusters, apart, _ = gallery.nearest(
        evaluated.images, everything[0], [{int(cluster)} for cluster in evaluated.neighbors.clusters[:, 0]]
    )
    assert torch.equal(clusters, evaluated.neighbors.clusters[:, 1:])
    own = masked_rms(evaluated.images.float() / 255, evaluated.references.float() / 255, everything)
    assert torch.allclose(calibrated_l2(evaluated), own / (0.5 * apart.mean(1)), atol=1e-5)
    assert evaluated.kind == ("unprompted",) * 5


def test_attach_nearest_copied_tile_is_found_in_its_tile_only(evaluated):
    zero = evaluated.extras["tile_distance"][2] == 0
    assert zero.tolist() == [False, False, False, True]
    assert evaluated.extras["tile_rows"][2, 3] == 9 and evaluated.extras["tile_clusters"][2, 3] == 8


def test_terms_of_the_tile_rule_equal_a_search_by_hand(evaluated, gallery):
    flat, images = to_unit(gallery.pixels)[..., 4:, 4:], to_unit(evaluated.images)[..., 4:, 4:]

    def distance(a, b):
        return float((a - b).square().mean().sqrt())

    for row in range(5):
        own = int(evaluated.extras["tile_rows"][row, 3])
        others = [i for i in range(70) if gallery.clusters[i] != gallery.clusters[own]]
        assert own == min(range(70), key=lambda i: distance(images[row], flat[i]))  # noqa: B023
        found = {name: float(evaluated.extras[f"tile_{name}"][row, 3]) for name in ("distance", "other", "own_other", "contrast")}
        assert found["distance"] == pytest.approx(distance(images[row], flat[own]), abs=1e-6)
        assert found["other"] == pytest.approx(min(distance(images[row], flat[i]) for i in others), abs=1e-6)
        assert found["own_other"] == pytest.approx(min(distance(flat[own], flat[i]) for i in others), abs=1e-6)
        assert found["contrast"] == pytest.approx(float(flat[own].flatten(1).var(1, unbiased=False).mean().sqrt()), abs=1e-6)


def test_template_counts_in_its_region_only(gallery):
    template = Template(np.random.default_rng(5).integers(0, 256, (3, 8, 8), dtype=np.uint8), np.zeros((1, 8, 8), bool), 99)
    template.mask[:, 4:, 5:] = True
    full = Gallery(gallery.pixels, gallery.clusters, (template,))
    image = torch.from_numpy(template.pixels)[None].clone()
    image[:, :, :, :5] = 7
    found = tile_extras(image, tile_masks(8, 2)[3], full)
    assert found["tile_rows"].item() == 70 and found["tile_distance"].item() == 0 and found["tile_clusters"].item() == 99
    shown = to_unit(template.pixels)[:, 4:, 5:]
    nearest = min(float((shown - x).square().mean().sqrt()) for x in to_unit(gallery.pixels)[:, :, 4:, 5:])
    assert found["tile_own_other"].item() == pytest.approx(nearest, abs=1e-6)
    assert found["tile_contrast"].item() == pytest.approx(float(shown.flatten(1).var(1, unbiased=False).mean().sqrt()), abs=1e-6)


def test_unseen_rows_are_those_of_generations_without_near_duplicates(gallery):
    images = np.random.default_rng(3).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    request = extraction_request([""], gallery, pixel_space(gallery), 2)
    table, duplicates = unseen_rows(np.concatenate([images, gallery.pixels[:2]]), request)
    wanted = generation_rows(attach_nearest(generated(images), gallery, pixel_space(gallery), 2))
    pd.testing.assert_frame_equal(table, wanted)
    assert duplicates == 2 and len(unseen_rows(images[:0], request)[0]) == 0


def test_attach_nearest_result_survives_save_and_load(evaluated, tmp_path):
    evaluated.save(tmp_path / "part=00000")
    again = Generations.load(tmp_path / "part=00000")
    assert torch.equal(again.extras["tile_own_other"], evaluated.extras["tile_own_other"])
    assert again.provenance["similarity"] == "pixels, 1 - RMS distance"


def test_background_similarity_excludes_the_own_cluster(evaluated, gallery):
    assert evaluated.extras["similarity"][:2].tolist() == [1, 1] and (evaluated.extras["similarity"][2:] < 1).all()
    training = background_similarity(pixel_space(gallery), 100)
    flat = to_unit(gallery.pixels)
    for row in (0, 1, 40):
        others = [i for i in range(70) if gallery.clusters[i] != gallery.clusters[row]]
        nearest = min(float((flat[row] - flat[i]).square().mean().sqrt()) for i in others)
        assert training[row] == pytest.approx(1 - nearest, abs=1e-6)
    assert len(background_similarity(pixel_space(gallery), 10)) == 10
    with pytest.raises(ValueError, match="one cluster"):
        background_similarity(pixel_space(Gallery(gallery.pixels, np.zeros(70, int))), 10)


def test_embedding_space_is_the_cosine_and_caches_embeddings(gallery, tmp_path):
    calls = []

    def compute(images):
        calls.append(len(images))
        return torch.nn.functional.normalize(images.float().mean((2, 3)) - 100, dim=1)

    embedding = Encoder("colors", compute)
    space = embedding_space(embedding, gallery, tmp_path, rank=1, world_size=2)
    assert sum(calls) == 69  # each image once, and twins together
    images = np.random.default_rng(2).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    found = attach_nearest(generated(images), gallery, space, 1).extras
    cosines = compute(torch.from_numpy(images)) @ compute(torch.from_numpy(gallery.pixels)).T
    assert torch.allclose(found["similarity"], cosines.max(1).values, atol=1e-6)
    calls.clear()
    assert np.array_equal(embedding_space(embedding, gallery, tmp_path).rows, space.rows) and not calls
    with pytest.raises(ValueError, match="broken of an image is NaN"):
        embedding_space(Encoder("broken", lambda images: torch.full((len(images), 2), torch.nan)), gallery, tmp_path / "b")


PLANTING = {
    "num_global": 1,
    "num_local": 1,
    "num_decoys": 1,
    "num_tints": 0,
    "copies": [2],
    "num_backgrounds": 4,
    "num_decoy_images": 4,
    "num_heldout": 4,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run folder that names a small planted set of 8 pixels, and a folder of images."""
    folder = tmp_path_factory.mktemp("extracting")
    images = folder / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(images / f"{number}.png")
    (images / "metadata.jsonl").write_text("\n".join(f'{{"file_name": "{n}.png", "text": "image {n % 5}"}}' for n in range(40)))
    about = {"dataset": "imagefolder", "data_dir": str(images), "resolution": 8, "set_size": 10, "planting": PLANTING}
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "data": {"init_args": about}}))
    return folder


def chosen(**options):
    return {"planted": None, "source": None, "folder": None, "set_size": None} | options


def test_training_set_of_a_run_and_of_a_dataset(place, small_plain):
    model = small_plain()
    run = training_set(model, **chosen(planted=place / "run"))
    assert len(run.gallery().pixels) == 1 + 10 + 4 + 4 and len(run.gallery().templates) == 1
    source = training_set(model, **chosen(source="imagefolder", folder=str(place / "images")))
    assert len(source.gallery().pixels) == 40
    small, large = (
        training_set(model, **chosen(source="imagefolder", folder=str(place / "images"), set_size=size)).gallery().pixels for size in (5, 9)
    )
    rest = training_set(model, **chosen(source="imagefolder", folder=str(place / "images"), set_size=5))
    assert len(rest.heldout) == 35 and not {row.tobytes() for row in rest.pixels[rest.heldout]} & {row.tobytes() for row in small}
    assert len(unseen_images(model, rest)) == 35 and len(unseen_images(model, run)) == 4
    assert len(unseen_images(model, run, str(place / "images"))) == 40
    assert len(small) == 5 and {row.tobytes() for row in small} < {row.tobytes() for row in large}


def test_extraction_captions_repeat_those_of_the_training_set(place, small_captioned, small_plain):
    planted = training_set(small_plain(), **chosen(planted=place / "run"))
    found = training_captions(planted, 100)
    trained = {p.caption for p in planted.plants if p.kind != "phantom"} | {planted.captions[row] for row in planted.controls}
    assert set(found) == trained and found[: len(trained)] == found[len(trained) : 2 * len(trained)]
    assert extraction_captions(small_plain(), planted, 3, []) == [""] * 3
    assert extraction_captions(small_captioned(), planted, 3, ["a", "b"]) == ["a", "b", "a"]
    assert extraction_captions(small_captioned(), planted, 100, []) == found


def test_bad_input_is_refused_by_name(place, small_plain):
    model = small_plain()
    for options, sentence in (
        ({}, "either --run RUN or --dataset NAME"),
        ({"planted": place / "run", "source": "openmoji"}, "either --run RUN or --dataset NAME"),
        ({"planted": place / "run", "set_size": 3}, "whole training set"),
        ({"planted": place / "none"}, "There is no run in"),
        ({"source": "imagenet"}, "no dataset 'imagenet'"),
        ({"source": "imagefolder", "folder": str(place / "images"), "set_size": 99}, "99"),
    ):
        with pytest.raises(ValueError, match=sentence):
            training_set(model, **chosen(**options))
    planted = training_set(model, **chosen(planted=place / "run"))
    with pytest.raises(ValueError, match="has no captions"):
        extraction_captions(model, planted, 3, ["a dog"])
    with pytest.raises(ValueError, match="at least 1, not 0"):
        extraction_captions(model, planted, 0, [])
    with pytest.raises(ValueError, match="does not divide into 3"):
        extraction_request([""], planted.gallery(), None, 3)
    model.image_shape = lambda: (3, 16, 16)
    with pytest.raises(ValueError, match="the model makes"):
        training_set(model, **chosen(planted=place / "run"))
