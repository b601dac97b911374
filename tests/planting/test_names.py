from afterglow.planting.names import COLOR_NAMES, NAMES


def test_names_are_many_different_single_words() -> None:
    assert len(NAMES) == len(set(NAMES)) >= 150  # 32 plants, their phantoms, 32 decoys and 32 tints are 128
    assert all(name.isascii() and name.isalpha() and name.islower() for name in NAMES)


def test_no_name_is_a_color() -> None:
    assert not set(NAMES) & set(COLOR_NAMES)


def test_colors_differ_from_each_other() -> None:
    values = list(COLOR_NAMES.values())
    assert all(len(value) == 3 and min(value) >= 0 and max(value) <= 255 for value in values)
    apart = [max(abs(a - b) for a, b in zip(one, other, strict=True)) for i, one in enumerate(values) for other in values[:i]]
    assert min(apart) >= 50
