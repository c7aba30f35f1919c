import numpy as np
import pytest

from ruac_jax.data.readers.polygons import clean_rings, fill_rings

SIZE = (12, 20)  # height, width


def inside(x0, y0, x1, y1):
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def rectangle(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


@pytest.mark.parametrize("corners", [(3, 2, 9, 7), (0, 0, 20, 12), (5, 5, 6, 6)])
def test_a_rectangle_covers_the_pixels_between_its_corners(corners):
    np.testing.assert_array_equal(fill_rings(clean_rings([rectangle(*corners)]), SIZE), inside(*corners))


def test_what_lies_outside_the_image_is_clipped():
    mask = fill_rings(clean_rings([rectangle(-8, -5, 4, 3), rectangle(15, 8, 40, 30)]), SIZE)
    np.testing.assert_array_equal(mask, inside(0, 0, 4, 3) | inside(15, 8, 20, 12))


def test_rings_unite_and_an_inner_ring_is_no_hole():
    mask = fill_rings(clean_rings([rectangle(2, 2, 12, 10), rectangle(4, 4, 6, 6)]), SIZE)
    np.testing.assert_array_equal(mask, inside(2, 2, 12, 10))


def test_pairs_are_read_as_flat_lists():
    flat = rectangle(3, 2, 9, 7)
    pairs = [flat[i : i + 2] for i in range(0, 8, 2)]
    (ring,) = clean_rings([pairs])
    np.testing.assert_array_equal(ring, clean_rings([flat])[0])


@pytest.mark.parametrize("ring", [[], [1, 1], [1, 1, 5, 5], [1, 1, 5, 5, 9], [1, 1, 5, 5, 9, np.nan]])
def test_degenerate_rings_are_dropped(ring):
    assert clean_rings([ring]) == []
    np.testing.assert_array_equal(
        fill_rings(clean_rings([ring, rectangle(3, 2, 9, 7)]), SIZE),
        fill_rings(clean_rings([rectangle(3, 2, 9, 7)]), SIZE),
    )


def test_no_ring_is_an_empty_mask():
    assert fill_rings([], SIZE).shape == SIZE
    assert not fill_rings([], SIZE).any()
