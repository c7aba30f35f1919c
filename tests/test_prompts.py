import numpy as np
import pytest
from scipy.ndimage import binary_opening

from ruac_jax.prompts import fixed_clicks


def reference_clicks(mask, count=3):
    """The definition, pixel by pixel, with squared integers only."""
    height, width = mask.shape
    inside = [(y, x) for y in range(height) for x in range(width) if mask[y, x]]
    outside = [(y, x) for y in range(-1, height + 1) for x in range(-1, width + 1)]
    outside = [p for p in outside if p not in set(inside)]
    depth = {(y, x): min((y - v) ** 2 + (x - u) ** 2 for v, u in outside) for y, x in inside}
    chosen = [max(inside, key=lambda p: depth[p])]  # max keeps the first of equals
    separation = max(144.0, depth[chosen[0]] / 4)
    while len(chosen) < count:
        if all(p in chosen for p in inside):
            chosen.append(chosen[-1])
            continue

        def far(p, least):
            return all((p[0] - v) ** 2 + (p[1] - u) ** 2 >= least for v, u in chosen)

        while not any(far(p, separation) for p in inside):
            separation /= 4
        chosen.append(max((p for p in inside if far(p, separation)), key=lambda p: depth[p]))
    return np.array([(x, y) for y, x in chosen], np.float32)


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_definition_on_random_blobs(seed):
    rng = np.random.default_rng(seed)
    mask = binary_opening(rng.random((30, 37)) < 0.75)
    mask[rng.integers(30), rng.integers(37)] = True
    points, labels = fixed_clicks(mask)
    np.testing.assert_array_equal(points, reference_clicks(mask))
    np.testing.assert_array_equal(labels, [1, 1, 1])
    assert points.dtype == np.float32
    assert labels.dtype == np.int32


def test_bar_by_hand():
    mask = np.zeros((9, 60), bool)
    mask[2:7, 5:55] = True  # 5 rows high: depth 3 along row 4 from x = 7 to x = 52
    points, _ = fixed_clicks(mask)
    np.testing.assert_array_equal(points, [[7, 4], [19, 4], [31, 4]])


def test_image_border_is_outside():
    points, _ = fixed_clicks(np.ones((21, 21), bool), count=1)
    np.testing.assert_array_equal(points, [[10, 10]])


def test_large_object_separates_by_half_its_depth():
    mask = np.ones((101, 101), bool)
    points, _ = fixed_clicks(mask)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)[np.triu_indices(3, 1)]
    assert distances.min() >= 51 / 2


def test_objects_smaller_than_the_number_of_clicks():
    mask = np.zeros((5, 6), bool)
    mask[3, 4] = True
    np.testing.assert_array_equal(fixed_clicks(mask)[0], [[4, 3]] * 3)
    mask[3, 5] = True
    np.testing.assert_array_equal(fixed_clicks(mask)[0], [[4, 3], [5, 3], [5, 3]])


def test_separated_parts_and_cropping_do_not_matter(rng):
    mask = np.zeros((40, 50), bool)
    mask[10:20, 10:30] = rng.random((10, 20)) < 0.8
    mask[25:28, 35:38] = True
    shifted = np.pad(mask, ((7, 3), (11, 2)))
    np.testing.assert_array_equal(fixed_clicks(mask)[0] + [[11, 7]], fixed_clicks(shifted)[0])


def test_empty_mask_is_an_error():
    with pytest.raises(ValueError, match="without a pixel"):
        fixed_clicks(np.zeros((4, 4), bool))
