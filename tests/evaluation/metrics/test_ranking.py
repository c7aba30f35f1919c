import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ruac_jax.evaluation.metrics.ranking import RankingState

NAMES = ("aurc", "e_aurc", "augrc", "auroc_mask", "aurc_frame", "e_aurc_frame", "augrc_frame", "auroc_frame")


def test_three_masks_by_hand():
    state = RankingState.from_objects(np.array([0.3, 0.1, 0.2]), np.array([0.1, 0.2, 0.3]), np.array([0.2, 1.0, 0.6]))
    result = state.compute()
    # by mask: risks 0, 0.4, 0.8, the best order; by frame: 0.8, 0, 0.4
    assert result["aurc"] == pytest.approx((0 + 0.2 + 0.4) / 3, abs=1e-15)
    assert result["e_aurc"] == pytest.approx(0, abs=1e-15)
    assert result["augrc"] == pytest.approx((0 + 0.4 + 1.2) / 9, abs=1e-15)
    assert result["auroc_mask"] == 1
    assert result["aurc_frame"] == pytest.approx((0.8 + 0.4 + 0.4) / 3, abs=1e-15)
    assert result["e_aurc_frame"] == pytest.approx(1 / 3, abs=1e-15)
    assert result["augrc_frame"] == pytest.approx((0.8 + 0.8 + 1.2) / 9, abs=1e-15)
    assert result["auroc_frame"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_equals_brute_force_and_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    uncertainty, frame, iou = rng.random((3, 80))
    result = RankingState.from_objects(uncertainty, frame, iou).compute()
    for score, suffix, auroc in ((uncertainty, "", "auroc_mask"), (frame, "_frame", "auroc_frame")):
        selective = [np.mean(1 - iou[np.argsort(score)][:k]) for k in range(1, 81)]
        best = [np.mean(np.sort(1 - iou)[:k]) for k in range(1, 81)]
        assert result[f"aurc{suffix}"] == pytest.approx(np.mean(selective), abs=1e-12)
        assert result[f"e_aurc{suffix}"] == pytest.approx(np.mean(selective) - np.mean(best), abs=1e-12)
        generalised = np.mean([k / 80 * r for k, r in enumerate(selective, start=1)])
        assert result[f"augrc{suffix}"] == pytest.approx(generalised, abs=1e-12)
        assert result[auroc] == pytest.approx(roc_auc_score(iou < 0.5, score), abs=1e-12)


def test_any_order_of_merging_gives_the_same_bits(rng):
    rows = np.round(rng.random((60, 3)), 2)  # with ties
    whole = RankingState(rows).compute()
    merged = RankingState()
    for index in rng.permutation(12):
        merged = RankingState(rows[5 * index : 5 * index + 5]).merge(merged)
    assert merged.compute() == whole


def test_degenerate_sets():
    assert RankingState().compute() == dict.fromkeys(NAMES)
    single = RankingState(np.array([[0.2, 0.1, 0.75]])).compute()
    assert single["aurc"] == single["augrc"] == 0.25
    assert single["e_aurc"] == 0
    assert single["auroc_mask"] is None
    constant = RankingState(np.array([[0.2, 0.1, 0.25], [0.2, 0.1, 0.75]])).compute()
    assert constant["auroc_mask"] == 0.5
    assert constant["aurc"] == pytest.approx(0.5, abs=1e-15)
    assert RankingState().risk_coverage() == {"coverage": [], "risk": []}
