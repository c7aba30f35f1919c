"""Image resizing that agrees with `torch.nn.functional.interpolate(align_corners=False)`, without gathers.

Interpolation along an axis is a product with a small constant matrix, so the gradient is a product with its
transpose.
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Method = Literal["bilinear", "bicubic", "nearest", "area"]

_CUBIC_A = -0.75  # torch's choice; jax.image.resize has -0.5


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(distance))


def _cubic(distance: np.ndarray) -> np.ndarray:
    d, a = np.abs(distance), _CUBIC_A
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _check(method: str, antialias: bool) -> None:
    if method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}: expected one of {', '.join(get_args(Method))}")
    if antialias and method != "bilinear":
        raise ValueError(f"antialias is defined for 'bilinear' only, not for {method!r}")


@functools.lru_cache(maxsize=256)
def interpolation_matrix(source: int, target: int, method: Method, antialias: bool = False) -> np.ndarray:
    """Weights `[target, source]` (float64, rows sum to one) that resize an axis of samples.

    Samples sit at pixel centres; outside the image the border sample is repeated ("bilinear", "bicubic") or
    left out and the rest renormalised (`antialias`, a triangle as wide as one target pixel). "area" averages
    the source pixels that a target pixel touches, as adaptive average pooling does; "nearest" takes sample
    floor(i * source / target).

    Raises:
        ValueError: antialias with a method other than "bilinear".
    """
    _check(method, antialias)
    columns = np.arange(source)
    rows = np.arange(target)
    scale = source / target
    if method == "nearest":
        return (columns[None, :] == (rows * source // target)[:, None]).astype(np.float64)
    if method == "area":
        start = (rows * source) // target
        stop = -((-(rows + 1) * source) // target)
        inside = (columns[None, :] >= start[:, None]) & (columns[None, :] < stop[:, None])
        return inside / inside.sum(axis=1, keepdims=True)
    centres = (rows + 0.5) * scale - 0.5
    if antialias:
        weights = _linear((columns[None, :] - centres[:, None]) / max(scale, 1.0))
        return weights / weights.sum(axis=1, keepdims=True)
    kernel, reach = (_linear, 1) if method == "bilinear" else (_cubic, 2)
    matrix = np.zeros((target, source))
    for offset in range(1 - reach, reach + 1):
        sample = np.floor(centres).astype(int) + offset
        np.add.at(matrix, (rows, np.clip(sample, 0, source - 1)), kernel(sample - centres))
    return matrix


def resize(
    x: Float[Array, "... h w c"], size: tuple[int, int], method: Method = "bilinear", antialias: bool = False
) -> Float[Array, "... newh neww c"]:
    """Resizes the two axes before the last one to `size` = (height, width); the dtype stays.

    Equals torch's `interpolate(..., align_corners=False)` for "bilinear" (also with `antialias=True`),
    "bicubic", "nearest" and "area". Products accumulate in float32.

    Raises:
        ValueError: antialias with a method other than "bilinear".
    """
    _check(method, antialias)
    height, width = size
    if x.shape[-3] != height:
        x = _along_rows(x, height, method, antialias)
    if x.shape[-2] != width:
        x = jnp.swapaxes(_along_rows(jnp.swapaxes(x, -3, -2), width, method, antialias), -3, -2)
    return x


def _along_rows(x: jax.Array, target: int, method: Method, antialias: bool) -> jax.Array:
    source = x.shape[-3]
    if method == "nearest" and target % source == 0:
        return jnp.repeat(x, target // source, axis=-3)
    matrix = jnp.asarray(interpolation_matrix(source, target, method, antialias), x.dtype)
    flat = x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
    out = jnp.einsum("th,...hd->...td", matrix, flat, precision="highest", preferred_element_type=jnp.float32)
    return out.astype(x.dtype).reshape(*x.shape[:-3], target, *x.shape[-2:])
