"""Masks of everything in an image: a grid of clicks, filtered by predicted IoU, stability and overlap.

Mirrors sam2/automatic_mask_generator.py and sam2/utils/amg.py. Deviations: no crops and no refinement of masks by
masks; each mask has its uncertainty; empty masks are always dropped; `min_mask_region_area` does what SAM2's
`postprocess_small_regions` does, in pixels of the image and without OpenCV.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from PIL import Image
from scipy import ndimage

from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.errors import UserError
from ruac_jax.functional.upsample import Taps, frame_taps, upsample
from ruac_jax.heads.distribution import VarianceMode
from ruac_jax.predictor import Predictor, UncertaintyOptions
from ruac_jax.prompt_rows import prompt_rows

_MASKS_AT_ONCE = 16  # upsampled together
_EIGHT_NEIGHBOURS = np.ones((3, 3), int)


class RunLengths(TypedDict):
    """A mask as COCO stores it in JSON."""

    size: list[int]  # height, width
    counts: str  # compressed, column by column


class MaskRecord(TypedDict):
    """One mask, under SAM2's names."""

    segmentation: np.ndarray | RunLengths  # [h, w] booleans or COCO's run lengths
    bbox: list[int]  # x, y, width, height from first to last pixel, as SAM2 measures them: one pixel has width 0
    area: int  # px
    predicted_iou: float
    stability_score: float  # IoU of the masks at two thresholds
    point_coords: list[list[float]]  # the click it came from, (x, y) px
    uncertainty_mean: float  # over the mask's pixels, in [0, 1]
    uncertainty: NotRequired[np.ndarray]  # [h, w] float32, where asked for


class _Candidate(NamedTuple):
    mask: RunLengthMasks  # of one
    box: tuple[int, int, int, int]  # x0, y0, x1, y1: first and last pixel
    iou: float
    stability: float
    point: tuple[float, float]
    uncertainty_mean: float
    uncertainty: np.ndarray | None  # on the network's grid
    changed: bool = False


