import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from ruac_jax.evaluation.metrics import ordered


def scores(rng, n=60, levels=9):
    """Heavily tied scores and events, with their groups."""
    score, wrong = rng.integers(levels, size=n), rng.random(n) < rng.uniform(0.1, 0.9)
    return score, wrong, np.bincount(score[~wrong], minlength=levels), np.bincount(score[wrong], minlength=levels)


def curve_means(risk):
    """AURC and AUGRC of items in this order, from the definition."""
    sums = np.cumsum(risk)
    return np.mean(sums / np.arange(1, len(risk) + 1)), np.mean(sums) / len(risk)


@pytest.mark.parametrize("seed", range(6))
def test_auroc_and_average_precision_equal_scikit_learn(seed):
    score, wrong, right_count, wrong_count = scores(np.random.default_rng(seed))
    assert ordered.auroc(right_count, wrong_count) == pytest.approx(roc_auc_score(wrong, score), abs=1e-12)
    expected = average_precision_score(wrong, score)
    assert ordered.average_precision(right_count, wrong_count) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_bounds_hold_for_any_finer_scores(seed):
    rng = np.random.default_rng(seed)
    score, wrong, right_count, wrong_count = scores(rng)
    finer = [
        score + 0.5 * rng.random(60),
        score + 0.5 * wrong,
        score - 0.5 * wrong,
        score + 0.1 * rng.integers(3, size=60),
    ]
    for exact in finer:
        error = abs(ordered.auroc(right_count, wrong_count) - roc_auc_score(wrong, exact))
        assert error <= ordered.auroc_bound(right_count, wrong_count) + 1e-12
        error = abs(ordered.average_precision(right_count, wrong_count) - average_precision_score(wrong, exact))
        assert error <= ordered.average_precision_bound(right_count, wrong_count) + 1e-12
        exact_aurc = ordered.aurc(*ordered.group(exact, wrong.astype(float)))
        error = abs(ordered.aurc(right_count + wrong_count, wrong_count.astype(float)) - exact_aurc)
        assert error <= ordered.aurc_bound(right_count, wrong_count) + 1e-12
        exact_augrc = ordered.augrc(*ordered.group(exact, wrong.astype(float)))
        error = abs(ordered.augrc(right_count + wrong_count, wrong_count.astype(float)) - exact_augrc)
        assert error <= ordered.augrc_bound(right_count, wrong_count) + 1e-12


def test_bounds_are_reached(rng):
    score, wrong, right_count, wrong_count = scores(rng)
    middle = ordered.auroc(right_count, wrong_count)
    assert roc_auc_score(wrong, score + 0.5 * wrong) - middle == pytest.approx(
        ordered.auroc_bound(right_count, wrong_count), abs=1e-12
    )
    best, worst = (curve_means(wrong[np.lexsort((key, score))].astype(float)) for key in (wrong, ~wrong))
    for area, bound, low, high in zip(
        (ordered.aurc, ordered.augrc), (ordered.aurc_bound, ordered.augrc_bound), best, worst, strict=True
    ):
        middle = area(right_count + wrong_count, wrong_count.astype(float))
        assert max(high - middle, middle - low) == pytest.approx(bound(right_count, wrong_count), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_areas_without_ties_equal_the_definition(seed):
    rng = np.random.default_rng(seed)
    score, risk = rng.random((2, 50))
    groups = ordered.group(score, risk)
    expected = curve_means(risk[np.argsort(score)])
    assert ordered.aurc(*groups) == pytest.approx(expected[0], abs=1e-12)
    assert ordered.augrc(*groups) == pytest.approx(expected[1], abs=1e-12)


def trapezoid(curve):
    """Area under a curve over coverages 1/N, 2/N, ..., 1, stretched to coverages 0 to 1."""
    n = len(curve)
    return np.trapezoid(curve, np.arange(1, n + 1) / n) / (1 - 1 / n)


@pytest.mark.parametrize("seed", range(4))
def test_areas_differ_from_the_trapezoids_of_torch_uncertainty_by_their_ends(seed):
    rng = np.random.default_rng(seed)
    score, risk = rng.random((2, 80))
    sums, steps = np.cumsum(risk[np.argsort(score)]), np.arange(1, 81)
    for area, curve in ((ordered.aurc, sums / steps), (ordered.augrc, sums / 80)):
        ours = area(*ordered.group(score, risk))
        # A trapezoid counts the first and the last step half.
        assert trapezoid(curve) == pytest.approx((80 * ours - (curve[0] + curve[-1]) / 2) / 79, abs=1e-12)


def test_areas_with_ties_are_means_over_all_orders():
    first, tied, last = [0.3], [0.0, 0.9, 0.5, 1.0], [0.2]
    orders = [curve_means(np.array([*first, *middle, *last])) for middle in itertools.permutations(tied)]
    groups = np.array([1, 4, 1]), np.array([0.3, 2.4, 0.2])
    assert ordered.aurc(*groups) == pytest.approx(np.mean([a for a, _ in orders]), abs=1e-13)
    assert ordered.augrc(*groups) == pytest.approx(np.mean([g for _, g in orders]), abs=1e-13)


def test_aurc_by_hand():
    # risks 0, 1, 1 from certain to uncertain: selective risks 0, 1/2, 2/3
    groups = np.array([1, 1, 1]), np.array([0.0, 1.0, 1.0])
    assert ordered.aurc(*groups) == pytest.approx(7 / 18, abs=1e-15)
    assert ordered.augrc(*groups) == pytest.approx((0 + 1 + 2) / 9, abs=1e-15)


def test_billions_of_items_do_not_lose_digits():
    count = np.array([2_000_000_000, 1_000_000_000])
    assert ordered.aurc(count, 0.25 * count) == pytest.approx(0.25, abs=1e-12)
    # right 2:1 over the groups, wrong 1:2: P(wrong above) = 2/3 * 2/3, ties 2/3 * 1/3 + 1/3 * 2/3
    assert ordered.auroc(count, count[::-1]) == pytest.approx(4 / 9 + 2 / 9, abs=1e-12)


def test_nothing_to_rank_has_no_value():
    none, some = np.zeros(3, np.int64), np.array([1, 0, 2])
    for function in (ordered.auroc, ordered.auroc_bound, ordered.average_precision, ordered.average_precision_bound):
        assert function(none, some) is None
        assert function(some, none) is None
    assert ordered.aurc(none, none.astype(float)) is None
    assert ordered.augrc(none, none.astype(float)) is None
    assert ordered.aurc_bound(none, none) is None
    assert ordered.augrc_bound(none, none) is None


def test_risk_coverage_curve(rng):
    count, risk = ordered.group(rng.random(1000), rng.random(1000))
    coverage, curve = ordered.risk_coverage(count, risk, points=50)
    assert len(coverage) == 50
    np.testing.assert_allclose(coverage, np.arange(1, 51) / 50, atol=1e-3)
    np.testing.assert_allclose(curve, np.cumsum(risk)[19::20] / np.arange(20, 1001, 20), atol=1e-12)
    assert [len(part) for part in ordered.risk_coverage(np.zeros(3, np.int64), np.zeros(3))] == [0, 0]
