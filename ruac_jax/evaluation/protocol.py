"""One evaluation for every method: fixed clicks, one pass per object, all metrics at the image's own resolution.

The image is resized to the network's square (bilinear with antialiasing) and encoded once; each object gets the three
clicks of `prompts.fixed_clicks` (points scale as x * S / w); objects are decoded together in buckets of 1, 2, ... 64;
logits, probability and uncertainty are upsampled bilinearly and the mask is logits > 0. Each object is scored on
its own mask. Image sizes are padded to buckets too, so the number of compilations does not grow with the data.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8
from PIL import Image
from tqdm import tqdm

from ruac_jax.data.record import Record, Source
from ruac_jax.errors import UserError
from ruac_jax.evaluation.metrics.pixels import PixelCounts, PixelState, count_pixels, mean_uncertainty
from ruac_jax.evaluation.metrics.ranking import RankingState
from ruac_jax.evaluation.metrics.region import RegionState, score_objects
from ruac_jax.functional.resize import interpolation_matrix
from ruac_jax.prompts import fixed_clicks

OBJECT_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
_MEASURED_OBJECTS = 8  # at most this many objects, and this many pixels, are measured at once
_MEASURED_PIXELS = 1 << 23

Maps = Float[Array | np.ndarray, "n h w"]


@runtime_checkable
class Prediction(Protocol):
    """What a network says about `n` objects, on a grid of its own (SAM2: a quarter of its image size)."""

    @property
    def logits(self) -> Maps:
        """The mask is where they are above 0."""
        ...

    @property
    def probability(self) -> Maps:
        """Of the object at each pixel, in [0, 1]; the one that the uncertainty belongs to."""
        ...

    @property
    def uncertainty(self) -> Maps:
        """In [0, 1]."""
        ...


@runtime_checkable
class Predictor(Protocol):
    """A method under evaluation. Both methods should be jitted: they see few shapes (`OBJECT_BUCKETS`)."""

    @property
    def image_size(self) -> int:
        """Side S of the square image that it takes, px."""
        ...

    def encode(self, image: UInt8[np.ndarray, "s s 3"]) -> Any:
        """Features of an RGB image, computed once for all its objects."""
        ...

    def decode(self, features: Any, points: Float[np.ndarray, "n p 2"], labels: Int[np.ndarray, "n p"]) -> Prediction:
        """Segments `n` objects, n one of `OBJECT_BUCKETS`.

        Args:
          features: from `encode`.
          points: float32 (x, y) in pixels of the square image, integer coordinates being pixel centres as in SAM2.
          labels: int32, 1 for positive clicks.
        """
        ...


class Example(NamedTuple):
    """An evaluated image, to be drawn."""

    image: UInt8[np.ndarray, "h w 3"]
    truth: Bool[np.ndarray, "n h w"]
    prediction: Bool[np.ndarray, "n h w"]
    uncertainty: Float[np.ndarray, "n h w"]
    image_id: str


@dataclasses.dataclass(frozen=True)
class DatasetState:
    """All metrics of a dataset, mergeable."""

    images: int = 0
    skipped: int = 0  # objects without a pixel: they cannot be clicked
    region: RegionState = dataclasses.field(default_factory=RegionState)
    pixels: PixelState = dataclasses.field(default_factory=PixelState.empty)
    ranking: RankingState = dataclasses.field(default_factory=RankingState)

    def merge(self, other: "DatasetState") -> "DatasetState":
        """State of both sets of images together."""
        return DatasetState(
            self.images + other.images,
            self.skipped + other.skipped,
            self.region.merge(other.region),
            self.pixels.merge(other.pixels),
            self.ranking.merge(other.ranking),
        )

    def compute(self) -> dict[str, int | float | None]:
        """Every figure of the dataset, as fractions in [0, 1] (NLL in nats); None where one does not exist.

        `images`, `objects`, `skipped`, and what `RegionState`, `PixelState` and `RankingState` compute.
        """
        counts = {"images": self.images, "objects": self.region.objects, "skipped": self.skipped}
        return counts | self.region.compute() | self.ranking.compute() | self.pixels.compute()

    def curves(self) -> dict[str, dict[str, list[Any]]]:
        """Data of the figures: `risk_coverage` (masks), `risk_coverage_pixel`, `reliability`."""
        return {
            "risk_coverage": self.ranking.risk_coverage(),
            "risk_coverage_pixel": self.pixels.risk_coverage(),
            "reliability": self.pixels.reliability(),
        }


def evaluate_source(
    predictor: Predictor, source: Source, *, name: str = "", max_images: int | None = None, examples: int = 0
) -> tuple[DatasetState, list[Example]]:
    """Evaluates the records of a source in their order, with a progress bar.

    Args:
      predictor: the method.
      source: random access to records.
      name: shown beside the progress bar.
      max_images: only that many images from the start.
      examples: how many images to keep for drawing, evenly spread over those with objects.

    Returns:
      The state of the metrics, and the examples.

    Raises:
      UserError: a record's masks do not fit its image, or the network returned a value that is not finite.
    """
    count = len(source) if max_images is None else min(max_images, len(source))
    kept = {int(index) for index in np.linspace(0, count - 1, min(examples, count)).round()}
    state, drawn = DatasetState(), []
    for index in tqdm(range(count), desc=name or None, unit="image", leave=False):
        image_state, example = evaluate_record(predictor, source[index], with_example=index in kept)
        state = state.merge(image_state)
        if example is not None:
            drawn.append(example)
    return state, drawn


def evaluate_record(
    predictor: Predictor, record: Record, *, with_example: bool = False
) -> tuple[DatasetState, Example | None]:
    """Evaluates one image; the example is None unless wanted and there are objects. Errors as `evaluate_source`."""
    _check(record)
    image, masks = record["image"], record["masks"]
    truth = masks[masks.any(axis=(1, 2))]
    state = DatasetState(images=1, skipped=len(masks) - len(truth))
    if not len(truth):
        return state, None
    clicks = [fixed_clicks(mask) for mask in truth]
    points = np.stack([points for points, _ in clicks]) * _scale(image, predictor.image_size)
    labels = np.stack([labels for _, labels in clicks])
    features = predictor.encode(network_image(image, predictor.image_size))
    predictions, uncertainties = [], []
    for start in range(0, len(truth), OBJECT_BUCKETS[-1]):
        chosen = slice(start, start + OBJECT_BUCKETS[-1])
        maps = decode_padded(predictor, features, points[chosen], labels[chosen])
        measured, prediction = _measure_objects(maps, truth[chosen], record["image_id"])
        state = state.merge(measured)
        predictions.append(prediction)
        if with_example:
            uncertainties.append(upsample(maps.uncertainty, truth.shape[1:])[: len(prediction)])
    if not with_example:
        return state, None
    drawn = np.concatenate(predictions), np.concatenate(uncertainties)
    return state, Example(image, truth, *drawn, record["image_id"])


def network_image(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Stretches an image to the network's square, bilinearly, with antialiasing where it shrinks."""
    if image.shape[:2] == (size, size):
        return image
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def decode_padded(
    predictor: Predictor,
    features: Any,
    points: Float[np.ndarray, "n p 2"],
    labels: Int[np.ndarray, "n p"],
) -> Prediction:
    """Decodes up to 64 objects, padded to a bucket by repeating the last: the prediction has the bucket's length."""
    bucket = next(size for size in OBJECT_BUCKETS if size >= len(points))
    rows = np.minimum(np.arange(bucket), len(points) - 1)
    return predictor.decode(features, points[rows].astype(np.float32), labels[rows].astype(np.int32))


