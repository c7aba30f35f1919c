"""One evaluation for every method: the same clicks, one encoding per image, all metrics at the image's own resolution.

The image is resized to the network's square (bilinear with antialiasing) and encoded once; its objects are decoded
together in buckets of 1, 2, ... 64. Each object is scored on its own mask. Two ways of clicking: "fixed3" gives the
three clicks of `prompts.fixed_points`, all at once; "interactive3" gives the first of them, then twice corrects the
largest error (`prompts.corrective_click`) with the last logits fed back, as the reference code does.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8
from PIL import Image
from tqdm import tqdm

from ruac_jax.data.masks import Masks, mask_areas
from ruac_jax.data.record import Record, Source
from ruac_jax.errors import UserError
from ruac_jax.evaluation.measure import measure_objects, objects_at_once, upsample
from ruac_jax.evaluation.prediction import OBJECT_BUCKETS, Prediction, Predictor
from ruac_jax.evaluation.state import DatasetState, digest_prompts
from ruac_jax.prompts import CLICKS, corrective_click, fixed_points
from ruac_jax.sam2.prompt_encoder import ABSENT, POSITIVE
from ruac_jax.threads import map_in_threads

_THREADS_PER_DEVICE = 2  # one reads and scores while the other's network runs
_DRAWN_OBJECTS = 16


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How objects are prompted and which are judged.

    Attributes:
      prompts: "fixed3" or "interactive3".
      max_objects: the largest so many of an image are judged (ties: earlier ones); None: all.
      patch: side of the patches of `PatchState`, px.
    """

    prompts: Literal["fixed3", "interactive3"] = "fixed3"
    max_objects: int | None = None
    patch: int = 4


class Example(NamedTuple):
    """An evaluated image, to be drawn: its first objects."""

    image: UInt8[np.ndarray, "h w 3"]
    truth: Bool[np.ndarray, "n h w"]
    prediction: Bool[np.ndarray, "n h w"]
    uncertainty: Float[np.ndarray, "n h w"]
    image_id: str


_FIXED = Protocol()


def evaluate_source(
    predictors: Sequence[Predictor],
    source: Source,
    *,
    indices: Sequence[int] | None = None,
    protocol: Protocol = _FIXED,
    name: str = "",
    drawn: frozenset[int] = frozenset(),
    draw: Callable[[Example], None] | None = None,
    in_turn: bool = False,
) -> DatasetState:
    """Evaluates records of a source, with a progress bar.

    Args:
      predictors: the method, once for each device; images take turns.
      source: random access to records.
      indices: the records to evaluate; None: all.
      protocol: prompts and objects.
      name: shown beside the progress bar.
      drawn: of `indices`, those to hand to `draw`.
      draw: called with each of these that has objects.
      in_turn: one image after the other, for a method that remembers.

    Returns:
      The state of the metrics; the same to the last bit for any number of devices and any order.

    Raises:
      UserError: a record's masks do not fit its image, or the network returned a value that is not finite.
    """
    chosen = range(len(source)) if indices is None else indices

    def evaluate(task: tuple[int, Predictor]) -> tuple[DatasetState, Example | None]:
        index, predictor = task
        return evaluate_record(predictor, source[index], protocol, with_example=index in drawn)

    state = DatasetState()
    tasks = zip(chosen, itertools.cycle(predictors), strict=False)
    results = map_in_threads(evaluate, tasks, 1 if in_turn else _THREADS_PER_DEVICE * len(predictors))
    for image_state, example in tqdm(results, name or None, len(chosen), unit="image", leave=False, dynamic_ncols=True):
        state = state.merge(image_state)
        if example is not None and draw is not None:
            draw(example)
    return state


