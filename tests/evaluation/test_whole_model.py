import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import mannwhitneyu

from afterglow.datasets.openmoji import load_openmoji
from afterglow.evaluation.whole_model import MIN_SAMPLES, copying_rows, denoising_gap_rows, neighbor_rows
from afterglow.neighbors.gallery import Gallery


@pytest.fixture(scope="module")
def images():
    pixels = np.asarray(load_openmoji(16).pixels)
    return pixels[np.random.default_rng(0).permutation(len(pixels))[:160]]


def z_u(make_generations, images, sampled, kind="heldout"):
    gallery = Gallery(images[:80], np.arange(80))
    generations = make_generations(len(sampled), kind=(kind,) * len(sampled), images=torch.from_numpy(sampled))
    rows = copying_rows(generations, gallery, images[80:120])
    return dict(zip(rows["kind"], rows["value"], strict=True)) if len(rows) else {}


def test_unseen_images_are_as_far_as_the_held_out_ones_and_copies_are_nearer(make_generations, images):
    assert abs(z_u(make_generations, images, images[120:160])["heldout"]) < 2.5
    assert z_u(make_generations, images, images[:40])["heldout"] < -6  # every training image is at distance 0


def test_z_u_is_the_standardized_u_of_brute_force_distances(make_generations, images):
    sampled = np.concatenate([images[:10], images[120:140]])
    flat = images.reshape(len(images), -1) / 255
    both = [some.reshape(len(some), -1) / 255 for some in (sampled, images[80:120])]
    far = [[np.sqrt(((one - flat[:80]) ** 2).mean(1)).min() for one in some] for some in both]
    n, m = len(far[0]), len(far[1])
    expected = (mannwhitneyu(*far).statistic - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12)
    assert z_u(make_generations, images, sampled, "control")["control"] == pytest.approx(expected, abs=1e-9)


def test_few_samples_give_no_row(make_generations, images):
    assert z_u(make_generations, images, images[: MIN_SAMPLES - 1]) == {}


def test_the_gap_is_the_mean_loss_of_held_out_minus_that_of_training_images():
    losses = pd.DataFrame(
        [("heldout", "denoising_loss.t=5", 3.0), ("heldout", "denoising_loss.t=5", 5.0), ("control", "denoising_loss.t=5", 1.0)]
        + [("global", "denoising_log_ratio.inside", 9.0)],
        columns=["kind", "measure", "value"],
    )
    (row,) = denoising_gap_rows(losses).to_dict("records")
    assert row["measure"] == "denoising_gap.t=5" and row["value"] == 4 - 1
    assert not len(denoising_gap_rows(losses[losses["kind"] != "heldout"])) and not len(denoising_gap_rows(pd.DataFrame()))


def test_a_small_set_has_fewer_neighbors_than_fifty(images):
    for clusters, count in (([0, 0, 1, 2], 2), (np.arange(51), 50), (np.arange(80), 50)):
        (row,) = neighbor_rows(Gallery(images[: len(clusters)], np.array(clusters))).to_dict("records")
        assert row["value"] == count and row["plant_id"] < 0
