from collections.abc import Callable
from pathlib import Path

from afterglow.functional.statistics import wilson_interval
from afterglow.reports.fractions import memorized_shares, phantoms_by_shape
from afterglow.reports.run import read_run


def test_shares_are_what_was_logged(run_folder: Path) -> None:
    run = read_run(run_folder)
    for kind, shares in memorized_shares(run).items():
        assert [share.value for share in shares] == [run.numbers[share.step][f"memorized/{kind}"] for share in shares]
        assert [share.interval for share in shares] == [wilson_interval(share.memorized, share.count) for share in shares]


def test_a_kind_that_only_the_last_probe_looks_at_has_one_share(run_folder: Path) -> None:
    assert [(share.step, share.count) for share in memorized_shares(read_run(run_folder))["control"]] == [(40, 3)]


def test_phantoms_are_told_apart_by_shape(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    assert phantoms_by_shape(run) == "twins of global plants: 0 of 2; twins of local plants: 0 of 2"
