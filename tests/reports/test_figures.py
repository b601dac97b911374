import re

from matplotlib import rc_context

from afterglow.reports.figures import INK, PAGE_STYLE, new_figure, plain_log_ticks, to_svg


def drawn(name: str) -> str:
    with rc_context(PAGE_STYLE):
        figure = new_figure(3, 2)
        axes = figure.add_subplot()
        axes.plot([1, 10, 100], [1, 2, 3])
        axes.set_xscale("log")
        plain_log_ticks(axes.xaxis)
        return to_svg(figure, name)


def test_inline_svgs_have_unique_ids_and_the_page_color() -> None:
    figures = [drawn("first"), drawn("second")]
    names = [set(re.findall(r'id="([^"]+)"', figure)) for figure in figures]
    assert sum(map(len, names)) == len(set().union(*names))
    assert all(figure.startswith("<svg") and INK not in figure and "currentColor" in figure for figure in figures)
    for figure, known in zip(figures, names, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', figure)) <= known


def test_plain_log_ticks_are_written_in_full() -> None:
    assert re.findall(r">(\d+)</text>", drawn("ticks"))[:3] == ["1", "2", "5"]