def upsample(maps: Maps, size: tuple[int, ...]) -> Float[np.ndarray, "n H W"]:
    """Bilinear, half-pixel centres, as SAM2 brings masks to the image's size (height, width); on the host."""
    rows, columns = (
        interpolation_matrix(source, target, "bilinear").astype(np.float32)
        for source, target in zip(maps.shape[1:], size, strict=True)
    )
    return rows @ np.asarray(maps, np.float32) @ columns.T


def _measure_objects(
    maps: Prediction, truth: Bool[np.ndarray, "n h w"], image_id: str
) -> tuple[DatasetState, Bool[np.ndarray, "n h w"]]:
    """Metrics of the first `n` objects of a prediction, and their masks at the image's size."""
    objects, height, width = truth.shape
    frame = _frame(height), _frame(width)
    rows = _padded_matrix(maps.logits.shape[1], height, frame[0])
    columns = _padded_matrix(maps.logits.shape[2], width, frame[1])
    bucket = len(maps.logits)
    step = min(bucket, _MEASURED_OBJECTS)
    while step > 1 and step * frame[0] * frame[1] > _MEASURED_PIXELS:
        step //= 2
    state, masks = DatasetState(), []
    for start in range(0, objects, step):
        part = truth[start : start + step]
        padded = np.zeros((step, *frame), bool)
        padded[: len(part), :height, :width] = part
        extent = np.array([len(part), height, width], np.int32)
        low = _take(maps.logits, maps.probability, maps.uncertainty, np.int32(start), step)
        counts = _measure(*low, padded, rows, columns, extent)
        if not counts.finite:
            raise UserError(f"{image_id}: the network returned values that are not finite")
        mask = np.asarray(counts.mask)[: len(part), :height, :width]
        j, f = score_objects(mask, part)
        uncertainty = mean_uncertainty(counts, len(part), height * width)
        state = state.merge(
            DatasetState(
                region=RegionState.from_scores(j, f),
                pixels=PixelState.from_counts(counts),
                ranking=RankingState.from_objects(*uncertainty, j),
            )
        )
        masks.append(mask)
    return state, np.concatenate(masks)


