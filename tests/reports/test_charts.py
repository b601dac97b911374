import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from afterglow.functional.statistics import wilson_interval
from afterglow.kinds import KINDS
from afterglow.reports import charts
from afterglow.reports.run import read_run
from afterglow.reports.timeline import shown_steps

MakeRun = Callable[..., Path]


def test_memorized_chart_holds_every_fraction_with_its_wilson_interval(run_folder: Path) -> None:
    chart = charts.memorized_chart(read_run(run_folder))
    assert chart is not None
    rows = {(row["name"], row["step"]): row for row in chart["data"]["values"]}
    assert rows["global", 20]["memorized"] == 1 and rows["local", 20]["memorized"] == 0
    assert (rows["phantom", 40]["low"], rows["phantom", 40]["high"]) == wilson_interval(0, 4)
    scale = chart["layer"][0]["encoding"]["color"]["scale"]
    assert dict(zip(scale["domain"], scale["range"], strict=True))["global (2)"] == KINDS["global"].color


def test_loss_chart_of_a_run_without_losses_is_absent(run_folder: Path) -> None:
    run = read_run(run_folder)
    assert {row["images"] for row in charts.loss_chart(run)["data"]["values"]} == {"training images", "held-out images"}  # type: ignore[index]
    assert charts.loss_chart(replace(run, rows=run.rows[run.rows["measure"] != "denoising_loss"])) is None


def test_emergence_chart_shows_the_interval_of_each_plant(run_folder: Path) -> None:
    chart = charts.emergence_chart(read_run(run_folder))
    assert chart is not None
    assert {(row["kind"], row["low"], row["high"], row["open"]) for row in chart["data"]["values"]} == {
        ("global", 10, 20, False),
        ("local", 20, 30, False),
    }


def test_emergence_chart_of_plants_that_have_not_emerged_is_open(make_run: MakeRun) -> None:
    chart = charts.emergence_chart(read_run(make_run(finished=False)))
    assert chart is not None and all(row["open"] for row in chart["data"]["values"])


def test_end_token_chart_counts_every_pixel_once(run_folder: Path) -> None:
    run = read_run(run_folder)
    chart = charts.end_token_chart(run, shown_steps(run))
    assert chart is not None
    shares: dict[tuple[int, str], float] = {}
    for row in chart["data"]["values"]:
        shares[row["step"], row["kind"]] = shares.get((row["step"], row["kind"]), 0) + row["share"]
    assert {kind for _, kind in shares} == {"global", "local", "phantom", "decoy", "tint"}
    assert all(share == pytest.approx(1, abs=1e-3) for share in shares.values())


def test_end_token_chart_of_a_run_without_end_token_maps_is_absent(make_run: MakeRun) -> None:
    run = read_run(make_run(text=False))
    assert charts.end_token_chart(run, shown_steps(run)) is None


def test_charts_are_valid_vega_lite(run_folder: Path) -> None:
    vl_convert = pytest.importorskip("vl_convert")
    run = read_run(run_folder)
    specs = [
        charts.memorized_chart(run),
        charts.loss_chart(run),
        charts.emergence_chart(run),
        charts.end_token_chart(run, shown_steps(run)),
    ]
    for spec in specs:
        assert spec is not None
        fixed = {**spec, "width": 300, "autosize": "pad"}
        assert "<svg" in vl_convert.vegalite_to_svg(json.dumps(fixed), vl_version=charts.VEGA_LITE)


def test_vega_script_cannot_close_its_element(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERGLOW_CACHE", str(tmp_path))
    script = charts.vega_script()
    assert "vegaEmbed" in script and "</script" not in script and len(list(tmp_path.iterdir())) == 1
    assert charts.vega_script() == script
