import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ruac_jax.evaluation.studies.draws import VARIANCES, SpreadPredictor, running_probabilities
from ruac_jax.functional.uncertainty import bernoulli_entropy
from ruac_jax.heads.distribution import monte_carlo_probability
from ruac_jax.heads.weibull import WeibullLogits
from ruac_jax.inference import segment
from ruac_jax.interaction import repeat_for_objects
from ruac_jax.model import Prompts

OBJECTS, SIZE = 3, 64


def weibull_logits(pixel_mean, pixel_kappa, token_mean, token_kappa):
    """One channel, one pixel and one token for each object; the background's weight is zero."""
    n = len(pixel_mean)
    tokens = np.zeros((n, 1, 2, 1), np.float32)
    tokens[:, 0, 0, 0] = token_mean
    columns = (np.asarray(values, np.float32).reshape(n, 1, 1, 1) for values in (pixel_mean, pixel_kappa, token_kappa))
    mean, kappa, kappa_token = (jnp.asarray(column) for column in columns)
    return WeibullLogits(mean, kappa, jnp.asarray(tokens), kappa_token, (0.1, 10.0), (1.0, 3.0))


def test_each_count_equals_its_own_estimate():
    rng = np.random.default_rng(0)
    n = 4
    logits = weibull_logits(*rng.uniform([[0.5], [0.5], [0.5], [0.5]], [[3], [5], [3], [5]], (4, n)))
    key = jax.random.key(3)
    counts = (1, 2, 7, 30)
    found = running_probabilities(logits, counts, key)
    assert found.shape == (4, n, 1, 1, 1)
    for count, estimate in zip(counts, found, strict=True):
        np.testing.assert_allclose(estimate, monte_carlo_probability(logits, count, key), rtol=2e-6)


def test_many_draws_approach_the_integral():
    """E[s(Z W)] by Gauss-Legendre quadrature over the quantiles of both factors."""
    z_mean, z_kappa, w_mean, w_kappa = np.array([[1.0, 2.0, 0.5], [0.8, 2.0, 5.0], [1.5, 0.7, 3.0], [3.0, 1.2, 0.9]])
    nodes, weights = np.polynomial.legendre.leggauss(400)
    # u = (1 + x) / 2, squeezed towards the ends where the quantile function is steep
    u, weights = special.betainc(3, 3, (1 + nodes) / 2), weights / 2 * 30 * ((1 - nodes**2) / 4) ** 2

    def quantiles(mean, kappa):
        return mean / special.gamma(1 + 1 / kappa) * (-np.log1p(-u)) ** (1 / kappa)

    exact = [
        weights @ special.expit(np.outer(quantiles(*pixel), quantiles(*token))) @ weights
        for pixel, token in zip(zip(z_mean, z_kappa, strict=True), zip(w_mean, w_kappa, strict=True), strict=True)
    ]
    assert weights.sum() == pytest.approx(1, abs=1e-10)
    draws = 20_000
    logits = weibull_logits(z_mean, z_kappa, w_mean, w_kappa)
    found = np.asarray(running_probabilities(logits, (draws,), jax.random.key(0))).ravel()
    # s varies within [0.5, 1], so one draw deviates by at most 0.25; the cut tails move the mean by less than 1e-5
    np.testing.assert_allclose(found, exact, atol=4 * 0.25 / draws**0.5)


@pytest.mark.slow
def test_methods_equal_those_of_the_evaluation(model):
    rng = np.random.default_rng(1)
    predictor = SpreadPredictor(model, SIZE, (2, 5))
    features = predictor.encode(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8))
    points = rng.uniform(0, SIZE, (OBJECTS, 3, 2)).astype(np.float32)
    labels, key = np.ones((OBJECTS, 3), np.int32), jax.random.key(4)
    spread = predictor.decode(features, points, labels, key)
    assert spread.probability.keys() == spread.uncertainty.keys() == {"product", "full", "2", "5"}

    how = {mode: {"variance": mode} for mode in VARIANCES} | {"5": {"method": "monte_carlo", "samples": 5, "key": key}}

    @jax.jit
    def by_the_evaluation(features, points, labels):
        prompts = Prompts(points, labels, jnp.zeros((OBJECTS, 16, 16)), jnp.zeros(OBJECTS, bool))
        rows = repeat_for_objects(features, OBJECTS)
        decoded = model.decode(rows, prompts)
        chosen = model.head(decoded).take(1 + jnp.argmax(decoded.iou[:, 1:], axis=1))
        segmented = {method: segment(model, rows, prompts, choice="best", **each) for method, each in how.items()}
        return segmented, {mode: chosen.variance(mode)[:, 0] for mode in VARIANCES}

    segmented, variance = by_the_evaluation(features, points, labels)
    for method, expected in segmented.items():
        maps = spread.maps(method)
        np.testing.assert_allclose(maps.logits, expected.logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(maps.probability, expected.probability, atol=1e-5)
        np.testing.assert_allclose(maps.uncertainty, expected.uncertainty, atol=1e-4)
    for mode in VARIANCES:
        np.testing.assert_allclose(spread.variance[mode], variance[mode], rtol=1e-4)
    np.testing.assert_allclose(spread.uncertainty["2"], bernoulli_entropy(spread.probability["2"]), atol=1e-6)
