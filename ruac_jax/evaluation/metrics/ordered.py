"""Ranking figures of items sorted by uncertainty, from groups of equal uncertainty.

A group is all items of one score: `right` and `wrong` counts, or `count` items with a sum of `risk`. Groups come in
order of rising uncertainty. Inside a group no order is preferred: areas are expectations over its orders (AUROC counts
a tie one half; average precision takes a whole group at one threshold, as scikit-learn does). Where groups are the
bins of a histogram, the `*_bound` functions say how far the value of the unbinned scores can be from the binned one.
Sums over the items of a group are closed forms, so a billion pixels cost no more than their groups.
"""

import numpy as np
from jaxtyping import Float, Int, Real
from scipy.special import digamma

Counts = Int[np.ndarray, "g"]


def auroc(right: Counts, wrong: Counts) -> float | None:
    """Probability that a wrong item is more uncertain than a right one, ties one half; None if there is no pair."""
    pairs = float(right.sum()) * float(wrong.sum())
    if not pairs:
        return None
    below = _before(right)
    return float(wrong @ (below + right / 2) / pairs)


def auroc_bound(right: Counts, wrong: Counts) -> float | None:
    """Largest distance between `auroc` and the value with any order inside the groups: half the tied pairs."""
    pairs = float(right.sum()) * float(wrong.sum())
    return float(right.astype(np.float64) @ wrong / (2 * pairs)) if pairs else None


def average_precision(right: Counts, wrong: Counts) -> float | None:
    """Area under the precision-recall steps of finding wrong items by high uncertainty.

    None if all or none are wrong.
    """
    return _average_precision(right, wrong)[1]


def average_precision_bound(right: Counts, wrong: Counts) -> float | None:
    """Largest distance between `average_precision` and the value with any order and ties inside the groups."""
    low, middle, high = _average_precision(right, wrong)
    return None if middle is None else max(high - middle, middle - low)


def aurc(count: Counts, risk: Real[np.ndarray, "g"]) -> float | None:
    """Area under the risk-coverage curve: mean over k = 1..N of the mean risk of the k most certain items.

    (Geifman et al., 2019; appendix I.1.) None without items.
    """
    total = count.sum()
    return float(_selective_risk_sum(_before(count), _before(risk), count, risk).sum() / total) if total else None


def aurc_bound(right: Counts, wrong: Counts) -> float | None:
    """Largest distance between `aurc` with risk = wrong and its value with any order inside the groups."""
    total = right.sum() + wrong.sum()
    if not total:
        return None
    items, errors = _before(right + wrong), _before(wrong)
    zero = np.zeros(len(right))
    middle = _selective_risk_sum(items, errors, right + wrong, wrong)
    low = _selective_risk_sum(items, errors, right, zero) + _selective_risk_sum(items + right, errors, wrong, wrong)
    high = _selective_risk_sum(items, errors, wrong, wrong) + _selective_risk_sum(
        items + wrong, errors + wrong, right, zero
    )
    return float(max((high - middle).sum(), (middle - low).sum()) / total)


def augrc(count: Counts, risk: Real[np.ndarray, "g"]) -> float | None:
    """Area under the generalised risk-coverage curve: `aurc` divided by N instead of by k (Traub et al., 2024)."""
    total = float(count.sum())
    return float(np.sum(_before(risk) * count + risk * (count + 1) / 2) / total**2) if total else None


def augrc_bound(right: Counts, wrong: Counts) -> float | None:
    """Largest distance between `augrc` with risk = wrong and its value with any order inside the groups."""
    total = float(right.sum() + wrong.sum())
    return float(right.astype(np.float64) @ wrong / (2 * total**2)) if total else None


def risk_coverage(
    count: Counts, risk: Real[np.ndarray, "g"], points: int = 200
) -> tuple[Float[np.ndarray, "c"], Float[np.ndarray, "c"]]:
    """Coverage and mean risk of the items up to it, at group ends, at most `points` of them, the last included."""
    items, risks = np.cumsum(count), np.cumsum(risk)
    keep = np.flatnonzero(count)
    if not len(keep):
        return np.zeros(0), np.zeros(0)
    coverage = items[keep] / items[-1]
    # One point per step of coverage: the first group end that reaches it.
    chosen = np.unique(np.searchsorted(coverage, np.arange(1, points + 1) / points - 1e-12).clip(max=len(keep) - 1))
    return coverage[chosen], risks[keep][chosen] / items[keep][chosen]


def group(score: Float[np.ndarray, "n"], risk: Float[np.ndarray, "n"]) -> tuple[Counts, Float[np.ndarray, "g"]]:
    """Groups items of equal score: their number and summed risk, in order of rising score."""
    order = np.lexsort((risk, score))  # also by risk, so that sums do not depend on the order of the items
    _, start, count = np.unique(score[order], return_index=True, return_counts=True)
    return count, np.add.reduceat(risk[order], start) if len(start) else np.zeros(0)


def _before(values: np.ndarray) -> Float[np.ndarray, "g"]:
    """Sum of all earlier groups."""
    return (np.cumsum(values) - values).astype(np.float64)


def _harmonic(before: Float[np.ndarray, "g"], count: np.ndarray) -> Float[np.ndarray, "g"]:
    """Sum over j = 1..count of 1 / (before + j)."""
    return digamma(before + count + 1) - digamma(before + 1)


def _selective_risk_sum(
    items: Float[np.ndarray, "g"], risks: Float[np.ndarray, "g"], count: np.ndarray, risk: np.ndarray
) -> Float[np.ndarray, "g"]:
    """Sum over j = 1..count of (risks + j r) / (items + j), r = risk / count: the selective risks inside each group."""
    mean = risk / np.maximum(count, 1)
    return mean * count + (risks - items * mean) * _harmonic(items, count)


def _average_precision(right: Counts, wrong: Counts) -> tuple[float | None, float | None, float | None]:
    """Lowest, tied and highest average precision that the groups allow."""
    total = wrong.sum()
    if not total or not right.sum():
        return None, None, None
    right, wrong = right[::-1], wrong[::-1]  # thresholds fall from the most uncertain
    found, false = _before(wrong), _before(right)
    share = wrong / np.maximum(found + wrong + false + right, 1)
    middle = np.sum((found + wrong) * share)
    low = _selective_risk_sum(found + false + right, found, wrong, wrong).sum()
    high = np.sum(wrong * (found + wrong) / np.maximum(found + wrong + false, 1))
    return float(low / total), float(middle / total), float(high / total)
