import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy import special

from ruac_jax.heads.distribution import DecoderFeatures
from ruac_jax.heads.hypernetwork import HypernetworkHead, PointMass


def make_features(rng, n=2, size=4, d_model=32, dtype=jnp.float32):
    return DecoderFeatures(
        jnp.asarray(rng.normal(size=(n, size, size, d_model // 8)), dtype),
        jnp.asarray(rng.normal(size=(n, 4, d_model)), dtype),
        jnp.ones((n, 4), dtype),
        jnp.ones(n, dtype),
    )


def test_every_token_has_its_own_network(rng):
    head, features = HypernetworkHead(32, rngs=nnx.Rngs(0)), make_features(rng)
    logits = head(features).mean_logits()
    for i, mlp in enumerate(head.output_hypernetworks_mlps):
        x = np.asarray(features.tokens[:, i], np.float64)
        for j, layer in enumerate(mlp.layers):
            x = (np.maximum(x, 0) if j else x) @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
        expected = np.einsum("nc,nhwc->nhw", x, features.pixels)
        np.testing.assert_allclose(logits[:, i], expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_features_are_cast_up(rng):
    head, features = HypernetworkHead(32, rngs=nnx.Rngs(0)), make_features(rng, dtype=jnp.bfloat16)
    logits = head(features).mean_logits()
    assert logits.dtype == jnp.float32
    np.testing.assert_array_equal(logits, head(jax.tree.map(lambda x: x.astype(jnp.float32), features)).logits)


def test_a_point_mass_has_no_spread(rng):
    logits = jnp.asarray(rng.normal(scale=3, size=(2, 3, 4, 4)), jnp.float32)
    point = PointMass(logits)
    key = jax.random.key(0)
    for value in (point.mean_logits(), point.sample_logits(key)):
        np.testing.assert_array_equal(value, logits)
    assert not np.any(point.variance("full"))
    np.testing.assert_array_equal(point.regularizer(), np.zeros(2))
    p = special.expit(np.asarray(logits, np.float64))
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    for method in ("analytic", "monte_carlo"):
        np.testing.assert_allclose(point.probability(method, key=key), p, rtol=1e-5)
        np.testing.assert_allclose(point.uncertainty(method, key=key), entropy, rtol=1e-5)


def test_tokens_of_a_point_mass_can_be_chosen(rng):
    logits = jnp.asarray(rng.normal(size=(2, 4, 3, 3)), jnp.float32)
    np.testing.assert_array_equal(PointMass(logits).select(1, 4).logits, logits[:, 1:4])
    taken = jax.jit(lambda d, i: d.take(i))(PointMass(logits), jnp.array([3, 1]))
    np.testing.assert_array_equal(taken.logits, np.stack([logits[0, 3:], logits[1, 1:2]]))
