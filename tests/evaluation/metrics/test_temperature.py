import functools

import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import entropy
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from ruac_jax.evaluation.metrics import temperature
from ruac_jax.evaluation.metrics.pixels import PixelState, count_pixels
from ruac_jax.evaluation.metrics.temperature import LOGIT_BINS, TemperatureState, count_logits
from tests.evaluation.metrics.merging import check_merging

count = jax.jit(count_logits)
count_both = jax.jit(count_pixels)
SHAPE = (4, 32, 40)
THRESHOLDS = (0.01, 0.05, 0.10)
NAMES = (
    "logit_scale",
    "pavpu_matched",
    "pavpu_matched_bound",
    *(f"{kind}_matched_{t:.2f}" for kind in ("pavpu", "certain") for t in THRESHOLDS),
    "nll_matched",
    "ece_matched",
    "pavpu_unscaled",
)


def bits(p):
    return entropy([p, 1 - p], base=2)


def network(seed, scale=1.0):
    """Truth drawn from a known probability; a network that reports its logits times `scale`, as float32."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 3, SHAPE)
    truth = rng.random(SHAPE) < expit(z)
    p = expit(scale * z).clip(1e-4, 1 - 1e-4).astype(np.float32)
    return (scale * z).astype(np.float32), p, truth


def state_of(logits, p, truth, valid=None):
    valid = np.ones(SHAPE, bool) if valid is None else valid
    return TemperatureState.from_counts(count(logits, p, truth, valid))


def exact(logits, p, truth, scale):
    """PAvPU, share of certain pixels (by threshold), NLL and ECE without bins of logits, in float64."""
    p = p.astype(np.float64)
    scaled = expit(scale * logit(p))
    wrong, u = (logits > 0) != truth, bits(scaled)
    values = [np.mean((u > t) == wrong) for t in THRESHOLDS]
    confidence, hit = np.maximum(scaled, 1 - scaled), (scaled > 0.5) == truth
    members = [(confidence >= k / 15) & (confidence < (k + 1) / 15 + (k == 14)) for k in range(15)]
    ece = sum(abs(np.sum(hit[m]) - np.sum(confidence[m])) for m in members) / hit.size
    return values, [np.mean(u <= t) for t in THRESHOLDS], log_loss(truth.ravel(), scaled.ravel()), ece


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.7])
def test_figures_equal_those_of_scaled_probabilities(seed, scale):
    data = network(seed)
    state = state_of(*data)
    result = state.compute(scale)
    values, certain, nll, ece = exact(*data, scale)
    assert abs(result["pavpu_matched"] - np.mean(values)) <= result["pavpu_matched_bound"] + 1e-12
    assert result["pavpu_matched_bound"] < 1e-3
    for t, value, share in zip(THRESHOLDS, values, certain, strict=True):
        assert result[f"pavpu_matched_{t:.2f}"] == pytest.approx(value, abs=1e-3)
        assert result[f"certain_matched_{t:.2f}"] == pytest.approx(share, abs=2e-3)
    assert result["nll_matched"] == state.nll(scale) == pytest.approx(nll, abs=scale * 2.0**-12)
    # A pixel that a bin of logits moves over the edge of a bin of confidence moves its own gap, at most 0.5, twice.
    assert result["ece_matched"] == state.ece(scale) == pytest.approx(ece, abs=5 / 5120)
    assert result["pavpu_unscaled"] == state.compute(1.0)["pavpu_matched"]
    assert tuple(result) == NAMES


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_fit_equals_logistic_regression_and_a_direct_search(seed, scale):
    logits, p, truth = network(seed, scale)
    z = logit(p.astype(np.float64)).ravel()
    state = state_of(logits, p, truth)
    fitted = state.fit_scale()
    regression = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(z[:, None], truth.ravel())
    assert fitted == pytest.approx(regression.coef_.item(), rel=3e-5)

    def loss(a):
        return np.mean(np.logaddexp(0, -a * z * (2 * truth.ravel() - 1)))

    best = minimize_scalar(loss, bounds=(0.01, 10), method="bounded", options={"xatol": 1e-12})
    assert fitted == pytest.approx(best.x, rel=3e-5)
    assert 0 <= loss(fitted) - best.fun + 1e-14 <= (fitted + best.x) * 2.0**-12


def test_binned_fit_is_the_minimum_of_the_binned_likelihood():
    state = state_of(*network(4))
    fitted = state.fit_scale()
    assert all(state.nll(fitted) <= state.nll(fitted * (1 + step)) for step in (-1e-3, -1e-5, 1e-5, 1e-3))


def test_fit_by_hand():
    # One |z| everywhere, three of four on the right side: s(a |z|) must be 3/4.
    histogram = np.zeros((2, 2, LOGIT_BINS), np.int64)
    histogram[0, 0, 3071], histogram[1, 1, 3071] = 3000, 1000
    center = 3071.5 / 2048
    state = TemperatureState(histogram)
    assert state.fit_scale() == pytest.approx(np.log(3) / center, rel=1e-12)
    assert state.nll(np.log(3) / center) == pytest.approx(bits(0.75) * np.log(2), rel=1e-12)
    assert state.ece(np.log(3) / center) == pytest.approx(0, abs=1e-12)
    assert state.ece(np.log(4) / center) == pytest.approx(0.05, rel=1e-12)  # confidence 0.8, accuracy 0.75


def test_matching_undoes_a_change_of_confidence():
    plain, doubled = network(6), network(6, 2.0)
    plain = (*plain[:1], expit(plain[0]).astype(np.float32), plain[2])  # unclipped, so that scaling can be undone
    doubled = (*doubled[:1], expit(doubled[0]).astype(np.float32), doubled[2])
    states = [state_of(*data) for data in (plain, doubled)]
    scales = [state.fit_scale() for state in states]
    assert scales[0] == pytest.approx(2 * scales[1], rel=3e-5)
    first, second = (state.compute(scale) for state, scale in zip(states, scales, strict=True))
    assert first["pavpu_matched"] == pytest.approx(second["pavpu_matched"], abs=2e-3)
    assert abs(first["pavpu_unscaled"] - second["pavpu_unscaled"]) > 0.1


def test_calibrated_networks_need_no_scale():
    states = [state_of(*network(seed)) for seed in range(20)]
    merged = functools.reduce(TemperatureState.merge, states)
    assert merged.fit_scale() == pytest.approx(1, abs=0.02)  # 102,400 pixels: three standard errors


def test_scale_one_is_the_pavpu_of_pixels_where_uncertainty_is_the_entropy():
    logits, p, truth = network(7)
    u = bits(p.astype(np.float64)).astype(np.float32)
    pixels = PixelState.from_counts(count_both(logits, p, u, truth, np.ones(SHAPE, bool))).compute()
    result = state_of(logits, p, truth).compute(1.0)
    assert abs(result["pavpu_matched"] - pixels["pavpu"]) <= result["pavpu_matched_bound"]
    assert result["nll_matched"] == pytest.approx(pixels["nll"], abs=2.0**-12)
    assert result["ece_matched"] == pytest.approx(pixels["ece"], abs=5 / 5120)


def test_the_mask_decides_what_is_wrong_and_the_probability_how_likely_the_truth_is():
    logits, p, truth = network(8)
    result = state_of(-logits, p, truth).compute(1.0)  # a mask that contradicts the probability
    agreeing = state_of(logits, p, truth).compute(1.0)
    assert result["nll_matched"] == agreeing["nll_matched"]
    assert result["pavpu_matched"] == pytest.approx(1 - agreeing["pavpu_matched"], abs=1e-12)


def test_invalid_pixels_and_extreme_probabilities():
    logits, p, truth = (array.copy() for array in network(9))
    valid = np.zeros(SHAPE, bool)
    valid[0, 0, :3] = True
    p[0, 0, :3] = [0.0, 1.0, 0.5]
    truth[0, 0, :3] = True
    logits[0, 0, :3] = [-1, 1, 1]
    p[1] = np.nan
    state = state_of(logits, p, truth, valid)
    assert state.histogram.sum() == 3
    largest = int(np.log(2.0**23 - 1) * 2048)
    assert state.histogram[1, 1, largest] == 1  # 0 where the truth is 1
    assert state.histogram[0, 0, largest] == 1
    assert state.histogram[1, 0, 0] == 1  # 1/2 is on neither side, and its |z| is 0
    result = state.compute(2.0)
    assert result["certain_matched_0.05"] == pytest.approx(2 / 3)
    assert result["pavpu_matched_0.05"] == pytest.approx(1 / 3)


def test_bound_counts_the_pixels_that_may_be_on_the_other_side():
    edge = temperature._logit_of_entropy(0.05)
    assert bits(expit(edge)) == pytest.approx(0.05, abs=1e-12)
    histogram = np.zeros((2, 2, LOGIT_BINS), np.int64)
    histogram[0, 0, int(edge * 2048)], histogram[0, 1, int(edge * 2048)] = 30, 10
    histogram[0, 0, 0] = 60
    result = TemperatureState(histogram).compute(1.0)
    assert result["pavpu_matched_bound"] == pytest.approx(0.3 / 3)
    # An edge beyond the last bin divides none.
    assert TemperatureState(histogram).compute(0.01)["pavpu_matched_bound"] == 0


def test_no_scale_fits_degenerate_data():
    assert TemperatureState.empty().fit_scale() is None
    assert TemperatureState.empty().nll(1.0) is TemperatureState.empty().ece(1.0) is None
    assert TemperatureState.empty().compute(2.0) == dict.fromkeys(NAMES) | {"logit_scale": 2.0}
    logits, p, _ = network(10)
    perfect = state_of(logits, p, p > 0.5)
    assert perfect.fit_scale() is None  # the surer the better
    assert state_of(logits, p, p <= 0.5).fit_scale() is None  # the less sure the better
    histogram = np.zeros((2, 2, LOGIT_BINS), np.int64)
    histogram[:, 0, 1000] = 10**18 + 1, 10**18  # a mean that rounding hides
    assert TemperatureState(histogram).fit_scale() is None
    without = perfect.compute(perfect.fit_scale())
    assert without == dict.fromkeys(NAMES) | {"pavpu_unscaled": perfect.compute(1.0)["pavpu_matched"]}


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan])
def test_impossible_scales_are_refused(scale):
    with pytest.raises(ValueError, match="positive"):
        TemperatureState.empty().compute(scale)


def test_any_merging_gives_the_same_bits():
    data = network(11)
    parts = []
    for index in range(4):
        for row in range(0, 32, 8):
            valid = np.zeros(SHAPE, bool)
            valid[index, row : row + 8] = True
            parts.append(state_of(*data, valid))

    def figures(state):
        return state.compute(state.fit_scale()) | state.compute(0.7)

    assert check_merging(TemperatureState.empty(), parts, figures) == figures(state_of(*data))
