"""From a prediction on the network's grid to metrics at the image's own resolution.

Logits, probability and uncertainty are upsampled bilinearly and counted on device, a few objects at a time; image
sizes are padded to few frames, so that the number of compilations does not grow with the data.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ruac_jax.errors import UserError
from ruac_jax.evaluation.correction import CorrectionState
from ruac_jax.evaluation.metrics.object_calibration import ObjectCalibrationState
from ruac_jax.evaluation.metrics.patches import PatchState, count_patches
from ruac_jax.evaluation.metrics.pixels import (
    PixelCounts,
    PixelState,
    count_pixels,
    mean_soft_accuracy,
    mean_uncertainty,
)
from ruac_jax.evaluation.metrics.ranking import RankingState
from ruac_jax.evaluation.metrics.region import RegionState, score_objects
from ruac_jax.evaluation.metrics.temperature import TemperatureState, count_logits
from ruac_jax.evaluation.prediction import Maps, Prediction
from ruac_jax.evaluation.state import DatasetState
from ruac_jax.evaluation.strata import StrataState
from ruac_jax.functional.resize import interpolation_matrix
from ruac_jax.functional.upsample import frame_side

_MEASURED_OBJECTS = 8  # at most this many objects, and this many pixels, are measured at once
_MEASURED_PIXELS = 1 << 23


class Measured(NamedTuple):
    """Some objects of an image at its own resolution."""

    state: DatasetState
    mask: Bool[np.ndarray, "m h w"]
    uncertainty: Float[np.ndarray, "m h w"]


class _Counted(NamedTuple):
    counts: PixelCounts
    logits: Array
    patches: Array
    uncertainty: Array


def objects_at_once(bucket: int, size: tuple[int, int]) -> int:
    """How many objects of an image of (height, width) `measure_objects` takes, of a prediction for `bucket` objects."""
    step = min(bucket, _MEASURED_OBJECTS)
    while step > 1 and step * frame_side(size[0]) * frame_side(size[1]) > _MEASURED_PIXELS:
        step //= 2
    return step


def measure_objects(
    maps: Prediction, start: int, count: int, truth: Bool[np.ndarray, "m h w"], patch: int, image_id: str
) -> Measured:
    """Measures objects `start` to `start + m` of a prediction, m at most `count`.

    Args:
      maps: prediction for a bucket of objects.
      start: the first object.
      count: `objects_at_once` of the bucket and the image's size.
      truth: their masks.
      patch: side of PAvPU's patches, px.
      image_id: for errors.

    Raises:
      UserError: the network returned a value that is not finite.
    """
    objects, height, width = truth.shape
    frame = frame_side(height), frame_side(width)
    rows = _padded_matrix(maps.logits.shape[1], height, frame[0])
    columns = _padded_matrix(maps.logits.shape[2], width, frame[1])
    padded = np.zeros((count, *frame), bool)
    padded[:objects, :height, :width] = truth
    extent = np.array([objects, height, width], np.int32)
    low = _take(maps.logits, maps.probability, maps.uncertainty, np.int32(start), count)
    counted = _measure(*low, padded, rows, columns, extent, patch)
    if not counted.counts.finite:
        raise UserError(f"{image_id}: the network returned values that are not finite")
    mask = np.asarray(counted.counts.mask)[:objects, :height, :width]
    uncertainty = np.asarray(counted.uncertainty)[:objects, :height, :width]
    j, f = score_objects(mask, truth)
    means = mean_uncertainty(counted.counts, objects, height * width)
    soft_accuracy = mean_soft_accuracy(counted.counts, objects, height * width)
    state = DatasetState(
        region=RegionState.from_scores(j, f),
        pixels=PixelState.from_counts(counted.counts),
        ranking=RankingState.from_objects(*means, j),
        temperature=TemperatureState.from_counts(counted.logits),
        patches=PatchState.from_counts(patch, counted.patches),
        calibration=ObjectCalibrationState.from_objects(means[0], soft_accuracy),
        correction=CorrectionState.from_objects(mask, uncertainty, truth, j, f),
        strata=StrataState.from_objects(truth, j, f, means[0]),
    )
    return Measured(state, mask, uncertainty)


def upsample(maps: Maps, size: tuple[int, int]) -> Float[np.ndarray, "n H W"]:
    """Bilinear, half-pixel centres, as SAM2 brings masks to the image's size (height, width); on the host."""
    rows, columns = (
        interpolation_matrix(source, target, "bilinear").astype(np.float32)
        for source, target in zip(maps.shape[1:], size, strict=True)
    )
    return rows @ np.asarray(maps, np.float32) @ columns.T


@functools.partial(jax.jit, static_argnums=4)
def _take(
    logits: Maps, probability: Maps, uncertainty: Maps, start: Int[Array | np.integer, ""], count: int
) -> tuple[Float[Array, "m h w"], ...]:
    """Objects `start` to `start + count`: apart from `_measure`, which then compiles for fewer shapes."""
    maps = (logits, probability, uncertainty)
    return tuple(jax.lax.dynamic_slice_in_dim(each.astype(jnp.float32), start, count) for each in maps)


@functools.partial(jax.jit, static_argnums=7)
def _measure(
    logits: Float[Array, "m h w"],
    probability: Float[Array, "m h w"],
    uncertainty: Float[Array, "m h w"],
    truth: Bool[Array | np.ndarray, "m H W"],
    rows: Float[Array | np.ndarray, "H h"],
    columns: Float[Array | np.ndarray, "W w"],
    extent: Int[Array | np.ndarray, "3"],
    patch: int,
) -> _Counted:
    """Upsamples `m` objects and counts their pixels within `extent` (objects, height, width)."""

    def enlarge(maps: Float[Array, "m h w"]) -> Float[Array, "m H W"]:
        return jnp.einsum("Hh,nhw,Ww->nHW", rows, maps, columns, precision=jax.lax.Precision.HIGHEST)

    inside = [jnp.arange(size) < extent[axis] for axis, size in enumerate(truth.shape)]
    valid = inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]
    z, p, u = enlarge(logits), enlarge(probability), enlarge(uncertainty)
    return _Counted(
        counts=count_pixels(z, p, u, truth, valid),
        logits=count_logits(z, p, truth, valid),
        patches=count_patches(z, u, truth, valid, patch),
        uncertainty=u,
    )


@functools.lru_cache(maxsize=64)
def _padded_matrix(source: int, target: int, padded: int) -> Float[np.ndarray, "{padded} {source}"]:
    matrix = np.zeros((padded, source), np.float32)
    matrix[:target] = interpolation_matrix(source, target, "bilinear")
    return matrix
