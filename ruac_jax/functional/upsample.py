"""Bilinear upsampling to many image sizes with few compilations: the geometry is data, frames have few sizes.

Agrees with `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`, also where it shrinks. Uses
gathers, four times as fast as matrix products on a CPU; not for training.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class Taps(NamedTuple):
    """For every sample of a target axis its two neighbours on the source axis.

    Attributes:
      low: index of the first.
      high: index of the second.
      weight: of the second, 0 to 1; the first one has the rest.
    """

    low: Int[Array | np.ndarray, "target"]
    high: Int[Array | np.ndarray, "target"]
    weight: Float[Array | np.ndarray, "target"]


def frame_side(side: int) -> int:
    """Side of a padded image, px: few values, so few compilations."""
    step = 128 if side <= 512 else 256 if side <= 2048 else 1024
    return -(-side // step) * step


def frame_taps(source: int, target: int) -> Taps:
    """Taps that resize `source` samples to `target`, followed by whatever fills the frame."""
    centres = np.maximum((np.arange(frame_side(target)) + 0.5) * (source / target) - 0.5, 0.0)
    low = np.minimum(np.floor(centres).astype(np.int32), source - 1)
    return Taps(low, np.minimum(low + 1, source - 1), np.clip(centres - low, 0.0, 1.0).astype(np.float32))


def upsample(maps: Float[Array, "*n h w"], rows: Taps, columns: Taps) -> Float[Array, "*n height width"]:
    """Resizes maps to the frame that the taps of rows and columns describe."""
    x = _along_last(maps.astype(jnp.float32), columns)
    return jnp.swapaxes(_along_last(jnp.swapaxes(x, -1, -2), rows), -1, -2)


def _along_last(x: Float[Array, "*n s"], taps: Taps) -> Float[Array, "*n t"]:
    weight = jnp.asarray(taps.weight).reshape((1,) * (x.ndim - 1) + (-1,))
    return x[..., taps.low] * (1 - weight) + x[..., taps.high] * weight
