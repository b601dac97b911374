from afterglow.kinds import CONTROL_FAMILY, COPYABLE, KINDS, NEGATIVES, NOT_MEMORIZED, PLANTED, TRAINED


def test_kinds_contain_every_group() -> None:
    assert set(PLANTED) | set(NEGATIVES) | {"heldout", "unprompted", CONTROL_FAMILY, NOT_MEMORIZED} == set(KINDS)
    assert set(TRAINED) <= set(KINDS) and set(COPYABLE) <= set(KINDS) and not set(PLANTED) & set(NEGATIVES)


def test_kinds_in_one_figure_differ_in_color_and_marker() -> None:
    for kinds in ((*PLANTED, *NEGATIVES), ("control", "heldout"), ("control", CONTROL_FAMILY, "phantom"), ("local", NOT_MEMORIZED)):
        assert len({KINDS[kind].color for kind in kinds}) == len({KINDS[kind].marker for kind in kinds}) == len(kinds)
