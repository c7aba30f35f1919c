import jax
import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from ruac_jax.evaluation.metrics import pixels
from ruac_jax.evaluation.metrics.pixels import PixelState, count_pixels, mean_soft_accuracy, mean_uncertainty
from tests.evaluation.metrics.merging import check_merging

count = jax.jit(count_pixels)
RANKINGS = ("auroc", "auroc_object", "aupr", "aurc_pixel", "e_aurc_pixel", "augrc_pixel")


def maps(rng, shape=(3, 24, 40), quantize=False):
    """Logits that carry some truth, the probability of a moderated network, its entropy as uncertainty."""
    truth = rng.random(shape) < 0.3
    logits = (rng.normal(0, 2, shape) + 2 * truth - 1).astype(np.float32)
    probability = (1 / (1 + np.exp(-logits / rng.uniform(1, 2, shape)))).clip(1e-4, 1 - 1e-4).astype(np.float32)
    p = probability.astype(np.float64)
    uncertainty = (-(p * np.log2(p) + (1 - p) * np.log2(1 - p))).astype(np.float32)
    if quantize:  # far apart, so that every value has a bin of its own
        uncertainty = np.round(uncertainty * 64).astype(np.float32) / 64
    return logits, probability, uncertainty, truth


def state_of(*data):
    """Padded to one shape, so that the whole file compiles once; the padding would spoil every figure if it counted."""
    shape = data[0].shape
    valid = np.zeros((12, 24, 40), bool)
    inside = tuple(slice(size) for size in shape)
    valid[inside] = True
    padded = []
    for array in data:
        frame = np.full(valid.shape, True if array.dtype == bool else np.nan, array.dtype)
        frame[inside] = array
        padded.append(frame)
    counts = count(*padded, valid)
    assert bool(counts.finite)
    return PixelState.from_counts(counts)


def expected(logits, probability, uncertainty, truth):
    """The same figures from scikit-learn, scipy and plain float64 numpy."""
    y, u, p = truth.ravel(), uncertainty.ravel().astype(np.float64), probability.ravel().astype(np.float64)
    mask = logits.ravel() > 0
    wrong = mask != y
    soft = np.abs(1 / (1 + np.exp(-logits.ravel().astype(np.float64))) - y)
    order = np.argsort(u, kind="stable")
    steps = np.arange(1, len(u) + 1)
    result = {
        "pixels": len(y),
        "auroc": roc_auc_score(wrong, u),
        "auroc_object": roc_auc_score(wrong[mask | y], u[mask | y]),
        "aupr": average_precision_score(wrong, u),
        "pcc_soft": pearsonr(u, soft).statistic,
        "pcc_hard": pearsonr(u, wrong).statistic,
        "brier": brier_score_loss(y, p),
        "nll": log_loss(y, p),
        "aurc_pixel": np.mean(np.cumsum(wrong[order]) / steps),
        "e_aurc_pixel": np.mean(np.cumsum(wrong[order]) / steps) - np.mean(np.cumsum(np.sort(wrong)) / steps),
        "augrc_pixel": np.mean(np.cumsum(wrong[order]) / len(u)),
    }
    for t in (0.01, 0.05, 0.10):
        uncertain = uncertainty.ravel() > np.float32(t)
        result[f"pavpu_{t:.2f}"] = np.mean(uncertain == wrong)
        result[f"certain_{t:.2f}"] = np.mean(~uncertain)
    result["pavpu"] = np.mean([result[f"pavpu_{t:.2f}"] for t in (0.01, 0.05, 0.10)])
    confidence, hit, ece = np.maximum(p, 1 - p), (p > 0.5) == y, 0.0
    for k in range(15):
        inside = (confidence >= k / 15) & ((confidence < (k + 1) / 15) | (k == 14))
        if inside.any():
            ece += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    result["ece"] = ece
    return result


