import numpy as np
import pytest

from ruac_jax.evaluation.metrics.region import RegionState, region_similarity, score_objects
from tests.evaluation.metrics.merging import check_merging


def test_iou_by_hand():
    prediction = np.zeros((4, 4, 4), bool)
    truth = np.zeros((4, 4, 4), bool)
    prediction[0, :2], truth[0, 1:3] = True, True  # 4 common, 12 in the union
    prediction[1] = True  # nothing there
    truth[2] = True  # all missed
    np.testing.assert_array_equal(region_similarity(prediction, truth), [4 / 12, 0, 0, 1])


def test_iou_on_random_masks_equals_sets(rng):
    prediction, truth = rng.random((2, 5, 9, 7)) < 0.4
    for p, t, j in zip(prediction, truth, region_similarity(prediction, truth), strict=True):
        a, b = set(np.flatnonzero(p)), set(np.flatnonzero(t))
        assert j == pytest.approx(len(a & b) / len(a | b), abs=1e-15)


def test_means_over_objects():
    state = RegionState.from_scores(np.array([0.5, 1.0]), np.array([0.25, 0.25]))
    assert state.compute() == {"j": 0.75, "f": 0.25, "j_and_f": 0.5}


def test_no_object_has_no_score():
    assert RegionState().compute() == {"j": None, "f": None, "j_and_f": None}


def test_any_merging_gives_the_same_bits(rng):
    j, f = rng.random((2, 101))
    parts = [RegionState.from_scores(j[i : i + 7], f[i : i + 7]) for i in range(0, 101, 7)]
    merged = check_merging(RegionState(), parts, RegionState.compute)
    assert merged == RegionState.from_scores(j, f).compute()
    assert merged["j"] == pytest.approx(j.mean(), abs=1e-14)
    assert merged["f"] == pytest.approx(f.mean(), abs=1e-14)


def test_perfect_masks_score_one(rng):
    truth = rng.random((3, 20, 20)) < 0.5
    j, f = score_objects(truth, truth)
    np.testing.assert_array_equal(j, 1)
    np.testing.assert_array_equal(f, 1)
