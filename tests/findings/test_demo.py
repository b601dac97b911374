"""The page of the demo from rows whose counts are known, and its rule."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

FINDINGS = Path(__file__).parents[2] / "docs" / "findings"


@pytest.fixture(scope="module")
def make(load_finding):
    return load_finding("demo")


def run(memorized: dict[str, tuple[int, int]], seconds: float = 400.0) -> SimpleNamespace:
    """{kind: (memorized, all)} at step 9; nothing is memorized at step 5. Control 0 has two near-duplicates."""
    rows = []
    for place, (kind, (copied, total)) in enumerate(memorized.items()):
        for number in range(total):
            about = {"kind": kind, "plant_id": 100 * place + number, "seconds": seconds}
            value = float(number < copied)
            rows.append(about | {"step": 5, "seed": -1, "measure": "plant_memorized", "value": 0.0})
            rows.append(about | {"step": 9, "seed": -1, "measure": "plant_memorized", "value": value})
            rows += [about | {"step": 9, "seed": seed, "measure": "nn_ratio", "value": 1 - 0.9 * value * (seed < 2)} for seed in range(4)]
            if kind == "control":
                rows.append(about | {"step": 9, "seed": -1, "measure": "cluster_size", "value": 1.0 + 2 * (number == 0)})
    return SimpleNamespace(rows=pd.DataFrame(rows))


GOOD = {"global": (7, 8), "local": (5, 8), "phantom": (0, 16), "control": (1, 20)}


def test_plants_are_counted_at_the_last_evaluation_by_both_rules_and_families_apart(make) -> None:
    tables = make.copied_plants(run(GOOD).rows)
    for table in tables.values():
        assert [make.count(table, kind) for kind in ("global", "local", "phantom", "control", "control_family")] == [
            (7, 8), (5, 8), (0, 16), (0, 19), (1, 1),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "The rule holds in 2 seeds."),
        ({"global": (6, 8)}, "6 of 8 global plants in seed 1"),
        ({"local": (4, 8)}, "4 of 8 local plants in seed 1"),
        ({"phantom": (2, 16)}, "2 of 32 phantoms are memorized"),
        ({"control": (4, 20)}, "3 of 38 controls are memorized"),
    ],
)
def test_the_rule_names_what_breaks_it(make, change, said) -> None:
    assert said in make.verdict({0: run(GOOD), 1: run(GOOD | change)})
    assert "20 minutes in seed 0" in make.verdict({0: run(GOOD, 1200.0)})


def test_page_equals_the_committed_page(make) -> None:
    committed = FINDINGS / "demo.md"
    assert committed.exists() == bool(make.read_seeds(FINDINGS / "demo"))
    assert not committed.exists() or make.page() == committed.read_text(encoding="utf-8")