class AutomaticMaskGenerator:
    """Segments everything: `generate(image)` gives a list of `MaskRecord`s."""

    def __init__(
        self,
        predictor: Predictor,
        *,
        points_per_side: int = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.8,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        min_mask_region_area: int = 0,
        output_mode: Literal["binary_mask", "coco_rle"] = "binary_mask",
        sort_by: Literal["predicted_iou", "area"] = "predicted_iou",
        uncertainty_maps: bool = False,
        variance: VarianceMode = "product",
    ):
        """Takes a predictor, whose image it sets and forgets.

        Args:
          predictor: for the masks and their threshold.
          points_per_side: the grid has its square of clicks.
          points_per_batch: clicks decoded at once, best a power of two; more need more memory.
          pred_iou_thresh: masks have to have a higher predicted IoU.
          stability_score_thresh: masks have to be at least so stable.
          stability_score_offset: stability compares the masks at this much above and below the threshold.
          box_nms_thresh: of masks whose boxes have a higher IoU, the one of the highest predicted IoU is kept.
          min_mask_region_area: holes and islands smaller than this (px) are filled and removed; 0: none.
          output_mode: booleans, or COCO's run lengths.
          sort_by: largest first.
          uncertainty_maps: records have the whole map, too.
          variance: which logit variance the uncertainty uses.

        Raises:
          UserError: a setting out of its range.
        """
        _check("points_per_side", points_per_side, 1, None)
        _check("points_per_batch", points_per_batch, 1, None)
        _check("pred_iou_thresh", pred_iou_thresh, 0, 1)
        _check("stability_score_thresh", stability_score_thresh, 0, 1)
        _check("stability_score_offset", stability_score_offset, 0, None)
        _check("box_nms_thresh", box_nms_thresh, 0, 1)
        _check("min_mask_region_area", min_mask_region_area, 0, None)
        _check_choice("output_mode", output_mode, ("binary_mask", "coco_rle"))
        _check_choice("sort_by", sort_by, ("predicted_iou", "area"))
        _check_choice("variance", variance, ("product", "full"))
        self.predictor = predictor
        self.points_per_side = points_per_side
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode
        self.sort_by = sort_by
        self.uncertainty_maps = uncertainty_maps
        self._options = UncertaintyOptions(variance=variance)

    def generate(self, image: np.ndarray | Image.Image) -> list[MaskRecord]:
        """Segments an image.

        Args:
          image: what `Predictor.set_image` takes.

        Returns:
          A record for each mask, sorted; none where no mask passes.

        Raises:
          UserError: not an image.
        """
        self.predictor.set_image(image)
        try:
            (size,) = self.predictor.original_sizes
            points = (point_grid(self.points_per_side) * np.array([size[1], size[0]])).astype(np.float32)
            found = []
            batch = min(self.points_per_batch, len(points))
            for start in range(0, len(points), batch):
                found += self._candidates(points[start : start + batch], batch, size)
        finally:
            self.predictor.reset_predictor()
        found = _suppressed(found, np.array([each.iou for each in found]), self.box_nms_thresh)
        if self.min_mask_region_area:
            cleaned = [_cleaned(each, self.min_mask_region_area) for each in found]
            unchanged = np.array([not each.changed for each in cleaned], float)
            found = _suppressed(cleaned, unchanged, self.box_nms_thresh)
        records = [self._record(each, size) for each in found]
        return sorted(records, key=lambda record: -record[self.sort_by])

    def _candidates(self, points: Float[np.ndarray, "n 2"], batch: int, size: tuple[int, int]) -> list[_Candidate]:
        """Masks of at most `batch` clicks that pass both filters."""
        side = self.predictor.image_size
        clicks = np.pad(points, ((0, batch - len(points)), (0, 0)), mode="edge")[:, None]
        labels = np.ones(clicks.shape[:2], np.int32)
        prompts = prompt_rows(clicks, labels, None, None, original=size, image_size=side, normalize=True)
        answer = self.predictor.decode(prompts, np.zeros(batch, np.int32), several=True, options=self._options)
        iou = np.asarray(answer.iou)[: len(points)]
        good = iou > self.pred_iou_thresh if self.pred_iou_thresh > 0 else np.ones(iou.shape, bool)
        places = np.argwhere(good).astype(np.int32)  # object, hypothesis
        taps = frame_taps(side // 4, size[0]), frame_taps(side // 4, size[1])
        levels = self.predictor.mask_threshold + self.stability_score_offset * np.array([1.0, 0.0, -1.0])
        with_map = self.uncertainty_maps or self.min_mask_region_area > 0
        candidates = []
        for start in range(0, len(places), _MASKS_AT_ONCE):
            part = places[start : start + _MASKS_AT_ONCE]
            padded = np.pad(part, [(0, _MASKS_AT_ONCE - len(part)), (0, 0)], mode="edge")
            extent = np.array(size, np.int32)
            measured = _measure(answer.logits, answer.uncertainty, padded, *taps, extent, levels.astype(np.float32))
            inner, area, outer, boxes, means = (np.asarray(x)[: len(part)] for x in measured[1:])
            stability = inner.astype(np.float32) / np.maximum(outer, 1).astype(np.float32)
            passed = np.flatnonzero((stability >= np.float32(self.stability_score_thresh)) & (area > 0))
            masks = np.asarray(measured[0]) if len(passed) else None
            for i in passed:
                row, hypothesis = part[i]
                candidates.append(
                    _Candidate(
                        mask=RunLengthMasks.encode(size, [masks[i, : size[0], : size[1]]]),
                        box=tuple(boxes[i].tolist()),
                        iou=float(iou[row, hypothesis]),
                        stability=float(stability[i]),
                        point=tuple(points[row].tolist()),
                        uncertainty_mean=float(means[i]),
                        uncertainty=np.asarray(answer.uncertainty[row, hypothesis]) if with_map else None,
                    )
                )
        return candidates

    def _record(self, found: _Candidate, size: tuple[int, int]) -> MaskRecord:
        x0, y0, x1, y1 = found.box
        if self.output_mode == "binary_mask":
            segmentation = found.mask[:][0]
        else:
            segmentation = RunLengths(size=list(size), counts=found.mask.counts[0].decode())
        record = MaskRecord(
            segmentation=segmentation,
            bbox=[x0, y0, x1 - x0, y1 - y0],
            area=int(found.mask.areas()[0]),
            predicted_iou=found.iou,
            stability_score=found.stability,
            point_coords=[list(found.point)],
            uncertainty_mean=found.uncertainty_mean,
        )
        if self.uncertainty_maps:
            record["uncertainty"] = _full_size(found.uncertainty, size)
        return record


def point_grid(per_side: int) -> Float[np.ndarray, "n 2"]:
    """Centres (x, y) of a grid of cells over the unit square, row by row."""
    centres = (np.arange(per_side) + 0.5) / per_side
    return np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)


