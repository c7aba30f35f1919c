import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from ruac_jax.functional import evidential
from ruac_jax.functional.evidential import NormalInverseGamma


def random_nig(rng, dtype=np.float32, n=500):
    """alpha from 1.01 to 300, on both sides of where the log-gammas become a series; v and beta over five decades."""
    mu = rng.normal(0.5, 2.0, n)
    v, beta = (10.0 ** rng.uniform(-3, 2, n) for _ in range(2))
    alpha = 1 + 10.0 ** rng.uniform(-2, 2.5, n)
    return NormalInverseGamma(*(jnp.asarray(x, dtype) for x in (mu, v, alpha, beta)))


def student_t(nig, y):
    """The posterior predictive, by scipy in float64."""
    mu, v, alpha, beta = (np.asarray(x, np.float64) for x in nig)
    return -stats.t.logpdf(np.asarray(y, np.float64), 2 * alpha, mu, np.sqrt(beta * (1 + v) / (v * alpha)))


def test_likelihood_is_that_of_students_t(rng):
    with jax.enable_x64(True):
        nig = random_nig(rng, np.float64)
        y = jnp.asarray(rng.normal(0.5, 3.0, 500))
        found = np.asarray(evidential.negative_log_likelihood(nig, y))
    np.testing.assert_allclose(found, student_t(nig, y), rtol=1e-9, atol=1e-9)


def test_float32_loses_few_digits(rng):
    nig = random_nig(rng)
    y = jnp.asarray(rng.uniform(size=500), jnp.float32)
    found = evidential.negative_log_likelihood(nig, y)
    np.testing.assert_allclose(found, student_t(nig, y), rtol=1e-5, atol=1e-5)


def test_gradient_of_the_likelihood_is_that_of_differences(rng):
    with jax.enable_x64(True):
        nig = random_nig(rng, np.float64, 50)
        y = jnp.asarray(rng.uniform(size=50))
        gradient = jax.grad(lambda nig: evidential.negative_log_likelihood(nig, y).sum())(nig)
        for i in range(4):
            step = 1e-5 * np.abs(np.asarray(nig[i]))
            high, low = (student_t(nig._replace(**{nig._fields[i]: nig[i] + s * step}), y) for s in (1, -1))
            difference = (high - low) / (2 * step)
            np.testing.assert_allclose(gradient[i], difference, rtol=1e-4, atol=1e-6, err_msg=nig._fields[i])


def test_variances_are_those_of_the_hierarchy():
    """E[s] and Var[m] by integrating over the variance s ~ InverseGamma(alpha, beta)."""
    v, alpha, beta = 0.7, 3.2, 1.9
    nig = NormalInverseGamma(*(jnp.float32([x]) for x in (0.1, v, alpha, beta)))
    prior = stats.invgamma(alpha, scale=beta)
    expected, _ = integrate.quad(lambda s: s * prior.pdf(s), 0, np.inf)
    of_mean, _ = integrate.quad(lambda s: s / v * prior.pdf(s), 0, np.inf)
    np.testing.assert_allclose(evidential.aleatoric(nig)[0], expected, rtol=1e-5)
    np.testing.assert_allclose(evidential.epistemic(nig)[0], of_mean, rtol=1e-5)
    # Together they are the variance of the predictive Student's t.
    total = stats.t(2 * alpha, 0.1, np.sqrt(beta * (1 + v) / (v * alpha))).var()
    np.testing.assert_allclose(evidential.aleatoric(nig)[0] + evidential.epistemic(nig)[0], total, rtol=1e-5)


def test_regularizer_charges_errors_for_their_evidence():
    nig = NormalInverseGamma(*(jnp.float32([x, x]) for x in (0.25, 2.0, 3.0, 1.0)))
    np.testing.assert_allclose(evidential.evidence_regularizer(nig, jnp.float32([1.0, 0.25])), [0.75 * 7, 0.0])


def test_squashing_keeps_the_order_and_the_range():
    x = jnp.asarray(np.geomspace(1e-6, 1e6, 200), jnp.float32)
    squashed = np.asarray(evidential.squash(jnp.concatenate([jnp.zeros(1), x])))
    assert squashed[0] == 0
    assert np.all(np.diff(squashed) > 0)
    assert squashed[-1] < 1
    assert float(evidential.squash(jnp.float32(5e13))) == 1


@pytest.mark.parametrize(("y", "expected"), [(0.0, 0.01), (1.0, 0.99), (0.5, 0.5)])
def test_smoothing_moves_labels_towards_the_middle(y, expected):
    np.testing.assert_allclose(evidential.smooth_labels(jnp.float32([y]), 0.02), [expected], rtol=1e-6)