def evaluate_record(
    predictor: Predictor, record: Record, protocol: Protocol = _FIXED, *, with_example: bool = False
) -> tuple[DatasetState, Example | None]:
    """Evaluates one image; the example is None unless wanted and there are objects. Errors as `evaluate_source`."""
    _check(record)
    image, masks, image_id = record["image"], record["masks"], record["image_id"]
    areas = mask_areas(masks)
    judged = _judged(areas, protocol.max_objects)
    points = record["points"][judged] if "points" in record else fixed_points(masks, judged)
    state = DatasetState(
        images=1,
        skipped=int(np.count_nonzero(areas == 0)),
        left_out=int(np.count_nonzero(areas)) - len(judged),
        prompts=digest_prompts(image_id, points) if len(judged) else 0,
    )
    if not len(judged):
        return state, None
    features = predictor.encode(network_image(image, predictor.image_size))
    size = image.shape[:2]
    scale = np.array([predictor.image_size / size[1], predictor.image_size / size[0]])
    shown: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(judged), OBJECT_BUCKETS[-1]):
        part = judged[start : start + OBJECT_BUCKETS[-1]]
        clicks = points[start : start + len(part)]
        if protocol.prompts == "fixed3":
            labels = np.full(clicks.shape[:2], POSITIVE)
            maps = decode_padded(predictor, features, clicks * scale, labels)
        else:
            maps = _interact(predictor, features, clicks[:, 0], scale, masks, part)
        step = objects_at_once(len(maps.logits), size)
        for first in range(0, len(part), step):
            truth = masks[part[first : first + step]]
            measured = measure_objects(maps, first, step, truth, protocol.patch, image_id)
            state = state.merge(measured.state)
            if with_example and sum(len(pieces[0]) for pieces in shown) < _DRAWN_OBJECTS:
                shown.append((truth, measured.mask, measured.uncertainty))
    if not with_example:
        return state, None
    drawn = (np.concatenate(pieces) for pieces in zip(*shown, strict=True))
    return state, Example(image, *drawn, image_id)


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
    previous: Float[Array | np.ndarray, "bucket h w"] | None = None,
) -> Prediction:
    """Decodes up to 64 objects, padded to a bucket by repeating the last: the prediction has the bucket's length.

    `previous` has the bucket's length too.
    """
    bucket = next(size for size in OBJECT_BUCKETS if size >= len(points))
    rows = np.minimum(np.arange(bucket), len(points) - 1)
    given = points[rows].astype(np.float32), labels[rows].astype(np.int32)
    return predictor.decode(features, *given) if previous is None else predictor.decode(features, *given, previous)


def _interact(
    predictor: Predictor,
    features: Any,
    first: Int[np.ndarray, "n 2"],
    scale: Float[np.ndarray, "2"],
    masks: Masks,
    rows: Int[np.ndarray, "n"],
) -> Prediction:
    """One click, then corrections; an object without an error gets no further click."""
    points = np.zeros((len(first), CLICKS, 2))
    labels = np.full((len(first), CLICKS), ABSENT)
    points[:, 0], labels[:, 0] = first * scale, POSITIVE
    maps = decode_padded(predictor, features, points, labels)
    for turn in range(1, CLICKS):
        logits = np.asarray(maps.logits)
        for index, row in enumerate(rows):
            truth = masks[row : row + 1][0]
            prediction = upsample(logits[index : index + 1], truth.shape)[0] > 0
            if (click := corrective_click(truth, prediction)) is not None:
                points[index, turn], labels[index, turn] = click[0] * scale, click[1]
        maps = decode_padded(predictor, features, points, labels, maps.logits)
    return maps


def _judged(areas: Int[np.ndarray, "n"], most: int | None) -> Int[np.ndarray, "m"]:
    """Indices of the objects to judge, in their order."""
    present = np.flatnonzero(areas)
    if most is None or len(present) <= most:
        return present
    return np.sort(present[np.argsort(-areas[present], kind="stable")[:most]])


def _check(record: Record) -> None:
    image, masks = record["image"], record["masks"]
    if len(masks.shape) != 3 or tuple(masks.shape[1:]) != image.shape[:2]:
        raise UserError(
            f"{record['image_id']}: masks of shape {masks.shape} do not fit an image of {image.shape[:2]} (h, w)"
        )