@functools.partial(jax.jit, static_argnums=4)
def _take(
    logits: Maps, probability: Maps, uncertainty: Maps, start: Int[Array | np.integer, ""], count: int
) -> tuple[Float[Array, "m h w"], ...]:
    """Objects `start` to `start + count`: apart from `_measure`, which then compiles for fewer shapes."""
    maps = (logits, probability, uncertainty)
    return tuple(jax.lax.dynamic_slice_in_dim(each.astype(jnp.float32), start, count) for each in maps)


@jax.jit
def _measure(
    logits: Float[Array, "m h w"],
    probability: Float[Array, "m h w"],
    uncertainty: Float[Array, "m h w"],
    truth: Bool[Array | np.ndarray, "m H W"],
    rows: Float[Array | np.ndarray, "H h"],
    columns: Float[Array | np.ndarray, "W w"],
    extent: Int[Array | np.ndarray, "3"],
) -> PixelCounts:
    """Upsamples `m` objects and counts their pixels within `extent` (objects, height, width)."""

    def enlarge(maps: Float[Array, "m h w"]) -> Float[Array, "m H W"]:
        return jnp.einsum("Hh,nhw,Ww->nHW", rows, maps, columns, precision=jax.lax.Precision.HIGHEST)

    inside = [jnp.arange(size) < extent[axis] for axis, size in enumerate(truth.shape)]
    valid = inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]
    return count_pixels(enlarge(logits), enlarge(probability), enlarge(uncertainty), truth, valid)


@functools.lru_cache(maxsize=64)
def _padded_matrix(source: int, target: int, padded: int) -> Float[np.ndarray, "{padded} {source}"]:
    matrix = np.zeros((padded, source), np.float32)
    matrix[:target] = interpolation_matrix(source, target, "bilinear")
    return matrix


def _frame(side: int) -> int:
    """Side of the padded image: few values, so few compilations."""
    step = 128 if side <= 512 else 256 if side <= 2048 else 1024
    return -(-side // step) * step


def _scale(image: UInt8[np.ndarray, "h w 3"], size: int) -> Float[np.ndarray, "2"]:
    height, width = image.shape[:2]
    return np.array([size / width, size / height])


def _check(record: Record) -> None:
    image, masks = record["image"], record["masks"]
    shapes: Sequence[int] = masks.shape[1:]
    if masks.ndim != 3 or tuple(shapes) != image.shape[:2]:
        raise UserError(
            f"{record['image_id']}: masks of shape {masks.shape} do not fit an image of {image.shape[:2]} (h, w)"
        )