def box_nms(
    boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, "n"], threshold: float
) -> Int[np.ndarray, "kept"]:
    """Greedy non-maximum suppression, as torchvision's: indices of the boxes kept, highest score first.

    A box goes where its IoU with a kept one is above `threshold`; of equal scores the first counts as higher. Boxes are
    (x0, y0, x1, y1) with sides x1 - x0 and y1 - y0; those without area overlap nothing.
    """
    order = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        order = order[shared <= threshold * (areas[best] + areas[order] - shared)]
    return np.array(kept, int)


def remove_small_regions(mask: Bool[np.ndarray, "h w"], least: int) -> tuple[Bool[np.ndarray, "h w"], bool]:
    """Fills holes, then removes islands, of fewer than `least` pixels (8-connected); whether anything changed.

    Where every island is small, the largest stays. Mirrors `remove_small_regions` of sam2/utils/amg.py.
    """
    regions, count = ndimage.label(~mask, _EIGHT_NEIGHBOURS)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    holes = (sizes < least) & (np.arange(count + 1) > 0)
    filled = mask | holes[regions]
    regions, count = ndimage.label(filled, _EIGHT_NEIGHBOURS)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    sizes[0] = 0
    stay = sizes >= least
    if count and not stay.any():
        stay[np.argmax(sizes)] = True
    stay[0] = False
    result = stay[regions]
    return result, bool((result != mask).any())


def _suppressed(found: Sequence[_Candidate], scores: np.ndarray, threshold: float) -> list[_Candidate]:
    boxes = np.array([each.box for each in found], np.float64).reshape(-1, 4)
    return [found[i] for i in box_nms(boxes, scores.astype(np.float64), threshold)]


def _cleaned(found: _Candidate, least: int) -> _Candidate:
    mask, changed = remove_small_regions(found.mask[:][0], least)
    if not changed:
        return found
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
    return found._replace(
        mask=RunLengthMasks.encode(mask.shape, [mask]),
        box=box,
        uncertainty_mean=float(_full_size(found.uncertainty, mask.shape)[mask].mean()),
        changed=True,
    )


def _full_size(uncertainty: Float[np.ndarray, "h w"], size: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    taps = [frame_taps(source, target) for source, target in zip(uncertainty.shape, size, strict=True)]
    return np.clip(np.asarray(_enlarge(uncertainty, *taps))[: size[0], : size[1]], 0.0, 1.0)


def _check(name: str, value: int | float, low: int, high: int | None) -> None:
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise UserError(f"{name}: expected {limits}, found {value}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name}: expected {' or '.join(map(repr, choices))}, found {value!r}")


_enlarge = jax.jit(upsample)


@jax.jit
def _measure(
    logits: Float[Array, "n t h w"],
    uncertainty: Float[Array, "n t h w"],
    places: Int[Array | np.ndarray, "m 2"],
    rows: Taps,
    columns: Taps,
    extent: Int[Array | np.ndarray, "2"],
    levels: Float[Array | np.ndarray, "3"],
) -> tuple[Array, ...]:
    """Masks in a frame; pixels above each of the levels (the second is the mask's own); box; mean uncertainty."""
    chosen = places[:, 0], places[:, 1]
    large = upsample(logits[chosen], rows, columns)
    height, width = large.shape[1:]
    y, x = jnp.arange(height), jnp.arange(width)
    inside = (y < extent[0])[:, None] & (x < extent[1])[None, :]
    above = [(large > level) & inside[None] for level in levels]
    counts = [mask.sum(axis=(1, 2), dtype=jnp.int32) for mask in above]
    mask = above[1]
    box = [edge for axis in (1, 2) for edge in _edges(mask.any(axis=axis))]
    boxes = jnp.stack([box[0], box[2], box[1], box[3]], axis=1)
    total = jnp.where(mask, upsample(uncertainty[chosen], rows, columns), 0.0).sum(axis=(1, 2))
    return mask, *counts, boxes, total / jnp.maximum(counts[1], 1).astype(jnp.float32)


def _edges(present: Bool[Array, "m s"]) -> tuple[Int[Array, "m"], Int[Array, "m"]]:
    """First and last index that is present."""
    return jnp.argmax(present, axis=1), present.shape[1] - 1 - jnp.argmax(present[:, ::-1], axis=1)