@pytest.mark.parametrize("seed", range(4))
def test_equals_independent_implementations(seed):
    data = maps(np.random.default_rng(seed))
    result, truth = state_of(*data).compute(), expected(*data)
    for name, value in truth.items():
        binned = name.startswith(("auroc", "aupr", "aurc", "e_aurc", "augrc"))
        tolerance = 5e-3 if name == "aupr" else 2e-4 if binned else 1e-7
        assert result[name] == pytest.approx(value, abs=tolerance), name
    assert set(result) == set(truth) | {f"{name}_bound" for name in RANKINGS}
    for name in RANKINGS:
        assert abs(result[name] - truth[name]) <= result[f"{name}_bound"] + 1e-12
        assert result[f"{name}_bound"] < (0.05 if name == "aupr" else 2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_rankings_are_exact_where_bins_hold_one_value(seed):
    data = maps(np.random.default_rng(seed), quantize=True)
    result, truth = state_of(*data).compute(), expected(*data)
    for name in ("auroc", "auroc_object", "aupr"):
        assert result[name] == pytest.approx(truth[name], abs=1e-12)


def test_four_pixels_by_hand():
    logits = np.array([[[2.0, -1.0, 3.0, -2.0]]], np.float32)
    probability = np.array([[[0.9, 0.4, 0.95, 0.05]]], np.float32)
    uncertainty = np.array([[[0.02, 0.5, 0.004, 0.07]]], np.float32)
    truth = np.array([[[True, True, True, False]]])  # the second pixel is wrong
    result = state_of(logits, probability, uncertainty, truth).compute()
    assert result["pavpu_0.01"] == 0.5  # right and certain: the third; wrong and uncertain: the second
    assert result["pavpu_0.05"] == 0.75
    assert result["pavpu_0.10"] == 1
    assert result["pavpu"] == 0.75
    assert result["certain_0.05"] == 0.5
    assert result["auroc"] == result["auroc_object"] == result["aupr"] == 1
    assert result["aurc_pixel"] == pytest.approx(1 / 16)
    assert result["e_aurc_pixel"] == pytest.approx(0, abs=1e-15)
    assert result["ece"] == pytest.approx((0.6 + abs(2 - 1.9) + 0.1) / 4, abs=1e-7)  # bins of 0.6, 0.95 twice, 0.9
    assert result["brier"] == pytest.approx((0.01 + 0.36 + 0.0025 + 0.0025) / 4, abs=1e-7)


def test_last_confidence_bin_is_closed():
    one = np.ones((1, 1, 3), np.float32)
    state = state_of(one, one, 0 * one, one > 0)
    assert state.compute()["ece"] == 0
    assert state.reliability()["pixels"][-1] == 3
    assert state.reliability()["accuracy"][-1] == 1
    assert state.reliability()["accuracy"][0] is None


@pytest.mark.parametrize("seed", range(3))
def test_reliability_equals_scikit_learn(seed):
    logits, probability, uncertainty, truth = maps(np.random.default_rng(seed))
    diagram = state_of(logits, probability, uncertainty, truth).reliability()
    confidence = np.maximum(probability, 1 - probability).ravel().astype(np.float64)
    hit = ((probability > 0.5) == truth).ravel()
    accuracy, mean = calibration_curve(hit, confidence, n_bins=15)
    filled = [i for i, pixels in enumerate(diagram["pixels"]) if pixels]
    np.testing.assert_allclose([diagram["accuracy"][i] for i in filled], accuracy, atol=1e-12)
    np.testing.assert_allclose([diagram["confidence"][i] for i in filled], mean, atol=1e-7)
    assert sum(diagram["pixels"]) == truth.size


def test_invalid_pixels_do_not_count(rng):
    data = maps(rng, (2, 24, 40))
    whole = PixelState.from_counts(count(*data, np.ones((2, 24, 40), bool)))
    assert whole.compute() == state_of(*data).compute()


def test_values_that_are_not_finite_are_reported(rng):
    data = maps(rng, (12, 24, 40))
    for index in range(3):
        broken = [array.copy() for array in data]
        broken[index][0, 2, 1] = np.nan
        assert not bool(count(*broken, np.ones((12, 24, 40), bool)).finite)


def figures(state):
    return state.compute() | {"reliability": state.reliability(), "curve": state.risk_coverage()}


def test_any_merging_gives_the_same_bits(rng):
    data = maps(rng, (12, 16, 16))
    parts = [state_of(*(array[i : i + 1] for array in data)) for i in range(12)]
    assert check_merging(PixelState.empty(), parts, figures) == figures(state_of(*data))


def test_no_pixel_has_no_figure():
    result = PixelState.empty().compute()
    assert result.pop("pixels") == 0
    assert set(result.values()) == {None}
    assert PixelState.empty().risk_coverage() == {"coverage": [], "risk": []}


@pytest.mark.parametrize("wrong", [False, True])
def test_no_error_or_only_errors_cannot_be_ranked(rng, wrong):
    _, probability, uncertainty, truth = maps(rng)
    result = state_of(np.where(truth != wrong, 3, -3).astype(np.float32), probability, uncertainty, truth).compute()
    for name in RANKINGS:
        assert result[name] is None
        assert result[f"{name}_bound"] is None
    assert result["pcc_hard"] is None
    assert result["pcc_soft"] is None  # |s(l) - y| is the same everywhere
    assert result["pavpu"] is not None


def test_constant_uncertainty_ranks_nothing(rng):
    logits, probability, uncertainty, truth = maps(rng)
    result = state_of(logits, probability, np.full_like(uncertainty, 0.3), truth).compute()
    for name in (*RANKINGS, "pcc_soft", "pcc_hard"):
        assert result[name] is None
    assert result["pavpu"] == pytest.approx(np.mean((logits > 0) != truth), abs=1e-12)  # everywhere uncertain


def test_objects_without_errors_among_errors_elsewhere(rng):
    logits, probability, uncertainty, truth = maps(rng, (1, 24, 40))
    truth[:] = False
    result = state_of(logits, probability, uncertainty, truth).compute()
    assert result["auroc_object"] is None  # every pixel of the prediction is wrong
    assert result["auroc"] is not None


def test_saturated_probabilities_have_a_finite_likelihood():
    zero, one = np.zeros((1, 1, 4), np.float32), np.ones((1, 1, 4), np.float32)
    result = state_of(-one, zero, zero, one > 0).compute()
    assert result["nll"] == pytest.approx(23 * np.log(2), abs=1e-6)
    assert result["brier"] == 1
    assert result["ece"] == 1


def test_uncertainty_bins_are_monotone_and_narrow():
    u = np.unique(np.concatenate([np.geomspace(1e-9, 1, 300_001), [0.0, 2.0**-32]]).astype(np.float32))
    bins = np.asarray(pixels.uncertainty_bin(jax.numpy.asarray(u)))
    assert bins[0] == 0
    assert bins[-1] == pixels.UNCERTAINTY_BINS - 1
    assert (np.diff(bins) >= 0).all()
    for low, high, same in zip(u[:-1], u[1:], bins[:-1] == bins[1:], strict=True):
        assert not same or high <= low * (1 + 2.0**-11) or high < 2.0**-31


def test_means_over_masks_and_frames(rng):
    logits, probability, uncertainty, truth = maps(rng, (12, 24, 40))
    logits[1] = -1  # an empty mask
    counts = count(logits, probability, uncertainty, truth, np.ones(truth.shape, bool))
    mask, frame = mean_uncertainty(counts, 3, 24 * 40)
    u = uncertainty.astype(np.float64)
    np.testing.assert_allclose(frame, u[:3].mean(axis=(1, 2)), atol=1e-9)
    np.testing.assert_allclose(mask[[0, 2]], [u[i][logits[i] > 0].mean() for i in (0, 2)], atol=1e-9)
    assert mask[1] == frame[1]
    accuracy = mean_soft_accuracy(counts, 3, 24 * 40)
    right = 1 - np.abs(1 / (1 + np.exp(-logits[:3].astype(np.float64))) - truth[:3])
    np.testing.assert_allclose(accuracy[[0, 2]], [right[i][logits[i] > 0].mean() for i in (0, 2)], atol=1e-7)
    assert accuracy[1] == pytest.approx(right[1].mean(), abs=1e-7)


def test_long_rows_do_not_overflow():
    shape = (1, 1, 65_535)
    one = np.ones(shape, np.float32)
    counts = count(-one, np.zeros(shape, np.float32), one, np.ones(shape, bool), np.ones(shape, bool))
    result = PixelState.from_counts(counts).compute()
    assert result["brier"] == 1
    assert result["pixels"] == 65_535
