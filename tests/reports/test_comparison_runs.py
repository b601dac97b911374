from afterglow.reports.comparison_runs import Comparison


def test_runs_are_grouped_by_what_differs(widths: Comparison) -> None:
    assert widths.groups == {"width 16": ["w16-0", "w16-1"], "width 64": ["w64-0", "w64-1"]}
