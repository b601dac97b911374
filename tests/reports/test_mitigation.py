import pandas as pd
import pytest
import torch
from PIL import Image

from afterglow.analysis.mitigation_effect import mitigation_table
from afterglow.generations import Generations
from afterglow.reports.mitigation import first_generations, mitigation_gallery, mitigation_text, tradeoff_figure


@pytest.fixture(scope="module")
def table():
    rows = []
    for mitigation, strength, copied in (("none", 0.0, 1.0), ("stp", 500.0, 0.0), ("stp", 800.0, 1.0)):
        about = {"mitigation": mitigation, "strength": strength}
        for kind in ("global", "local"):
            rows += [about | {"kind": kind, "measure": "memorized", "plant_id": n, "value": copied} for n in range(4)]
        rows.append(about | {"kind": "all", "measure": "cost.evaluations", "plant_id": 0, "value": 12.0})
        rows.append(about | {"kind": "heldout", "measure": "frechet.pixels4", "plant_id": -1, "value": 2.5 - copied})
    return mitigation_table(pd.DataFrame(rows))


def test_mitigation_text_has_a_row_per_strength_and_no_empty_columns(table):
    text = mitigation_text(table)
    lines = text.splitlines()
    assert len(lines) == 5 and lines[2].startswith("| none ") and lines[3].startswith("| stp 500 ") and "memorized global (4)" in lines[0]
    assert "frechet.pixels4" in lines[0] and "SSCD" not in text and "0.00 [0.00, 0.49]" in lines[3] and "| 12 " in lines[3]


def test_tradeoff_figure_draws_curves_over_strengths(table, tmp_path):
    files = [tmp_path / f"t.{ending}" for ending in ("png", "svg")]
    assert tradeoff_figure(table, files) and Image.open(files[0]).width > 900
    drawn = files[1].read_text()
    assert all(word in drawn for word in ("stp", "none", "heldout frechet.pixels4", "global", "local"))
    costs = table[table["measure"].isin(["memorized", "cost.evaluations"])]
    assert tradeoff_figure(costs, files) and "all cost.evaluations" in files[1].read_text()
    assert not tradeoff_figure(table[table["measure"] != "memorized"], files)


def test_mitigation_gallery_orders_kinds(tmp_path):
    mask = torch.ones(4, 1, 8, 8, dtype=torch.bool)
    mask[2:, :, :, 4:] = False
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    part = Generations(
        images, ("a",) * 4, torch.arange(4), torch.tensor([1]), kind=("heldout",) * 2 + ("local",) * 2,
        plant_id=torch.tensor([5, 5, 1, 2]), references=images, eval_mask=mask,
    )  # fmt: skip
    firsts = first_generations([part, part])
    assert list(firsts) == [5, 1, 2] and torch.equal(firsts[5].images[0], images[0])
    mitigation_gallery({"none": firsts, "memattn 1.25": firsts}, [tmp_path / "g.png", tmp_path / "g.svg"])
    drawn = (tmp_path / "g.svg").read_text()
    assert "1.25" in drawn and drawn.index("local") < drawn.index("heldout")
