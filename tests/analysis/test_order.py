import numpy as np
import pytest

from afterglow.analysis.order import local_over_global


def emergence(**intervals: list[tuple[float, float | None]]) -> dict:
    return {"kinds": {kind: {"intervals": {str(n): list(pair) for n, pair in enumerate(pairs)}} for kind, pairs in intervals.items()}}


def test_factor_of_narrow_intervals_is_the_ratio_of_geometric_means() -> None:
    steps = np.array([100.0, 150, 220, 330])
    found = local_over_global(
        emergence(**{"global": [(s * 0.99, s * 1.01) for s in steps], "local": [(2 * s * 0.99, 2 * s * 1.01) for s in steps]})
    )
    assert found is not None and found.value == pytest.approx(2, rel=1e-3) and found.low < 2 < found.high


def test_equal_kinds_are_not_distinguishable() -> None:
    pairs: list[tuple[float, float | None]] = [(50, 100), (100, 150), (100, 150), (150, 225), (225, None)]
    found = local_over_global(emergence(**{"global": pairs, "local": pairs}))
    assert found is not None and found.value == pytest.approx(1, abs=1e-4) and found.low < 1 < found.high


def test_censored_local_plants_raise_the_factor() -> None:
    early: list[tuple[float, float | None]] = [(50, 100)] * 6
    some = local_over_global(emergence(**{"global": early, "local": [(100, 150)] * 3 + [(200, None)] * 3}))
    none = local_over_global(emergence(**{"global": early, "local": [(100, 150)] * 6}))
    assert some is not None and none is not None and some.value > none.value > 1


@pytest.mark.parametrize("local", [[], [(10, None)]])
def test_factor_without_an_emerged_local_plant_is_none(local: list) -> None:
    assert local_over_global(emergence(**{"global": [(1, 2)], "local": local})) is None
