import jax
import numpy as np
import pytest

from ruac_jax.evaluation.metrics.patches import MAX_PATCH, PatchState, count_patches
from ruac_jax.evaluation.metrics.pixels import PixelState, count_pixels
from tests.evaluation.metrics.merging import check_merging

count = jax.jit(count_patches, static_argnums=4)
THRESHOLDS = (0.01, 0.05, 0.10)


def maps(seed, shape=(2, 13, 18)):
    rng = np.random.default_rng(seed)
    truth = rng.random(shape) < 0.4
    logits = np.where(rng.random(shape) < 0.4, -1, 1) * np.where(truth, 1, -1)
    return logits.astype(np.float32), (0.2 * rng.random(shape) ** 2).astype(np.float32), truth


def state_of(logits, uncertainty, truth, size, valid=None):
    valid = np.ones(truth.shape, bool) if valid is None else valid
    return PatchState.from_counts(size, count(logits, uncertainty, truth, valid, size))


def brute_force(logits, uncertainty, truth, size):
    """Patch by patch."""
    agree, certain, patches = np.zeros(3), np.zeros(3), 0
    for right, u in zip((logits > 0) == truth, uncertainty.astype(np.float64), strict=True):
        for top in range(0, right.shape[0], size):
            for left in range(0, right.shape[1], size):
                window = slice(top, top + size), slice(left, left + size)
                accurate = right[window].mean() > 0.5
                uncertain = u[window].mean() > np.array(THRESHOLDS)
                agree += accurate != uncertain
                certain += ~uncertain
                patches += 1
    return agree / patches, certain / patches


@pytest.mark.parametrize("size", [2, 3, 4, 7, 13, 40])
@pytest.mark.parametrize("seed", range(2))
def test_equals_brute_force(size, seed):
    data = maps(seed)
    result = state_of(*data, size).compute()
    agree, certain = brute_force(*data, size)
    name = f"{size}x{size}"
    for t, value, share in zip(THRESHOLDS, agree, certain, strict=True):
        assert result[f"pavpu_{name}_{t:.2f}"] == pytest.approx(value, abs=1e-12)
        assert result[f"certain_{name}_{t:.2f}"] == pytest.approx(share, abs=1e-12)
    assert result[f"pavpu_{name}"] == pytest.approx(agree.mean(), abs=1e-12)
    assert len(result) == 7


@pytest.mark.parametrize("seed", range(3))
def test_patches_of_one_pixel_are_pixels(seed):
    logits, uncertainty, truth = maps(seed, (3, 20, 30))
    # The thresholds themselves and the values next to them.
    for i, t in enumerate(np.float32(THRESHOLDS)):
        uncertainty[0, i, :3] = [np.nextafter(t, np.float32(0)), t, np.nextafter(t, np.float32(1))]
    p = np.full(truth.shape, 0.5, np.float32)
    counts = jax.jit(count_pixels)(logits, p, uncertainty, truth, np.ones(truth.shape, bool))
    pixels, patches = PixelState.from_counts(counts).compute(), state_of(logits, uncertainty, truth, 1).compute()
    assert patches["pavpu_1x1"] == pixels["pavpu"]
    for t in THRESHOLDS:
        assert patches[f"pavpu_1x1_{t:.2f}"] == pixels[f"pavpu_{t:.2f}"]
        assert patches[f"certain_1x1_{t:.2f}"] == pixels[f"certain_{t:.2f}"]


def test_ties_by_hand():
    # One patch half right, of mean uncertainty exactly at the threshold: inaccurate and certain.
    threshold = np.float32(0.05)
    logits = np.array([[[1, 1], [1, 1]]], np.float32)
    truth = np.array([[[True, True], [False, False]]])
    uncertainty = np.full((1, 2, 2), threshold)
    result = state_of(logits, uncertainty, truth, 2).compute()
    assert [result[f"certain_2x2_{t:.2f}"] for t in THRESHOLDS] == [0, 1, 1]
    assert [result[f"pavpu_2x2_{t:.2f}"] for t in THRESHOLDS] == [1, 0, 0]
    uncertainty[0, 1, 1] = np.nextafter(threshold, np.float32(1))
    assert state_of(logits, uncertainty, truth, 2).compute()["certain_2x2_0.05"] == 0


