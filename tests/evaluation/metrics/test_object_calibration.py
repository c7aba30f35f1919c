import numpy as np
import pytest

from ruac_jax.evaluation.metrics.object_calibration import ObjectCalibrationState
from tests.evaluation.metrics.merging import check_merging


def brute_force(uncertainty, accuracy):
    """Object by object, from the definition."""
    low, high = min(uncertainty), max(uncertainty)
    bins = [[] for _ in range(15)]
    for u, a in zip(uncertainty.tolist(), accuracy.tolist(), strict=True):
        confidence = 1 - (u - low) / (high - low)
        bins[next(k for k in range(14, -1, -1) if confidence * 15 >= k)].append((confidence, a))
    return sum(
        len(members) / len(accuracy) * abs(np.mean([a for _, a in members]) - np.mean([c for c, _ in members]))
        for members in bins
        if members
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("objects", [2, 7, 300])
def test_equals_brute_force(seed, objects):
    rng = np.random.default_rng(seed)
    uncertainty, accuracy = rng.beta(1, 5, objects), rng.beta(5, 1, objects)
    result = ObjectCalibrationState.from_objects(uncertainty, accuracy).compute()
    assert result == {"ece_object_reference": pytest.approx(brute_force(uncertainty, accuracy), abs=1e-13)}


def test_four_objects_by_hand():
    # Confidences 1, 0.52, 0.5 and 0; the middle two share bin 7, where their gaps -0.32 and +0.1 partly cancel.
    state = ObjectCalibrationState.from_objects(np.array([0.0, 0.48, 0.5, 1.0]), np.array([0.9, 0.2, 0.6, 0.3]))
    assert state.compute()["ece_object_reference"] == pytest.approx((0.1 + 0.22 + 0.3) / 4, abs=1e-15)


def test_only_the_order_and_spacing_of_uncertainties_matter(rng):
    uncertainty, accuracy = rng.random((2, 50))
    plain = ObjectCalibrationState.from_objects(uncertainty, accuracy).compute()
    halved = ObjectCalibrationState.from_objects(0.25 + uncertainty / 2, accuracy).compute()
    assert plain["ece_object_reference"] == pytest.approx(halved["ece_object_reference"], abs=1e-12)


@pytest.mark.parametrize("uncertainty", [[], [0.3], [0.3, 0.3, 0.3]])
def test_no_spread_of_uncertainty_has_no_figure(uncertainty):
    state = ObjectCalibrationState.from_objects(np.array(uncertainty, np.float64), np.full(len(uncertainty), 0.5))
    assert state.compute() == {"ece_object_reference": None}


def test_any_merging_gives_the_same_bits(rng):
    rows = rng.random((1200, 2))
    parts = [ObjectCalibrationState(rows[100 * i : 100 * i + 100]) for i in range(12)]
    figures = ObjectCalibrationState.compute
    assert check_merging(ObjectCalibrationState(), parts, figures) == figures(ObjectCalibrationState(rows))
