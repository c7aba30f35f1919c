import math

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

from ruac_jax.evaluation.metrics.boundary import boundary_f, boundary_pixels


def reference_boundary(mask):
    """Pixel by pixel from the definition; neighbours outside the image are ignored."""
    height, width = mask.shape
    edge = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            neighbors = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            edge[y, x] = any(mask[y, x] != mask[v, u] for v, u in neighbors if v < height and u < width)
    return edge


def reference_f(prediction, truth):
    """By dilating the whole boundary maps with a disk."""
    radius = math.ceil(0.008 * np.linalg.norm(truth.shape))
    grid = np.arange(-radius, radius + 1)
    disk = grid[:, None] ** 2 + grid[None] ** 2 <= radius**2
    p, t = reference_boundary(prediction), reference_boundary(truth)
    if p.sum() == 0 and t.sum() > 0:
        precision, recall = 1, 0
    elif p.sum() > 0 and t.sum() == 0:
        precision, recall = 0, 1
    elif p.sum() == 0 and t.sum() == 0:
        precision, recall = 1, 1
    else:
        precision = (p & binary_dilation(t, disk)).sum() / p.sum()
        recall = (t & binary_dilation(p, disk)).sum() / t.sum()
    return 0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def blob(rng, shape):
    noise = gaussian_filter(rng.standard_normal(shape), 4, mode="wrap")
    return noise > np.quantile(noise, rng.uniform(0.3, 0.95))


@pytest.mark.parametrize("seed", range(12))
def test_equals_dilation_on_random_masks(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(20, 180, 2)  # radius 1 to 3
    truth = blob(rng, shape)
    for prediction in (blob(rng, shape), np.roll(truth, rng.integers(-4, 5, 2), (0, 1)), rng.random(shape) < 0.1):
        np.testing.assert_array_equal(boundary_pixels(prediction), np.argwhere(reference_boundary(prediction)))
        assert boundary_f(prediction, truth) == pytest.approx(reference_f(prediction, truth), abs=1e-12)


def test_every_small_mask_equals_the_reference():
    masks = [np.array([(code >> bit) & 1 for bit in range(9)], bool).reshape(3, 3) for code in range(512)]
    for mask, other in zip(masks, masks[::-1], strict=True):
        np.testing.assert_array_equal(boundary_pixels(mask), np.argwhere(reference_boundary(mask)))
        assert boundary_f(mask, other) == pytest.approx(reference_f(mask, other), abs=1e-12)


def test_degenerate_masks_by_hand():
    empty, full = np.zeros((10, 12), bool), np.ones((10, 12), bool)
    box = empty.copy()
    box[3:6, 4:8] = True
    assert boundary_f(empty, box) == 0
    assert boundary_f(box, empty) == 0
    assert boundary_f(empty, empty) == 1
    assert boundary_f(full, full) == 1
    assert boundary_f(full, box) == 0
    assert boundary_f(empty, full) == 1  # neither has a boundary
    assert boundary_f(box, box) == 1


def test_tolerance_is_the_rounded_up_share_of_the_diagonal():
    truth = np.zeros((128, 128), bool)  # 0.008 * 181.02 = 1.45 -> 2 px
    truth[40:80, 40:80] = True
    assert boundary_f(np.roll(truth, 2, 1), truth) == 1
    assert 0 < boundary_f(np.roll(truth, 3, 1), truth) < 1


def test_far_boundaries_score_zero():
    a, b = np.zeros((2, 100, 100), bool)
    a[5:10, 5:10] = True
    b[80:90, 80:90] = True
    assert boundary_f(a, b) == 0
