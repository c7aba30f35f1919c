import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special, stats

from ruac_jax.functional.evidential import NormalInverseGamma
from ruac_jax.heads.evidential import EvidentialHead, EvidentialLogits

from .test_hypernetwork import make_features


@pytest.fixture
def head():
    return EvidentialHead(32, rngs=nnx.Rngs(0))


def test_parameters_of_every_pixel(head, rng):
    features = make_features(rng)
    nig = head(features).nig
    kernel, bias = (np.asarray(p[...], np.float64) for p in (head.ur_ern_head.kernel, head.ur_ern_head.bias))
    raw = np.asarray(features.pixels, np.float64) @ kernel[0, 0] + bias
    positive = np.logaddexp(0, raw) + 1e-6
    expected = (raw[..., 0], positive[..., 1], 1 + positive[..., 2], positive[..., 3])
    for found, value in zip(nig, expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)


def test_parameters_stay_in_their_domain_for_any_features(head, rng):
    features = make_features(rng)
    for scale in (-1e4, 1e4):
        nig = head(features._replace(pixels=scale * features.pixels)).nig
        assert float(nig.v.min()) >= np.float32(1e-6)
        assert float(nig.beta.min()) >= np.float32(1e-6)
        assert float(nig.alpha.min()) > 1


def test_masks_are_those_of_sam2_s_head(head, rng):
    features = make_features(rng)
    distribution = head(features)
    logits = super(EvidentialHead, head).__call__(features).logits
    key = jax.random.key(0)
    for value in (distribution.mean_logits(), distribution.sample_logits(key)):
        np.testing.assert_array_equal(value, logits)
    np.testing.assert_allclose(distribution.probability("monte_carlo", key=key), special.expit(logits), rtol=1e-5)


def test_uncertainty_is_the_squashed_predictive_variance(head, rng):
    distribution = head(make_features(rng))
    _, v, alpha, beta = (np.asarray(x, np.float64) for x in distribution.nig)
    variance = beta / (alpha - 1) + beta / (v * (alpha - 1))
    for mode in ("product", "full"):
        np.testing.assert_allclose(distribution.variance(mode)[:, 2], variance, rtol=1e-4)
    for method in ("analytic", "monte_carlo"):
        uncertainty = distribution.uncertainty(method)
        for token in range(4):
            np.testing.assert_allclose(uncertainty[:, token], variance / (1 + variance), rtol=1e-4)


def test_likelihood_is_students_t_of_smoothed_labels_plus_the_regularizer(rng):
    shape = (3, 5, 6)
    mu, v, excess, beta = rng.normal(size=shape), *(rng.uniform(0.1, 3, shape) for _ in range(3))
    nig = NormalInverseGamma(*(jnp.asarray(x, jnp.float32) for x in (mu, v, 1 + excess, beta)))
    truth = rng.integers(0, 2, shape).astype(np.float32)
    y, alpha = 0.98 * truth + 0.01, 1 + excess
    likelihood = -stats.t.logpdf(y, 2 * alpha, mu, np.sqrt(beta * (1 + v) / (v * alpha)))
    expected = (likelihood + 0.005 * np.abs(y - mu) * (2 * v + alpha)).mean(axis=(1, 2))
    found = EvidentialLogits(jnp.zeros((3, 1, 5, 6)), nig).likelihood(jnp.asarray(truth))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_likelihood_is_learned(head, rng):
    """Descending it brings mu to the labels and lowers the variance where they are predictable."""
    features = make_features(rng, n=2, size=8)
    truth = jnp.asarray(np.asarray(features.pixels[..., 0]) > 0, jnp.float32)
    graph, state = nnx.split(head)

    @jax.jit
    def step(state):
        def loss(state):
            return nnx.merge(graph, state)(features).likelihood(truth).mean()

        value, gradient = jax.value_and_grad(loss)(state)
        return jax.tree.map(lambda p, g: p - 0.1 * g, state, gradient), value

    losses = []
    for _ in range(200):
        state, value = step(state)
        losses.append(float(value))
    assert losses[-1] < losses[0] - 0.5
    distribution = nnx.merge(graph, state)(features)
    assert np.mean((np.asarray(distribution.nig.mu) > 0.5) == np.asarray(truth)) > 0.9


def test_diagnostics_are_means(head, rng):
    distribution = head(make_features(rng))
    _, v, alpha, beta = (np.asarray(x, np.float64) for x in distribution.nig)
    found = distribution.diagnostics()
    aleatoric = beta / (alpha - 1)
    expected = {
        "evidence": 2 * v + alpha,
        "aleatoric": aleatoric / (1 + aleatoric),
        "epistemic": aleatoric / v / (1 + aleatoric / v),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.mean(), rtol=1e-4)
