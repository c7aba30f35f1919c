"""From the prompts of SAM2's image predictor to rows for the network: one per object, every mistake a `UserError`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ruac_jax.errors import UserError
from ruac_jax.model import Prompts
from ruac_jax.sam2.prompt_encoder import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NO_POINTS, PADDING

_LABELS = (PADDING, 0, 1, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)


def prompt_rows(
    point_coords: Any,
    point_labels: Any,
    box: Any,
    mask_input: Any,
    *,
    original: tuple[int, int],
    image_size: int,
    normalize: bool,
) -> Prompts:
    """Prompts of `n` objects of one image, as numpy arrays; rows with a box have its corners first, as in SAM2.

    Args:
      point_coords: (x, y), `[p, 2]` for one object or `[n, p, 2]`; None: no points.
      point_labels: `[p]` or `[n, p]`: 1 positive, 0 negative, -1 ignored by SAM2's convention.
      box: (x0, y0, x1, y1), `[4]` or `[n, 4]`; None: no boxes.
      mask_input: logits at a quarter of the network's image size, `[1, h, w]` (for every object) or `[n, 1, h, w]`.
      original: height and width of the image, px.
      image_size: side of the network's square image, px.
      normalize: coordinates are in pixels of the image; else they are fractions of its sides.

    Raises:
      UserError: shapes or numbers of objects that do not fit together, unknown labels, a box with its corners
        swapped, or values that are not finite.
    """
    scale = (original[1], original[0]) if normalize else (1, 1)
    points, labels = _points(point_coords, point_labels)
    corners = _boxes(box)
    masks = _masks(mask_input, image_size // 4)
    if points is not None and corners is not None and len(points) != len(corners):
        raise UserError(
            f"box and point_coords: expected as many rows of points as boxes, found {len(points)} and {len(corners)}; "
            f"for {len(corners)} boxes give point_coords of shape ({len(corners)}, P, 2)"
        )
    n = next((len(given) for given in (points, corners, masks) if given is not None), 1)
    slots, kinds = [], []
    if corners is not None:
        slots.append(corners)
        kinds.append(np.tile(np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], np.int32), (n, 1)))
    if points is not None:
        slots.append(points)
        kinds.append(labels)
    if not slots:
        slots, kinds = [np.zeros((n, 1, 2), np.float32)], [np.full((n, 1), NO_POINTS, np.int32)]
    if masks is None:
        masks = np.zeros((n, 0, 0), np.float32)
    elif len(masks) not in (1, n):
        raise UserError(f"mask_input: expected one mask or one for each of {n} objects, found {len(masks)}")
    # Divided first and multiplied then, in float32, as SAM2 does.
    scaled = np.concatenate(slots, axis=1) / np.array(scale, np.float32) * np.float32(image_size)
    mask = np.broadcast_to(masks, (n, *masks.shape[1:]))
    return Prompts(scaled, np.concatenate(kinds, axis=1), mask, np.full(n, mask.size > 0))


def join_rows(parts: Sequence[Prompts], side: int) -> Prompts:
    """Rows of several images one after the other; absent slots fill up to a power of two, blank masks to `side`."""
    slots = power_of_two(max(part.labels.shape[1] for part in parts))
    masked = any(part.has_mask.any() for part in parts)

    def widened(part: Prompts) -> Prompts:
        n, p = part.labels.shape
        points = np.concatenate([part.points, np.zeros((n, slots - p, 2), np.float32)], axis=1)
        labels = np.concatenate([part.labels, np.full((n, slots - p), ABSENT, np.int32)], axis=1)
        blank = masked and not part.has_mask.any()
        mask = np.zeros((n, side, side), np.float32) if blank else part.mask
        return Prompts(points, labels, mask, part.has_mask)

    return Prompts(*(np.concatenate(fields) for fields in zip(*map(widened, parts), strict=True)))


def power_of_two(count: int) -> int:
    """The least power of two that is not below `count`, at least 1."""
    return 1 << max(count - 1, 0).bit_length()


def _points(coords: Any, labels: Any) -> tuple[Float[np.ndarray, "n p 2"] | None, Int[np.ndarray, "n p"] | None]:
    if coords is None:
        if labels is not None:
            raise UserError("point_labels: found labels without points; give point_coords, too")
        return None, None
    if labels is None:
        raise UserError("point_labels: expected one label for each point (1 object, 0 background), found none")
    points, kinds = _numbers(coords, "point_coords"), _numbers(labels, "point_labels")
    if points.ndim not in (2, 3) or points.shape[-1] != 2:
        raise UserError(f"point_coords: expected shape (P, 2) or (N, P, 2), found {points.shape}")
    if kinds.shape != points.shape[:-1]:
        raise UserError(
            f"point_labels: expected shape {points.shape[:-1]}, one label for each point, found {kinds.shape}"
        )
    if not np.isin(kinds, _LABELS).all():
        unknown = kinds[~np.isin(kinds, _LABELS)][0]
        raise UserError(f"point_labels: expected 1 (object) or 0 (background), found {unknown:g}")
    if points.ndim == 2:
        points, kinds = points[None], kinds[None]
    return points, kinds.astype(np.int32)


def _boxes(box: Any) -> Float[np.ndarray, "n 2 2"] | None:
    if box is None:
        return None
    boxes = _numbers(box, "box")
    if boxes.ndim not in (1, 2) or boxes.shape[-1] != 4:
        raise UserError(f"box: expected shape (4,) or (N, 4), found {boxes.shape}")
    corners = boxes.reshape(-1, 2, 2)
    if (swapped := (corners[:, 0] > corners[:, 1]).any(axis=1)).any():
        found = ", ".join(f"{value:g}" for value in corners[swapped][0].ravel())
        raise UserError(f"box: expected (x0, y0, x1, y1) with x0 <= x1 and y0 <= y1, found ({found})")
    return corners


def _masks(mask: Any, side: int) -> Float[np.ndarray, "n h w"] | None:
    if mask is None:
        return None
    masks = _numbers(mask, "mask_input")
    if masks.ndim not in (3, 4) or masks.shape[-3:] != (1, side, side):
        raise UserError(
            f"mask_input: expected logits of shape (1, {side}, {side}) or (N, 1, {side}, {side}), as in "
            f"low_res_logits, found {masks.shape}"
        )
    return masks.reshape(-1, side, side)


def _numbers(value: Any, name: str) -> Float[np.ndarray, "..."]:
    try:
        array = np.asarray(value).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: expected an array of numbers, found {type(value).__name__} ({error})") from error
    if not np.isfinite(array).all():
        raise UserError(f"{name}: expected finite numbers, found nan or infinity")
    return array
