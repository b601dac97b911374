"""The page of E4 says how many seeds there are, and its factors are those of the rows."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from afterglow.analysis.summary import ALL_SEEDS

STEPS = [0, 100, 200, 300, 400, 500, 600, 700]
FINDINGS = Path(__file__).parents[2] / "docs" / "findings"


@pytest.fixture(scope="module")
def make(load_finding):
    return load_finding("unconditional")


def write_run(folder: Path, local_from: int, global_from: int = 200) -> None:
    """Two plants of each kind, completed from a step on; a phantom that is never completed."""
    rows = []
    kinds = (("global", global_from), ("global", global_from), ("local", local_from), ("local", local_from), ("phantom", 900))
    for number, (kind, first) in enumerate(kinds):
        for step in STEPS:
            about = {"step": step, "epoch": 0.0, "seconds": 0.0, "plant_id": number, "kind": kind, "caption": ""}
            for name in ("plant_memorized", "plant_memorized.outpainted"):
                rows.append(about | {"seed": ALL_SEEDS, "measure": name, "value": float(step >= first)})
            rows.append(about | {"seed": 0, "measure": "outpainted.calibrated_l2", "value": 0.5 if step >= first else 1.5})
            rows.append(about | {"seed": 0, "measure": "outpainted.nn_ratio", "value": 0.5})
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "measurements.parquet", index=False)
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"dataset": "openmoji", "resolution": 16}}}))


def test_one_seed_decides_nothing(make, tmp_path) -> None:
    write_run(tmp_path / "unconditional-openmoji-0", 300)
    page = " ".join(make.page(tmp_path).split())  # columns are aligned with spaces
    assert "openmoji, 16 pixels, 1 of 3 planned seeds (0)" in page
    assert "With 1 such seed there is no interval over seeds, and the rule decides nothing." in page
    assert "| unconditional-openmoji-0 | outpainting | local | 2 of 2" in page
    assert "| unconditional-openmoji-0 | local | 2 of 2 | 0 of 2 |" in page  # by both rules


@pytest.mark.parametrize(("later", "said"), [((300, 400, 400), "memorized later than global"), ((400, 200, 300), "not distinguishable")])
def test_a_t_interval_decides_over_three_seeds(make, tmp_path, later, said) -> None:
    for seed, step in enumerate(later):
        write_run(tmp_path / f"unconditional-openmoji-{seed}", step, 200 if said.startswith("memorized") else 300)
    page = make.page(tmp_path)
    assert "3 of 3 planned seeds (0, 1, 2)" in page and "t interval over 3 seeds" in page and said in page


def test_the_answer_for_the_front_page_counts_completed_plants_and_states_the_factor_by_assignment(make, tmp_path) -> None:
    write_run(tmp_path / "unconditional-celeba-0", 300)
    assert "outpainting completes 2 of 2 global and 2 of 2 local plants in 1 runs" in make.answer(tmp_path)
    assert re.search(r"CelebA: factor 1\.\d\d \(one seed\), which decides nothing", make.answer(tmp_path))
    for seed, step in ((1, 400), (2, 400)):
        write_run(tmp_path / f"unconditional-celeba-{seed}", step)
    write_families(tmp_path / "families-0", {0: 500, 1: 600})
    assert "outpainting completes 6 of 6 global and 6 of 6 local plants in 3 runs" in make.answer(tmp_path)
    assert "by assignment: CelebA: local plants are copied later than global ones (factor" in make.answer(tmp_path)
    assert make.answer(tmp_path).count("3 of 3 planned seeds)") == 1 and "automobiles without captions: factor 0." in make.answer(tmp_path)


def test_local_plants_are_compared_with_held_out_images_and_unseen_images_show_the_limits_false_positives(make) -> None:
    about = {"step": 7, "plant_id": 0, "seed": ALL_SEEDS, "measure": "plant_memorized.outpainted"}
    rows = [about | {"kind": "local", "value": 1.0}] * 8 + [about | {"kind": "heldout", "value": float(i < 3)} for i in range(64)]
    rows += [about | {"kind": "heldout", "measure": "unseen.calibrated_l2", "value": 0.9 if i < 24 else 1.1} for i in range(64)]
    rows += [about | {"kind": "heldout", "measure": "unseen.nn_ratio", "value": 0.9} for _ in range(64)]
    completed, unseen = make.controls_lines("x", pd.DataFrame(rows))
    assert (
        "8 of 8 local plants and 3 of 64 held-out images are completed: local plants more often (Fisher's exact test, p = 1.4e-08)"
        in completed
    )
    assert "24 of 64 (" in unseen and " by the calibrated distance and 0 of 64 (" in unseen
    few = pd.DataFrame([about | {"kind": "local", "value": float(i < 1)} for i in range(8)] + rows[8:72])
    (line,) = make.controls_lines("x", few)
    assert "1 of 8 local plants and 3 of 64 held-out images are completed: not distinguishable" in line


def write_families(folder: Path, whole_from: dict[int, int]) -> None:
    """Families whose region is copied from step 300 on, and a whole image of which is copied from a step on (900: never)."""
    rows = [
        {"step": step, "epoch": 0.0, "seconds": 0.0, "plant_id": number, "kind": "natural", "caption": "", "seed": ALL_SEEDS}
        | {"measure": name, "value": float(step >= first)}
        for number, whole in whole_from.items()
        for name, first in (("plant_memorized", 300), ("plant_memorized.whole", whole))
        for step in STEPS
    ]
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "measurements.parquet", index=False)
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"dataset": "imagefolder", "resolution": 16}}}))


def test_families_say_which_was_copied_first(make, tmp_path) -> None:
    for seed, whole in enumerate((500, 600, 500)):
        write_families(tmp_path / f"families-{seed}", {0: whole, 1: whole, 2: 300, 3: 200, 4: 900})
    page = " ".join(make.page(tmp_path).split())
    counts = make.count_text(2, 5), *[make.count_text(1, 5)] * 3, make.count_text(0, 5)
    assert f"| families-0 | 5 | {' | '.join(counts)} |" in page  # first, same, whole first, alone, neither
    factor = make.region_over_whole(make.emergence_of(make.read_runs(tmp_path)["families-0"][1]))
    assert factor is not None and factor.value < 1 and "shared regions are copied earlier than whole images" in page


def test_a_page_without_runs_is_refused(make, tmp_path) -> None:
    with pytest.raises(ValueError, match="There are no runs"):
        make.page(tmp_path)


def test_page_equals_the_committed_page(make) -> None:
    committed = FINDINGS / "unconditional.md"
    assert committed.exists() == any((FINDINGS / "unconditional").glob("*/measurements.parquet"))
    assert not committed.exists() or make.page() == committed.read_text(encoding="utf-8")
