import time

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ruac_jax.evaluation.correction import CorrectionState, correct_mask
from ruac_jax.evaluation.metrics.region import score_objects
from tests.evaluation.metrics.merging import check_merging


def flood_fill(mask):
    """Components (8 neighbours) as lists of (row, column), in row-major order of their first pixel."""
    seen, found = set(), []
    for start in zip(*np.nonzero(mask), strict=True):
        if start in seen:
            continue
        stack, component = [start], []
        seen.add(start)
        while stack:
            y, x = stack.pop()
            component.append((y, x))
            for pixel in ((y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
                inside = 0 <= pixel[0] < mask.shape[0] and 0 <= pixel[1] < mask.shape[1]
                if inside and mask[pixel] and pixel not in seen:
                    seen.add(pixel)
                    stack.append(pixel)
        found.append(component)
    return found


def interpolated_percentile(values, share):
    """Linear between the order statistics around share * (n - 1)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def corrected_by_hand(mask, uncertainty):
    result = np.zeros_like(mask)
    components = flood_fill(mask)
    if not components:
        return result
    threshold = max(interpolated_percentile(uncertainty[mask].tolist(), 0.95), 0.3)
    largest = max(components, key=len)  # the first of equals
    for component in components:
        mean = np.mean([uncertainty[pixel] for pixel in component])
        if component is largest or mean <= threshold:
            result[tuple(np.transpose(component))] = True
    return result


@pytest.mark.parametrize("seed", range(60))
def test_equals_flood_fill(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    smooth = gaussian_filter(rng.standard_normal((height, width)), rng.uniform(0.5, 2))
    mask = smooth > np.quantile(smooth, rng.uniform(0.3, 0.9))
    # Few uncertain fragments, so that their mean can exceed the percentile of all pixels.
    uncertainty = rng.uniform(0, 0.4, mask.shape)
    for component in flood_fill(mask):
        if len(component) < 6 and rng.random() < 0.5:
            uncertainty[tuple(np.transpose(component))] = rng.uniform(0.3, 1, len(component))
    np.testing.assert_array_equal(correct_mask(mask, uncertainty), corrected_by_hand(mask, uncertainty))


def test_the_random_masks_above_are_not_all_left_alone():
    changed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mask = np.zeros((20, 20), bool)
        mask[:10] = True
        mask[15, rng.integers(0, 20)] = True
        uncertainty = np.where(np.arange(20)[:, None] > 12, rng.uniform(0.31, 1), 0.2) * np.ones(20)
        kept = correct_mask(mask, uncertainty)
        np.testing.assert_array_equal(kept, corrected_by_hand(mask, uncertainty))
        changed += not kept[15].any()
    assert changed == 20


def scene(*boxes):
    """Mask and uncertainty of boxes (top, bottom, left, right, u) on a 20 x 30 image."""
    mask, uncertainty = np.zeros((20, 30), bool), np.full((20, 30), 0.9, np.float32)
    for top, bottom, left, right, u in boxes:
        mask[top:bottom, left:right] = True
        uncertainty[top:bottom, left:right] = u
    return mask, uncertainty


def test_an_uncertain_fragment_goes_and_a_certain_one_stays():
    mask, uncertainty = scene((0, 10, 0, 10, 0.1), (15, 17, 0, 2, 0.5), (15, 17, 20, 22, 0.2))
    expected = mask.copy()
    expected[15:17, 0:2] = False  # 4 of 108 pixels, so the 95th percentile is 0.2 and the floor 0.3 decides
    np.testing.assert_array_equal(correct_mask(mask, uncertainty), expected)


def test_the_percentile_protects_where_much_is_uncertain():
    mask, uncertainty = scene((0, 10, 0, 10, 0.1), (15, 18, 0, 4, 0.5))  # 12 of 112 pixels: the percentile is 0.5
    np.testing.assert_array_equal(correct_mask(mask, uncertainty), mask)


def test_the_floor_protects_confident_masks():
    mask, uncertainty = scene((0, 10, 0, 10, 0.01), (15, 16, 0, 1, 0.29))
    np.testing.assert_array_equal(correct_mask(mask, uncertainty), mask)


DOTS = tuple((y, y + 1, x, x + 1, 0.0) for y in range(6, 20, 2) for x in range(0, 30, 2))  # certain single pixels


def test_the_largest_component_stays_however_uncertain():
    mask, uncertainty = scene((0, 2, 0, 3, 1.0), *DOTS)
    assert correct_mask(mask, uncertainty)[:2, :3].all()


def test_of_equal_components_the_first_stays():
    mask, uncertainty = scene((1, 3, 20, 21, 0.9), (2, 3, 4, 6, 0.9), *DOTS)
    expected = mask.copy()
    expected[2, 4:6] = False  # its first pixel comes a row later
    np.testing.assert_array_equal(correct_mask(mask, uncertainty), expected)


def test_diagonal_neighbours_are_one_component():
    mask, uncertainty = np.eye(12, dtype=bool), np.zeros((12, 12))
    uncertainty[11, 11] = 1  # alone it would go
    np.testing.assert_array_equal(correct_mask(mask, uncertainty), mask)


def test_a_constant_uncertainty_removes_nothing():
    mask = np.random.default_rng(0).random((60, 60)) < 0.2
    for u in (0.3, 0.7, 1 / 3):
        np.testing.assert_array_equal(correct_mask(mask, np.full(mask.shape, u, np.float32)), mask)


def test_empty_full_and_single_pixel_masks():
    uncertainty = np.ones((5, 7))
    for mask in (np.zeros((5, 7), bool), np.ones((5, 7), bool), np.eye(5, 7, dtype=bool) & (np.arange(7) == 3)):
        before = mask.copy()
        result = correct_mask(mask, uncertainty)
        np.testing.assert_array_equal(result, before)
        assert result is not mask


def test_a_large_image_takes_a_moment(rng):
    y, x = np.mgrid[:3000, :4000]
    mask = ((x // 40 + y // 40) % 3 > 0) & ((x % 40 > 4) | (y % 40 > 4))
    uncertainty = (0.2 + 0.1 * np.sin(x / 300)).astype(np.float32)
    start = time.process_time()
    correct_mask(mask, uncertainty)
    assert time.process_time() - start < 5  # about 0.5 s on one core; a loop over components would take minutes


def objects(rng, count):
    """Disks that are found well, with stray pixels that are uncertain, or certain, or right."""
    y, x = np.mgrid[:40, :40]
    truth = np.stack([(x - 18) ** 2 + (y - cy) ** 2 < 100 for cy in rng.integers(14, 24, count)])
    prediction, uncertainty = truth.copy(), np.full(truth.shape, 0.1)
    for i in range(count):
        row = int(rng.integers(36, 39))
        prediction[i, row, 2:4] = True
        uncertainty[i, row, 2:4] = rng.choice([0.2, 0.8])
        if i % 4 == 0:
            truth[i, row, 2:4] = True
    return prediction, uncertainty, truth


def test_state_counts_changes_and_scores_what_is_left(rng):
    prediction, uncertainty, truth = objects(rng, 16)
    j, f = score_objects(prediction, truth)
    state = CorrectionState.from_objects(prediction, uncertainty, truth, j, f)
    corrected = np.stack([corrected_by_hand(m, u) for m, u in zip(prediction, uncertainty, strict=True)])
    after_j, after_f = score_objects(corrected, truth)
    result = state.compute()
    assert result["corrected_j"] == pytest.approx(after_j.mean(), abs=1e-14)
    assert result["corrected_f"] == pytest.approx(after_f.mean(), abs=1e-14)
    assert result["corrected_j_and_f"] == pytest.approx((after_j.mean() + after_f.mean()) / 2, abs=1e-14)
    assert result["corrected_changed"] == (corrected != prediction).any(axis=(1, 2)).sum() > 0
    assert result["corrected_improved"] == (after_j + after_f > j + f).sum() > 0
    assert result["corrected_worsened"] == (after_j + after_f < j + f).sum() > 0


def test_any_order_of_merging_gives_the_same_bits(rng):
    prediction, uncertainty, truth = objects(rng, 21)
    data = (prediction, uncertainty, truth, *score_objects(prediction, truth))
    whole = CorrectionState.from_objects(*data)
    parts = [CorrectionState.from_objects(*(array[i : i + 3] for array in data)) for i in range(0, 21, 3)]
    assert check_merging(CorrectionState(), parts, CorrectionState.compute) == whole.compute()


def test_no_object_has_no_score():
    assert CorrectionState().compute() == {
        "corrected_j": None,
        "corrected_f": None,
        "corrected_j_and_f": None,
        "corrected_changed": 0,
        "corrected_improved": 0,
        "corrected_worsened": 0,
    }
    none = np.zeros((0, 3, 3))
    assert CorrectionState.from_objects(none > 0, none, none > 0, none[:, 0, 0], none[:, 0, 0]) == CorrectionState()
