"""Resizing against closed forms and brute force; PyTorch itself is compared in tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ruac_jax.functional.resize import interpolation_matrix, resize

METHODS = [("bilinear", False), ("bilinear", True), ("bicubic", False), ("nearest", False), ("area", False)]


def cubic(t, a=-0.75):
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def brute_force(x, target, method, antialias):
    """One axis, sample by sample, from the definitions."""
    n = len(x)
    out = []
    for i in range(target):
        if method == "nearest":
            out.append(x[int(np.floor(i * n / target + 1e-9))])
        elif method == "area":
            start, stop = int(np.floor(i * n / target)), int(np.ceil((i + 1) * n / target))
            out.append(np.mean(x[start:stop]))
        else:
            c = (i + 0.5) * n / target - 0.5
            if antialias:
                support = max(n / target, 1.0)
                w = [max(0.0, 1 - abs(j - c) / support) for j in range(n)]
                out.append(np.dot(w, x) / np.sum(w))
            elif method == "bilinear":
                c = np.clip(c, 0, n - 1)
                out.append(np.interp(c, np.arange(n), x))
            else:
                base = int(np.floor(c))
                out.append(sum(cubic(c - j) * x[min(max(j, 0), n - 1)] for j in range(base - 1, base + 3)))
    return np.array(out)


@pytest.mark.parametrize(("method", "antialias"), METHODS)
@pytest.mark.parametrize(("source", "target"), [(7, 32), (8, 8), (5, 3), (4, 16), (12, 4), (9, 1), (1, 5), (64, 24)])
def test_matrix_equals_definition(method, antialias, source, target, rng):
    x = rng.standard_normal(source)
    matrix = interpolation_matrix(source, target, method, antialias)
    np.testing.assert_allclose(matrix @ x, brute_force(x, target, method, antialias), atol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize(("method", "antialias"), METHODS)
@pytest.mark.parametrize("size", [(10, 21), (3, 4), (6, 14)])
def test_resizes_both_axes(method, antialias, size, rng):
    x = rng.standard_normal((2, 3, 6, 7, 2)).astype(np.float32)
    rows, columns = (interpolation_matrix(s, t, method, antialias) for s, t in zip((6, 7), size, strict=True))
    expected = np.einsum("Hh,Ww,abhwc->abHWc", rows, columns, x)
    np.testing.assert_allclose(resize(jnp.asarray(x), size, method, antialias), expected, atol=2e-6)


def test_bilinear_keeps_linear_ramps_inside():
    ramp = jnp.broadcast_to(jnp.arange(8.0)[None, :, None], (1, 8, 1))
    doubled = resize(ramp, (1, 16))[0, :, 0]
    np.testing.assert_allclose(doubled[1:-1], (np.arange(16) + 0.5)[1:-1] / 2 - 0.5, atol=1e-6)


def test_gradient_is_the_transpose(rng):
    x, g = rng.standard_normal((2, 5, 4, 1)), rng.standard_normal((2, 9, 12, 1))
    x, g = (jnp.asarray(a, jnp.float32) for a in (x, g))
    _, pull = jax.vjp(lambda a: resize(a, (9, 12), "bicubic"), x)
    rows, columns = interpolation_matrix(5, 9, "bicubic"), interpolation_matrix(4, 12, "bicubic")
    np.testing.assert_allclose(pull(g)[0], np.einsum("Hh,Ww,bHWc->bhwc", rows, columns, g), atol=1e-5)


@pytest.mark.parametrize(("method", "antialias"), METHODS)
def test_bfloat16_stays_and_is_close(method, antialias, rng):
    x = jnp.asarray(rng.standard_normal((1, 8, 8, 2)), jnp.float32)
    y = resize(x.astype(jnp.bfloat16), (16, 4), method, antialias)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), resize(x, (16, 4), method, antialias), atol=0.03)
    gradient = jax.grad(lambda a: resize(a, (16, 4), method, antialias).astype(jnp.float32).sum())(
        x.astype(jnp.bfloat16)
    )
    assert gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize(("method", "antialias"), METHODS)
def test_gradient_has_no_scatter(method, antialias):
    gradient = jax.jit(jax.grad(lambda a: jnp.square(resize(a, (16, 12), method, antialias)).sum()))
    text = gradient.lower(jnp.ones((1, 8, 6, 2))).compile().as_text()
    assert " scatter(" not in text
    assert " gather(" not in text


def test_unknown_method_and_antialias():
    with pytest.raises(ValueError, match="antialias"):
        interpolation_matrix(4, 8, "bicubic", True)
    with pytest.raises(ValueError, match="antialias"):
        resize(jnp.ones((2, 2, 1)), (4, 4), "nearest", antialias=True)
