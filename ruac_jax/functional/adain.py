"""Adaptive instance normalisation by slots: colour statistics of image regions, and new ones put in their place.

A slot is one object of an image or, last, its background. Slots are disjoint regions given as an owner map: the number
of the slot that each pixel belongs to. Colours are ImageNet-normalised. Paper 3.3 and B.2; method, section 4.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MEAN_LIMIT = 5.0
STD_RANGE = (0.01, 5.0)
STD_FLOOR = 0.1  # a styled std stays above this, or above the slot's own where that is lower
COLOUR_LIMIT = 3.0
MIN_PIXELS = 100  # of a 1024 x 1024 image: fewer say nothing about a slot's colours
_EPSILON = 1e-6


class SlotStatistics(NamedTuple):
    """Colour statistics of `s` slots, per channel; constants."""

    mean: Float[Array, "b s 3"]
    std: Float[Array, "b s 3"]


class Recolouring(NamedTuple):
    """A change of colours per slot: x -> x + gain x + offset. Zero is exactly the identity."""

    gain: Float[Array, "b s 3"]
    offset: Float[Array, "b s 3"]


def owner_map(masks: Bool[Array, "b k h w"]) -> Int[Array, "b h w"]:
    """Slot of each pixel: the first object whose mask covers it, else `k`, the background."""
    return jnp.where(masks.any(axis=1), jnp.argmax(masks, axis=1), masks.shape[1]).astype(jnp.int32)


def spread(numbers: Float[Array, "b s c"], owner: Int[Array, "b *n"]) -> Float[Array, "b *n c"]:
    """Each pixel's row of `numbers`.

    A sum of selections over the few slots: looked up by index, its gradient would be a scatter.
    """
    b, slots, c = numbers.shape
    rows = numbers.reshape(b, slots, *(1,) * (owner.ndim - 1), c)
    return sum(jnp.where((owner == s)[..., None], rows[:, s], 0.0) for s in range(slots))


def slot_statistics(image: Float[Array, "b h w 3"], owner: Int[Array, "b h w"], slots: int) -> SlotStatistics:
    """Mean and (biased) standard deviation of each slot's pixels.

    Slots with fewer than 100 pixels (at 1024 x 1024, else in proportion to the area) get those of the whole image.
    Means are clipped to [-5, 5], standard deviations to [0.01, 5]. No gradient.
    """
    image = jax.lax.stop_gradient(image)
    regions = (owner[:, None] == jnp.arange(slots)[None, :, None, None]).astype(image.dtype)
    count = regions.sum(axis=(2, 3))[..., None]

    def average(x: jax.Array) -> jax.Array:
        total = jnp.einsum("bshw,bhwc->bsc", regions, x, precision="highest")
        return total / jnp.maximum(count, 1.0)

    mean = average(image)
    variance = average(jnp.square(image - spread(mean, owner)))
    whole_mean, whole_variance = image.mean(axis=(1, 2))[:, None], image.var(axis=(1, 2))[:, None]
    enough = count >= MIN_PIXELS * image.shape[1] * image.shape[2] / 1024**2
    return SlotStatistics(
        mean=jnp.clip(jnp.where(enough, mean, whole_mean), -MEAN_LIMIT, MEAN_LIMIT),
        std=jnp.clip(jnp.sqrt(jnp.where(enough, variance, whole_variance)), *STD_RANGE),
    )


def recolouring(delta: Float[Array, "b s 6"], statistics: SlotStatistics) -> Recolouring:
    """The colour change that adds `delta` = (mean shift, std shift) to the statistics.

    (x - mean) / (std + 1e-6) * (std + std shift) + mean + mean shift, in the algebraically equal form (but for the
    1e-6) that leaves x untouched where delta is zero.
    """
    gain = delta[..., 3:] / (statistics.std + _EPSILON)
    return Recolouring(gain=gain, offset=delta[..., :3] - statistics.mean * gain)


def recolour(colours: Float[Array, "b *n 3"], owner: Int[Array, "b *n"], change: Recolouring) -> Float[Array, "b *n 3"]:
    """Applies each pixel's slot's change and clips to [-3, 3]."""
    changed = colours + (colours * spread(change.gain, owner) + spread(change.offset, owner))
    return jnp.clip(changed, -COLOUR_LIMIT, COLOUR_LIMIT)
