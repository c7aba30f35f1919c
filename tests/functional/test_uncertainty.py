import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from ruac_jax.functional.uncertainty import (
    analytic_uncertainty,
    bernoulli_entropy,
    entropy_of_logits,
    probit_probability,
)


def test_entropy_of_probabilities_and_logits_agree_with_scipy():
    p = np.linspace(0, 1, 1001)
    expected = stats.entropy(np.stack([p, 1 - p]), base=2)
    np.testing.assert_allclose(bernoulli_entropy(jnp.asarray(p, jnp.float32)), expected, atol=2e-6)
    assert np.isclose(bernoulli_entropy(jnp.full((1,), 0.25))[0], 0.8112781244591328, rtol=1e-6)

    logits = np.linspace(-30, 30, 1201).astype(np.float32)
    far = np.abs(logits.astype(np.float64))
    q = special.expit(-far)
    expected = (q * (far + np.log1p(np.exp(-far))) + special.expit(far) * np.log1p(np.exp(-far))) / np.log(2)
    np.testing.assert_allclose(entropy_of_logits(jnp.asarray(logits)), expected, rtol=3e-6)


def test_entropy_is_finite_with_its_gradient_at_any_logit():
    logits = jnp.array([-1e30, -1024.0, -90.0, 0.0, 90.0, 1024.0, 1e30])
    value, gradient = entropy_of_logits(logits), jax.grad(lambda x: entropy_of_logits(x).sum())(logits)
    np.testing.assert_allclose(value, [0, 0, 0, 1, 0, 0, 0], atol=1e-30)
    np.testing.assert_allclose(gradient, np.zeros(7), atol=1e-30)


def test_probit_probability_is_near_the_expectation_under_a_gaussian_logit():
    # Gauss-Legendre over +-12 deviations: exact to 1e-10 here, where Gauss-Hermite still errs at a deviation of 10.
    nodes, weights = np.polynomial.legendre.leggauss(800)
    x = 12 * nodes
    density = 12 * weights * stats.norm.pdf(x)
    mean, variance = np.meshgrid(np.linspace(-30, 30, 61), np.concatenate([[0], np.geomspace(1e-2, 100, 33)]))
    exact = special.expit(mean[..., None] + np.sqrt(variance)[..., None] * x) @ density
    p = probit_probability(jnp.asarray(mean, jnp.float32), jnp.asarray(variance, jnp.float32))
    # The worst case is a large variance, where the difference is that of a scaled logistic curve from Phi: 0.0177.
    assert np.abs(p - exact).max() < 0.018
    np.testing.assert_allclose(p[0], np.clip(special.expit(mean[0]), 1e-4, 1 - 1e-4), rtol=1e-6)


def test_probability_is_clipped_and_uncertainty_belongs_to_it():
    mean, variance = jnp.array([-1e4, -3.0, 0.0, 2.0, 1e4]), jnp.array([0.0, 5.0, 1e6, 0.0, 1.0])
    p = probit_probability(mean, variance)
    np.testing.assert_allclose(p[jnp.array([0, 4])], [1e-4, 1 - 1e-4], rtol=1e-6)
    np.testing.assert_allclose(analytic_uncertainty(mean, variance), bernoulli_entropy(p), atol=2e-6)


@pytest.mark.parametrize("seed", range(5))
def test_uncertainty_grows_with_the_variance(seed):
    """Lemma F.1."""
    rng = np.random.default_rng(seed)
    mean = jnp.asarray(rng.normal(scale=10, size=5000), jnp.float32)
    low = jnp.asarray(rng.exponential(size=5000) * 10.0 ** rng.integers(-4, 5, 5000), jnp.float32)
    high = low * jnp.asarray(1 + rng.exponential(size=5000), jnp.float32)
    before, after = analytic_uncertainty(mean, low), analytic_uncertainty(mean, high)
    assert before.min() >= 0
    assert after.max() <= 1
    assert (after - before).min() >= -2e-7  # float32 resolution of values up to 1
    np.testing.assert_array_equal(analytic_uncertainty(-mean, low), before)

    # Strictly, where the change is above the resolution and the logit inside the clip.
    effective = np.abs(mean) / np.sqrt(1 + np.pi / 8 * np.stack([low, high]))
    clear = (effective[0] < 9) & (effective[1] > 0.05) & (effective[1] < 0.999 * effective[0])
    assert clear.sum() > 1000
    assert (after > before)[clear].all()


def test_uncertainty_does_not_depend_on_the_variance_at_mean_zero():
    np.testing.assert_array_equal(analytic_uncertainty(jnp.zeros(3), jnp.array([0.0, 1.0, 1e30])), np.ones(3))


def test_gradients_are_finite_everywhere():
    mean, variance = jnp.meshgrid(jnp.array([-1e4, -2.0, 0.0, 1e-20, 2.0, 1e4]), jnp.array([0.0, 1.0, 1e20]))
    for function in (probit_probability, analytic_uncertainty):
        gradients = jax.grad(lambda m, v, f=function: f(m, v).sum(), argnums=(0, 1))(mean, variance)
        assert all(np.isfinite(g).all() for g in gradients)