def test_means_next_to_a_threshold_are_compared_exactly():
    unit = 2.0**-30
    limit = round(float(np.float32(0.01)) / unit)  # 0.01 in units; values below 2^-6 are whole numbers of them
    rng = np.random.default_rng(0)
    shift = rng.integers(-40_000, 40_000, (64, 3, 3)) * 2
    shift[:, 2, 2] -= shift.sum(axis=(1, 2)) - 2 * rng.integers(-1, 2, 64)  # sums of -2, 0 or 2 units
    uncertainty = ((limit + shift) * unit).astype(np.float32)
    np.testing.assert_array_equal(np.round(uncertainty.astype(np.float64) / unit), limit + shift)
    one = np.ones((64, 3, 3), np.float32)
    result = state_of(one, uncertainty, one > 0, 3).compute()
    assert result["certain_3x3_0.01"] == np.mean(shift.sum(axis=(1, 2)) <= 0)


def test_border_patches_count_their_own_pixels():
    # 3 x 3 pixels in patches of 2: four patches, of 4, 2, 2 and 1 pixels.
    logits = np.full((1, 3, 3), 1, np.float32)
    truth = np.ones((1, 3, 3), bool)
    truth[0, 2, 2] = False
    uncertainty = np.zeros((1, 3, 3), np.float32)
    uncertainty[0, 2, 2] = 0.06  # a mean with zeros beyond the border would be 0.015
    result = state_of(logits, uncertainty, truth, 2).compute()
    assert result["pavpu_2x2_0.05"] == 1
    assert result["certain_2x2_0.05"] == 0.75


def test_invalid_pixels_are_in_no_patch():
    logits, uncertainty, truth = maps(5)
    frame = [np.full((3, 24, 32), fill, array.dtype) for array, fill in ((logits, np.nan), (uncertainty, np.nan))]
    frame.append(np.ones((3, 24, 32), bool))
    for padded, array in zip(frame, (logits, uncertainty, truth), strict=True):
        padded[:2, :13, :18] = array
    valid = np.zeros((3, 24, 32), bool)
    valid[:2, :13, :18] = True
    for size in (1, 4, 5):
        assert state_of(*frame, size, valid).compute() == state_of(logits, uncertainty, truth, size).compute()


def test_the_largest_patches_do_not_overflow():
    shape = (1, MAX_PATCH, MAX_PATCH)
    one = np.ones(shape, np.float32)
    state = state_of(one, one, np.ones(shape, bool), MAX_PATCH)
    np.testing.assert_array_equal(state.counts, [[[0, 1], [0, 0]]] * 3)
    state = state_of(-one, np.full(shape, np.float32(0.1)), np.ones(shape, bool), MAX_PATCH)
    np.testing.assert_array_equal(state.counts, [[[0, 0], [0, 1]], [[0, 0], [0, 1]], [[0, 0], [1, 0]]])


def test_no_patch_has_no_figure():
    result = PatchState.empty(4).compute()
    assert set(result.values()) == {None}
    assert set(result) == set(state_of(*maps(0), 4).compute())


def test_wrong_sizes_are_refused():
    for size in (0, MAX_PATCH + 1):
        with pytest.raises(ValueError, match="px wide"):
            state_of(*maps(0), size)
    with pytest.raises(ValueError, match="2 px and of 4 px"):
        PatchState.empty(2).merge(PatchState.empty(4))


def test_any_merging_gives_the_same_bits():
    data = maps(8, (12, 13, 18))
    parts = [state_of(*(array[i : i + 1] for array in data), 4) for i in range(12)]
    assert check_merging(PatchState.empty(4), parts, PatchState.compute) == state_of(*data, 4).compute()
