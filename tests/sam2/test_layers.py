"""Layers against their definitions, written out in numpy or with jax's general convolution."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ruac_jax.sam2 import layers
from ruac_jax.sam2.hiera import max_pool_2x2, window_partition, window_unpartition
from ruac_jax.sam2.layers import MLP, Conv, ConvTranspose2x2, DepthwiseConv, LayerNorm, attention, gelu


def array(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)


def randomise(module, rng):
    return jax.tree.map(lambda a: array(rng, *a.shape), module)


def reference_attention(q, k, v, mask=None):
    scores = np.einsum("bnqd,bnkd->bnqk", q, k) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = np.where(mask[:, None, None, :], scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("bnqk,bnkd->bnqd", weights / weights.sum(axis=-1, keepdims=True), v)


def test_gelu_is_exact():
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.astype(float)]
    np.testing.assert_allclose(gelu(jnp.asarray(x)), exact, atol=1e-6)
    assert gelu(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("epsilon", [1e-6, 1e-1])
@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 4, 8)])
def test_layer_norm(shape, epsilon, rng):
    norm = randomise(LayerNorm(8, epsilon, rngs=nnx.Rngs(0)), rng)
    x = array(rng, *shape) * 3 + 2
    x64, scale, bias = (np.asarray(a, np.float64) for a in (x, norm.scale[...], norm.bias[...]))
    deviation = np.sqrt(x64.var(axis=-1, keepdims=True) + epsilon)
    expected = (x64 - x64.mean(axis=-1, keepdims=True)) / deviation * scale + bias
    np.testing.assert_allclose(norm(x), expected, atol=1e-5)


def test_layer_norm_keeps_bfloat16_and_float32_statistics(rng):
    norm = LayerNorm(64, rngs=nnx.Rngs(0))
    x = (array(rng, 4, 64) + 100.0).astype(jnp.bfloat16)
    half = norm(x)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), norm(x.astype(jnp.float32)), atol=0.02)


@pytest.mark.parametrize(("size", "stride", "padding"), [(1, 1, 0), (2, 2, 0), (3, 2, 1), (7, 4, 3)])
def test_conv(size, stride, padding, rng):
    conv = randomise(Conv(3, 5, size, stride=stride, padding=padding, rngs=nnx.Rngs(0)), rng)
    x = array(rng, 2, 8, 12, 3)
    kernel, padded = np.asarray(conv.kernel[...]), np.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)))
    y = conv(x)
    for i, j in [(0, 0), (1, 2), (y.shape[1] - 1, y.shape[2] - 1)]:
        patch = padded[:, i * stride : i * stride + size, j * stride : j * stride + size]
        expected = np.einsum("bhwi,hwio->bo", patch, kernel) + np.asarray(conv.bias[...])
        np.testing.assert_allclose(y[:, i, j], expected, atol=1e-4)
    assert y.shape[1:3] == tuple((n + 2 * padding - size) // stride + 1 for n in (8, 12))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_depthwise_forms_agree(backend, rng, monkeypatch):
    """Both the sum of shifts and the grouped convolution, whichever device this runs on."""
    conv = randomise(DepthwiseConv(6, 7, rngs=nnx.Rngs(0)), rng)
    x = array(rng, 2, 9, 11, 6)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    padded, kernel = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0))), np.asarray(conv.kernel[...])
    expected = np.stack(
        [
            np.stack(
                [np.sum(padded[:, i : i + 7, j : j + 7] * kernel[None, :, :, 0], axis=(1, 2)) for j in range(11)],
                axis=1,
            )
            for i in range(9)
        ],
        axis=1,
    ) + np.asarray(conv.bias[...])
    np.testing.assert_allclose(conv(x), expected, atol=1e-4)


def test_conv_transpose(rng):
    conv = randomise(ConvTranspose2x2(4, 3, rngs=nnx.Rngs(0)), rng)
    x = array(rng, 2, 5, 6, 4)
    y, kernel = np.asarray(conv(x)), np.asarray(conv.kernel[...])
    for u in range(2):
        for v in range(2):
            expected = np.asarray(x) @ kernel[u, v] + np.asarray(conv.bias[...])
            np.testing.assert_allclose(y[:, u::2, v::2], expected, atol=1e-5)


def test_mlp(rng):
    mlp = randomise(MLP(4, 6, 2, 3, sigmoid_output=True, rngs=nnx.Rngs(0)), rng)
    x = array(rng, 7, 4)
    h = np.asarray(x)
    for i, layer in enumerate(mlp.layers):
        h = h @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
        h = np.maximum(h, 0) if i < 2 else 1 / (1 + np.exp(-h))
    np.testing.assert_allclose(mlp(x), h, atol=1e-5)


def test_attention(rng):
    q, k, v = (array(rng, 2, 3, n, 8) for n in (5, 9, 9))
    np.testing.assert_allclose(attention(q, k, v), reference_attention(q, k, v), atol=1e-5)


def test_masked_keys_do_not_exist(rng):
    q, k, v = (array(rng, 2, 3, n, 8) for n in (5, 9, 9))
    mask = np.ones((2, 9), bool)
    mask[0, [1, 4]] = mask[1, 8] = False
    expected = reference_attention(q, k, v, mask)
    np.testing.assert_allclose(attention(q, k, v, jnp.asarray(mask)), expected, atol=1e-5)
    huge = jnp.where(jnp.asarray(mask)[:, None, :, None], v, 1e30)
    np.testing.assert_allclose(attention(q, k, huge, jnp.asarray(mask)), expected, atol=1e-5)


def test_large_scores_stay_finite(rng):
    q, k, v = (array(rng, 1, 1, 4, 8) * 100 for _ in range(3))
    out, pull = jax.vjp(attention, q, k, v)
    np.testing.assert_allclose(out, reference_attention(q, k, v), rtol=1e-4)
    assert all(np.isfinite(g).all() for g in pull(out))


def test_chunks_of_queries_change_nothing(rng, monkeypatch):
    q, k, v = (array(rng, 2, 2, 64, 8) for _ in range(3))

    def value_and_gradients():
        out, pull = jax.vjp(attention, q, k, v)
        return out, *pull(out)

    whole = value_and_gradients()
    monkeypatch.setattr(layers, "_LONG", 32)
    monkeypatch.setattr(layers, "_QUERY_CHUNK", 16)
    assert "scan" in str(jax.make_jaxpr(attention)(q, k, v))
    for a, b in zip(value_and_gradients(), whole, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_windows_and_pooling(rng):
    x = array(rng, 2, 6, 10, 3)
    windows = window_partition(x, 4)
    assert windows.shape == (2 * 2 * 3, 4, 4, 3)
    np.testing.assert_array_equal(windows[0], x[0, :4, :4])
    np.testing.assert_array_equal(windows[1], x[0, :4, 4:8])
    np.testing.assert_array_equal(windows[-1][2:], 0)
    np.testing.assert_array_equal(window_unpartition(windows, 6, 10), x)
    pooled = max_pool_2x2(x)
    np.testing.assert_array_equal(pooled[1, 2, 4], np.max(x[1, 4:6, 8:10], axis=(0, 1)))
