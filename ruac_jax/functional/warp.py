"""Bilinear warping of constants: differentiable in the flow, never a scatter (method, section 4.3).

Convention: out(p) = in(p + flow(p)) for pixel centres p = (x, y), flow = (dx, dy) in pixels, positions clamped to the
image. That is torch's `grid_sample` with padding_mode="border", written in pixels. The warped array is a constant: the
gradient of a gather is a scatter, so gradients reach the flow alone, through the bilinear weights.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Corners(NamedTuple):
    """The four pixels around each of `n` positions.

    Attributes:
      index: row-major pixel numbers y * width + x, constant.
      weight: bilinear weights, summing to one; they carry the gradient to the positions.
    """

    index: Int[Array, "b 4 *n"]
    weight: Float[Array, "b 4 *n"]


def corners(position: Float[Array, "b *n 2"], height: int, width: int) -> Corners:
    """Finds the corners of positions (x, y) in pixels; positions outside the image count as on its border."""
    x0, x1, fx = _neighbours(position[..., 0], width)
    y0, y1, fy = _neighbours(position[..., 1], height)
    return Corners(
        index=jnp.stack([y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1], axis=1),
        weight=jnp.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], axis=1),
    )


def _neighbours(coordinate: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    inside = jnp.clip(coordinate, 0.0, size - 1.0)
    first = jnp.floor(jax.lax.stop_gradient(inside))
    low = first.astype(jnp.int32)
    return low, jnp.minimum(low + 1, size - 1), inside - first


def gather(x: Float[Array, "b h w c"], index: Int[Array, "b *n"]) -> Float[Array, "b *n c"]:
    """Pixels of a constant array by row-major number."""
    b, h, w, c = x.shape
    rows = jax.lax.stop_gradient(x).reshape(b, h * w, c)
    flat = index.reshape(b, -1)
    return jax.vmap(lambda r, i: r.at[i].get(mode="promise_in_bounds"))(rows, flat).reshape(*index.shape, c)


def blend(values: Float[Array, "b 4 *n c"], weight: Float[Array, "b 4 *n"]) -> Float[Array, "b *n c"]:
    """Bilinear mixture of corner values."""
    return jnp.sum(values * weight[..., None], axis=1)


def sampling_positions(flow: Float[Array, "b h w 2"]) -> Float[Array, "b h w 2"]:
    """p + flow(p) at every pixel."""
    y, x = jnp.mgrid[: flow.shape[1], : flow.shape[2]]
    return flow + jnp.stack([x, y], axis=-1).astype(flow.dtype)[None]


def warp(image: Float[Array, "b h w c"], flow: Float[Array, "b h w 2"]) -> Float[Array, "b h w c"]:
    """Warps a constant image: out(p) = image(p + flow(p)), bilinear, border clamp."""
    near = corners(sampling_positions(flow), *image.shape[1:3])
    return blend(gather(image, near.index), near.weight)


def warp_masks(masks: Bool[Array, "b k h w"], flow: Float[Array, "b k h w 2"]) -> Bool[Array, "b k h w"]:
    """Warps each mask by its own flow: bilinear, then > 0.5. A constant."""
    b, k, h, w = masks.shape
    values = masks.reshape(b * k, h, w, 1).astype(flow.dtype)
    return warp(values, jax.lax.stop_gradient(flow).reshape(b * k, h, w, 2)).reshape(masks.shape) > 0.5


def coverage(masks: Bool[Array, "b k h w"], warped: Bool[Array, "b k h w"]) -> Float[Array, "b k h w"]:
    """Share of each object's warped image in each pixel of the composition; what is missing to one is the image itself.

    Where warped masks cover a pixel, equal shares of those objects. Where only an object's old mask does, the object
    has moved away: its own warped image fills the gap (equal shares again where several were), since a hole would give
    the object away. So would a rim: an outline's pixels mix object and ground on both of its sides, so both masks reach
    one pixel further where no warped mask is.
    """
    moved, left = _grow(warped), _grow(masks)
    near = jnp.where(moved.any(axis=1, keepdims=True), moved, left)
    shares = jnp.where(warped.any(axis=1, keepdims=True), warped, near).astype(jnp.float32)
    return shares / jnp.maximum(shares.sum(axis=1, keepdims=True), 1.0)


def _grow(masks: Bool[Array, "b k h w"]) -> Bool[Array, "b k h w"]:
    """Adds the eight neighbours of every pixel."""
    window = (1, 1, 3, 3)
    return jax.lax.reduce_window(masks, False, jax.lax.bitwise_or, window, (1, 1, 1, 1), "SAME")


def move_points(points: Float[Array, "b k p 2"], flow: Float[Array, "b k h w 2"]) -> Float[Array, "b k p 2"]:
    """Moves points (x, y) with their objects: p - flow(p), clamped to the image (method, section 4.4).

    A backward warp moves content by minus the flow. Exact where the flow is constant; else the error is the change of
    the flow over one displacement. The flow is a constant here.
    """
    b, k, h, w, _ = flow.shape
    start = points.reshape(b * k, -1, 2)
    near = corners(start, h, w)
    moved = start - blend(gather(flow.reshape(b * k, h, w, 2), near.index), near.weight)
    limit = jnp.asarray([w - 1, h - 1], points.dtype)
    return jnp.clip(moved, 0.0, limit[None, None, :]).reshape(points.shape)
