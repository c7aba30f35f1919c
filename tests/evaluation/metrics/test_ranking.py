import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ruac_jax.evaluation.metrics.ranking import RankingState
from tests.evaluation.metrics.merging import check_merging

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


def figures(state):
    return state.compute() | {"curve": state.risk_coverage()}


def test_any_merging_gives_the_same_bits(rng):
    rows = rng.random((600, 3))
    rows[:, :2] = np.round(rows[:, :2], 1)  # ties of many risks, whose sum depends on their order
    parts = [RankingState(rows[50 * i : 50 * i + 50]) for i in range(12)]
    assert check_merging(RankingState(), parts, figures) == figures(RankingState(rows))


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((0, 3)),
        np.array([[0.2, 0.1, 0.75]]),  # one mask
        np.array([[0.2, 0.1, 0.25], [0.2, 0.1, 0.75]]),  # constant uncertainty
        np.array([[0.2, 0.1, 1.0], [0.3, 0.2, 1.0]]),  # no error
        np.array([[0.2, 0.1, 0.0], [0.3, 0.2, 0.0]]),  # nothing but errors
    ],
)
def test_nothing_to_rank_has_no_figure(rows):
    assert RankingState(rows).compute() == dict.fromkeys(NAMES)


def test_only_good_masks_have_an_order_but_no_failure_to_detect():
    result = RankingState(np.array([[0.2, 0.1, 0.9], [0.3, 0.1, 0.6]])).compute()
    assert result["aurc"] == pytest.approx((0.1 + 0.25) / 2, abs=1e-15)
    assert result["auroc_mask"] is None
    assert result["aurc_frame"] is None  # constant over frames


def test_curve_of_few_masks():
    assert RankingState().risk_coverage() == {"coverage": [], "risk": []}
    assert RankingState(np.array([[0.2, 0.1, 0.75]])).risk_coverage() == {"coverage": [1.0], "risk": [0.25]}
