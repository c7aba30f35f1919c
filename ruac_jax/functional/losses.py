"""Segmentation and calibration losses, per object and unweighted.

The segmentation terms are those of SAM2's recipe (training/loss_fns.py with IoU by L1 and supervised for all masks).
The weights belong to the objective, except 20 focal + dice, by which the best of several masks is chosen. One
deviation: terms are per object; leaving out padding and dividing by the object count is the caller's. All float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

FOCAL_ALPHA = 0.25
FOCAL_WEIGHT = 20.0  # against dice, for the choice of the best mask


class SegmentationTerms(NamedTuple):
    """Loss terms of each object, not weighted."""

    focal: Float[Array, "n"]
    dice: Float[Array, "n"]
    iou: Float[Array, "n"]
    object: Float[Array, "n"]


class CalibrationTerms(NamedTuple):
    """The two channels of the calibration loss of each object: equal in value, different in gradient."""

    error: Float[Array, "n"]
    uncertainty: Float[Array, "n"]


def focal_loss(logits: Float[Array, "n t h w"], target: Bool[Array, "n h w"]) -> Float[Array, "n t"]:
    """Sigmoid focal loss (Lin et al., 2017) with alpha 0.25 and gamma 2, mean over pixels.

    -alpha_y (1 - p_y)^2 log(p_y), p_y the probability given to the true class; finite for every finite logit.
    """
    truth = target[:, None]
    against = jnp.where(truth, -logits, logits)  # logit of the wrong class
    alpha = jnp.where(truth, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    loss = alpha * jnp.square(jax.nn.sigmoid(against)) * jax.nn.softplus(against)
    return loss.mean(axis=(2, 3))


def dice_loss(logits: Float[Array, "n t h w"], target: Bool[Array, "n h w"]) -> Float[Array, "n t"]:
    """1 - (2 sum p y + 1) / (sum p + sum y + 1), sums over pixels, in [0, 1)."""
    p = jax.nn.sigmoid(logits)
    y = target[:, None].astype(p.dtype)
    overlap = (p * y).sum(axis=(2, 3))
    total = p.sum(axis=(2, 3)) + y.sum(axis=(2, 3))
    return 1 - (2 * overlap + 1) / (total + 1)


def mask_iou(logits: Float[Array, "n t h w"], target: Bool[Array, "n h w"]) -> Float[Array, "n t"]:
    """Intersection over union of the masks logits > 0 with the truth; 0 where both are empty."""
    mask, truth = logits > 0, target[:, None]
    intersection = (mask & truth).sum(axis=(2, 3), dtype=jnp.int32)
    union = (mask | truth).sum(axis=(2, 3), dtype=jnp.int32)
    return intersection.astype(jnp.float32) / jnp.maximum(union, 1).astype(jnp.float32)


def segmentation_terms(
    logits: Float[Array, "n t h w"],
    target: Bool[Array, "n h w"],
    predicted_iou: Float[Array, "n t"],
    object_score: Float[Array, "n"],
) -> SegmentationTerms:
    """Loss terms of `t` mask hypotheses per object.

    Focal and dice are those of the hypothesis with the smallest 20 focal + dice, the IoU term |predicted - actual| is
    the mean over all. An object with an empty target is absent: its mask terms are zero, only `object`, the
    binary cross-entropy of its score, remains.

    Args:
      logits: mask logits at image resolution.
      target: true masks.
      predicted_iou: in [0, 1].
      object_score: logit of the object being present.
    """
    focal, dice = focal_loss(logits, target), dice_loss(logits, target)
    iou = jnp.abs(predicted_iou - jax.lax.stop_gradient(mask_iou(logits, target)))
    best = jnp.argmin(FOCAL_WEIGHT * focal + dice, axis=1)
    # A one-hot product: picking by index would scatter in the backward pass.
    choice = jax.nn.one_hot(best, logits.shape[1], dtype=focal.dtype)
    present = target.any(axis=(1, 2))
    weight = present.astype(focal.dtype)
    return SegmentationTerms(
        focal=(focal * choice).sum(axis=1) * weight,
        dice=(dice * choice).sum(axis=1) * weight,
        iou=iou.mean(axis=1) * weight,
        object=jax.nn.softplus(jnp.where(present, -object_score, object_score)),
    )


def calibration_terms(
    logits: Float[Array, "n h w"], target: Bool[Array, "n h w"], uncertainty: Float[Array, "n h w"]
) -> CalibrationTerms:
    """The calibration loss of eq. 5 in its two channels, each the mean over pixels.

    With the error e = |s(logit) - y|, the uncertainty u in [0, 1] and sg the stop of gradients:
      error       = e exp(-sg u) + (1 - e) exp(sg u), felt by the logits alone;
      uncertainty = sg e exp(-u) + (1 - sg e) exp(u), felt by the uncertainty alone.
    Descent raises u where e > s(2u) and lowers it elsewhere. The loss of the paper is the sum of the two.
    """
    error = jax.nn.sigmoid(jnp.where(target, -logits, logits))

    def mismatch(e: jax.Array, u: jax.Array) -> jax.Array:
        return (e * jnp.exp(-u) + (1 - e) * jnp.exp(u)).mean(axis=(1, 2))

    stop = jax.lax.stop_gradient
    return CalibrationTerms(error=mismatch(error, stop(uncertainty)), uncertainty=mismatch(stop(error), uncertainty))
