import numpy as np
import pytest

from afterglow.loggers.images import COLORS, masked_grid, tile, to_pil_image, with_contours


def test_tile_keeps_every_cell_and_fills_what_is_left():
    cells = np.arange(5 * 3 * 4 * 4).reshape(5, 3, 4, 4).astype(np.uint8)
    grid = tile(cells, columns=2, fill=9)
    assert grid.shape == (3, 14, 9)
    for number, cell in enumerate(cells):
        y, x = 5 * (number // 2), 5 * (number % 2)
        assert np.array_equal(grid[:, y : y + 4, x : x + 4], cell)
    assert (grid[:, 4] == 9).all() and (grid[:, 10:, 5:] == 9).all()


def test_to_pil_image_refuses_floats():
    with pytest.raises(AssertionError):
        to_pil_image(np.zeros((3, 4, 4)))


@pytest.mark.parametrize("channels", [1, 3])
def test_masked_grid_has_two_layers_with_own_ids_and_shared_labels(channels):
    masks = {"planted": np.zeros((3, 16, 16), dtype=bool), "predicted": np.ones((3, 16, 16), dtype=bool)}
    masks["planted"][:, :8] = True
    image = masked_grid(np.full((3, channels, 16, 16), 77, dtype=np.uint8), masks, "a | b | c", columns=3)
    assert image.image.size == (50 * 4, 16 * 4) and set(image._masks) == {"planted", "predicted"}
    assert [set(np.unique(image._masks[name]._val["mask_data"])) for name in masks] == [{0, 1}, {0, 2}]
    assert {str(image._masks[name]._val["class_labels"]) for name in masks} == {"{1: 'planted', 2: 'predicted'}"}


def test_with_contours_draws_the_planted_edge_inside_and_the_predicted_edge_outside():
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:6, 2:6] = True
    drawn = with_contours(np.zeros((1, 8, 8), dtype=np.uint8), {"planted": mask, "predicted": mask}).transpose(1, 2, 0)
    assert (drawn[2, 2:6] == COLORS["planted"]).all() and (drawn[1, 2:6] == COLORS["predicted"]).all()
    assert (drawn[3:5, 3:5] == 0).all()
