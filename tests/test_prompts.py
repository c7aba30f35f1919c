import numpy as np
import pytest
from scipy.ndimage import binary_opening, gaussian_filter

from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.prompts import corrective_click, fixed_clicks, fixed_points


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


def test_fixed_points_of_many_objects_and_of_none(rng):
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 2:9, 3:20], masks[1, 10:18, 1:5], masks[2, 0, 29] = True, True, True
    expected = [fixed_clicks(mask)[0] for mask in masks]
    np.testing.assert_array_equal(fixed_points(masks), expected)
    np.testing.assert_array_equal(fixed_points(RunLengthMasks.encode((20, 30), masks)), expected)
    assert fixed_points(RunLengthMasks((20, 30), [])).shape == (0, 3, 2)


def brute_force_correction(truth, prediction):
    """Depth of each wrong pixel by all distances to pixels outside its error region, the frame's border included."""
    best = (0.0, None, None)
    for label, error in ((0, prediction & ~truth), (1, truth & ~prediction)):
        outside = np.argwhere(~np.pad(error, 1)) - 1
        for y, x in np.argwhere(error):
            depth = ((outside - (y, x)) ** 2).sum(axis=1).min()
            if depth > best[0]:
                best = (depth, (x, y), label)
    return best[1:]


@pytest.mark.parametrize("seed", range(20))
def test_corrective_clicks_equal_brute_force(seed):
    rng = np.random.default_rng(seed)
    blobs = [gaussian_filter(rng.standard_normal((17, 23)), 2) > 0 for _ in range(2)]
    point, label = corrective_click(*blobs)
    expected_point, expected_label = brute_force_correction(*blobs)
    assert (tuple(point), label) == (expected_point, expected_label)


def test_of_equally_deep_errors_the_superfluous_one_is_clicked():
    truth, prediction = np.zeros((9, 20), bool), np.zeros((9, 20), bool)
    truth[2:7, 1:6] = True
    prediction[2:7, 12:17] = True
    point, label = corrective_click(truth, prediction)
    assert (tuple(point), label) == ((14, 4), 0)


def test_a_perfect_prediction_needs_no_click():
    mask = np.eye(5, dtype=bool)
    assert corrective_click(mask, mask) is None
    assert corrective_click(np.zeros((4, 4), bool), np.zeros((4, 4), bool)) is None
