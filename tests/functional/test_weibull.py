import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from ruac_jax.functional import weibull

KAPPA = np.geomspace(0.1, 50, 2001).astype(np.float32)


def test_scale_gives_the_mean():
    mean = np.float32(0.7)
    scale = weibull.scale_from_mean(jnp.full_like(KAPPA, mean), jnp.asarray(KAPPA))
    expected = mean.astype(np.float64) * np.exp(-special.gammaln(1 + 1 / KAPPA.astype(np.float64)))
    np.testing.assert_allclose(scale, expected, rtol=1e-5)


def test_variance_is_accurate_where_its_two_terms_nearly_cancel():
    kappa = KAPPA.astype(np.float64)
    g1, g2 = special.gammaln(1 + 1 / kappa), special.gammaln(1 + 2 / kappa)
    np.testing.assert_allclose(weibull.squared_variation(jnp.asarray(KAPPA)), np.expm1(g2 - 2 * g1), rtol=2e-5)
    scale = np.exp(0.3 - g1)  # mean exp(0.3)
    expected = scale**2 * (np.exp(g2) - np.exp(2 * g1))
    mean = jnp.full_like(KAPPA, np.exp(0.3))
    np.testing.assert_allclose(weibull.variance(mean, jnp.asarray(KAPPA)), expected, rtol=3e-5)


def test_variance_has_an_accurate_gradient():
    kappa = KAPPA.astype(np.float64)
    t = 1 / kappa
    ratio = np.exp(special.gammaln(1 + 2 * t) - 2 * special.gammaln(1 + t))
    expected = -(t**2) * ratio * 2 * (special.digamma(1 + 2 * t) - special.digamma(1 + t))
    gradient = jax.grad(lambda k: weibull.squared_variation(k).sum())(jnp.asarray(KAPPA))
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


def test_variance_of_large_means_does_not_overflow():
    value = weibull.variance(jnp.full((1,), 1e3), jnp.full((1,), 0.1))
    np.testing.assert_allclose(value, 1e6 * 184754.963, rtol=2e-5)


@pytest.mark.parametrize("kappa", [0.6, 1.0, 2.0, 7.5])
def test_samples_follow_the_distribution(kappa):
    draws, scale = 200_000, 0.4
    shape = jnp.full((1, 1), kappa)
    x = np.asarray(weibull.sample(jax.random.key(3), jnp.full((draws, 1), scale), shape), np.float64)[:, 0]
    truth = stats.weibull_min(float(shape[0, 0]), scale=scale)
    # A correct sampler crosses a bound about once in a million runs (five deviations; 2.6 for Kolmogorov's).
    assert stats.kstest(x, truth.cdf).statistic < 2.6 / np.sqrt(draws)
    mean, variance, kurtosis = (float(v) for v in truth.stats("mvk"))
    assert abs(x.mean() - mean) < 5 * np.sqrt(variance / draws)
    assert abs(x.var() - variance) < 5 * variance * np.sqrt((kurtosis + 2) / draws)


def test_samples_are_fresh_per_entry_and_repeat_with_the_key():
    scale, kappa = jnp.ones((4, 5)), jnp.full((4, 1), 2.0)
    first, again, other = (weibull.sample(jax.random.key(k), scale, kappa) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.unique(np.concatenate([first, other])).size == 40


def test_gradient_of_a_sample():
    def draw(mean, kappa):
        return weibull.sample(jax.random.key(0), weibull.scale_from_mean(mean, kappa), kappa)

    mean, kappa = jnp.full(50, 0.8), jnp.linspace(0.3, 6.0, 50)
    x, pull = jax.vjp(draw, mean, kappa)
    by_mean, by_kappa = pull(jnp.ones(50))
    np.testing.assert_allclose(by_mean, x / mean, rtol=1e-5)
    # ln x = ln mean - lgamma(1 + 1/k) + ln(E)/k for the exponential draw E behind x, which does not depend on k.
    k = np.asarray(kappa, np.float64)
    log_e = k * (np.log(np.asarray(x, np.float64) / 0.8) + special.gammaln(1 + 1 / k))
    np.testing.assert_allclose(by_kappa, x * (special.digamma(1 + 1 / k) - log_e) / k**2, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("kappa", [0.1, 1.0, 10.0])
def test_nothing_breaks_at_a_mean_of_exactly_zero(kappa):
    def everything(mean, kappa):
        scale = weibull.scale_from_mean(mean, kappa)
        x = weibull.sample(jax.random.key(0), scale, kappa)
        return (x + weibull.variance(mean, kappa) + weibull.kl_weibull_gamma(kappa, scale, 1.0, 3.0)).sum()

    mean, kappa = jnp.array([0.0, 1e-30, 1.0]), jnp.full((3,), kappa)
    assert all(np.isfinite(g).all() for g in jax.grad(everything, argnums=(0, 1))(mean, kappa))
    np.testing.assert_array_equal(weibull.sample(jax.random.key(0), jnp.zeros(3), kappa), np.zeros(3))


@pytest.mark.parametrize("a", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("b", [0.3, 3.0])
def test_kl_equals_the_integral(a, b):
    for kappa in (0.25, 0.7, 1.0, 3.0, 10.0):
        for scale in (0.01, 0.3, 4.0):
            q = stats.weibull_min(kappa, scale=scale)
            p = stats.gamma(a, scale=1 / b)

            def integrand(e, q=q, p=p, kappa=kappa, scale=scale):  # over the exponential draw behind x
                x = scale * e ** (1 / kappa)
                return np.exp(-e) * (q.logpdf(x) - p.logpdf(x))

            parts = [integrate.quad(integrand, *ends, limit=400, epsabs=1e-11) for ends in ((0, 1), (1, np.inf))]
            expected = sum(part[0] for part in parts)
            value = weibull.kl_weibull_gamma(jnp.full((1,), kappa), jnp.full((1,), scale), a, b)
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=3e-6)


def test_kl_vanishes_only_where_the_two_are_the_same():
    # Weibull(1, 1/b) and Gamma(1, b) are both the exponential distribution of rate b.
    np.testing.assert_allclose(weibull.kl_weibull_gamma(jnp.ones(1), jnp.full((1,), 1 / 3), 1.0, 3.0), 0, atol=1e-6)
    kappa, scale = jnp.meshgrid(jnp.geomspace(0.1, 10, 41), jnp.geomspace(1e-3, 10, 41))
    assert weibull.kl_weibull_gamma(kappa, scale, 1.0, 3.0).min() > -1e-6


def test_kl_of_a_zero_scale_is_that_of_the_floor():
    def kl(scale):
        return weibull.kl_weibull_gamma(jnp.full((1,), 2.0), scale, 1.0, 3.0).sum()

    np.testing.assert_allclose(kl(jnp.zeros(1)), kl(jnp.full((1,), 1e-10)), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(kl)(jnp.zeros(1)), 3 * special.gamma(1.5), rtol=1e-6)
