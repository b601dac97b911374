from afterglow.analysis.summary import NEGATIVES, POSITIVES
from afterglow.reports.kinds import KINDS, REPEATED, UNCOPIED


def test_every_kind_that_is_told_apart_is_known() -> None:
    assert set(POSITIVES) | set(NEGATIVES) | {"heldout", "unprompted"} == set(KINDS)
    assert not set(REPEATED) & set(UNCOPIED)


def test_no_figure_uses_a_color_or_marker_twice() -> None:
    for kinds in (REPEATED[:3] + UNCOPIED, ("control", "heldout")):
        assert len({KINDS[kind].color for kind in kinds}) == len({KINDS[kind].marker for kind in kinds}) == len(kinds)
