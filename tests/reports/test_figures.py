import re
from collections.abc import Callable
from pathlib import Path

from afterglow.kinds import KINDS
from afterglow.reports.figures import INK, loss_curves, memorized_curves
from afterglow.reports.run import read_run


def test_memorized_curves_use_the_colors_of_kinds(run_folder: Path) -> None:
    repeated, others = memorized_curves(read_run(run_folder)).values()
    assert KINDS["global"].color.lower() in repeated and KINDS["local"].color.lower() in repeated
    assert KINDS["phantom"].color.lower() in others and KINDS["local"].color.lower() not in others


def test_curves_name_axes_and_counts(run_folder: Path) -> None:
    figure = next(iter(memorized_curves(read_run(run_folder)).values()))
    for text in ("training step (log scale; step 0 at the left)", "memorized fraction", "global (2)"):
        assert text in figure
    assert "denoising loss (MSE of the noise)" in loss_curves(read_run(run_folder))


def test_inline_svgs_have_unique_ids_and_the_page_color(run_folder: Path) -> None:
    run = read_run(run_folder)
    figures = [*memorized_curves(run).values(), loss_curves(run)]
    names = [set(re.findall(r'id="([^"]+)"', figure)) for figure in figures]
    assert sum(map(len, names)) == len(set().union(*names))
    assert all(figure.startswith("<svg") and INK not in figure and "currentColor" in figure for figure in figures)
    for figure, known in zip(figures, names, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', figure)) <= known


def test_memorized_curves_of_a_run_without_captions(make_run: Callable[..., Path]) -> None:
    assert ["unprompted (6)" in figure for figure in memorized_curves(read_run(make_run(text=False))).values()] == [True]
