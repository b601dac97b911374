"""Paired runs whose answer is known."""

import numpy as np
import pytest

from afterglow.reports.paired_plants import pair_plants
from afterglow.reports.runs import read_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_run):
    folder = tmp_path_factory.mktemp("runs")
    options = [{"n": n, "seed": seed, "arm": arm} for n in (100, 400, 1600) for seed in (0,) for arm in (0, 1)]
    return read_runs([write_run(folder / "-".join(map(str, one.values())), factor=1.5, **one) for one in options])


def test_pair_plants_recovers_the_delay_of_local_plants(runs):
    found = pair_plants(runs)
    assert np.exp(found.difference.value) == pytest.approx(1.5, rel=0.1) and found.difference.low > 0
    assert (found.pairs, found.templates, found.runs, found.local_first) == (12, 4, 3, 0) and found.global_first > 6
