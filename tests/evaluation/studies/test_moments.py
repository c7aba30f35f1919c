import numpy as np
import pytest

from ruac_jax.evaluation.studies.moments import JointMoments


def test_merged_parts_equal_numpy(rng):
    values = rng.standard_normal((3, 500)) @ np.diag(rng.uniform(0.5, 2, 500)) + np.array([[0.0], [1e3], [-5.0]])
    values[2] += 0.7 * values[0]
    merged = JointMoments.empty(3)
    for part in np.split(values, [1, 40, 41, 300], axis=1):
        merged = JointMoments.of(part).merge(merged)
    assert merged.count == 500
    np.testing.assert_allclose(merged.mean, values.mean(axis=1), rtol=1e-13)
    np.testing.assert_allclose(merged.scatter / 500, np.cov(values, bias=True), rtol=1e-11, atol=1e-13)
    expected = np.corrcoef(values)
    for i in range(3):
        for j in range(3):
            assert merged.pearson(i, j) == pytest.approx(expected[i, j], abs=1e-12)


def test_far_from_zero_nothing_cancels():
    x = np.arange(100.0)
    moments = JointMoments.of(np.stack([x + 1e9, -x + 1e9])[:, :50]).merge(
        JointMoments.of(np.stack([x + 1e9, -x + 1e9])[:, 50:])
    )
    assert moments.pearson(0, 1) == pytest.approx(-1, abs=1e-12)


def test_constant_or_missing_values_have_no_correlation():
    assert JointMoments.empty(2).pearson(0, 1) is None
    assert JointMoments.empty(2).merge(JointMoments.empty(2)).count == 0
    constant = JointMoments.of(np.array([[1.0, 2.0, 3.0], [4.0, 4.0, 4.0]]))
    assert constant.pearson(0, 1) is None
    assert constant.pearson(0, 0) == 1
