"""The clicks of the evaluation.

Fixed clicks follow from the true mask alone, so they are the same for every method and machine; corrective clicks
follow from a prediction too.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_edt

from ruac_jax.data.masks import Masks

CLICKS = 3
_LEAST_SEPARATION = 12  # px


def fixed_clicks(
    mask: Bool[np.ndarray, "h w"], count: int = CLICKS
) -> tuple[Float[np.ndarray, "{count} 2"], Int[np.ndarray, "{count}"]]:
    """Positive clicks deep inside an object and apart from each other (section 4.1: "three points", deterministic).

    The first click is the pixel farthest from the outside of the object, the image border counting as outside. Each
    further click is the deepest pixel among those at least r away from all earlier clicks, where r is the larger of
    12 px and half the depth of the first click; where no pixel is left, r is halved until one is. Equal depths: the
    first in row-major order. An object with fewer pixels than clicks repeats its last click. Distances are exact
    (compared as squared integers).

    Args:
      mask: the object, at the size it was annotated in.
      count: number of clicks.

    Returns:
      Points float32 (x, y) in pixels of the mask, integer coordinates being pixel centres, and labels int32, all 1.

    Raises:
      ValueError: the mask has no pixel.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError("an object without a pixel cannot be clicked")
    top, left = rows[0], columns[0]
    # Everything outside the bounding box is outside the object, so one ring of zeros around the box is enough.
    padded = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    y, x = np.nonzero(padded)  # row-major, so argmax keeps the first of equals
    squared_depth = np.rint(distance_transform_edt(padded)[y, x] ** 2).astype(np.int64)
    chosen = [int(np.argmax(squared_depth))]
    squared_separation = max(float(_LEAST_SEPARATION**2), squared_depth[chosen[0]] / 4)
    squared_distance = np.full(len(y), np.iinfo(np.int64).max)
    while len(chosen) < count:
        last = chosen[-1]
        squared_distance = np.minimum(squared_distance, (y - y[last]) ** 2 + (x - x[last]) ** 2)
        if not squared_distance.any():
            chosen += [last] * (count - len(chosen))
            break
        while not (free := squared_distance >= squared_separation).any():
            squared_separation /= 4
        chosen.append(int(np.argmax(np.where(free, squared_depth, -1))))
    points = np.stack([x[chosen] + left - 1, y[chosen] + top - 1], axis=1)
    return points.astype(np.float32), np.ones(count, np.int32)


def fixed_points(masks: Masks, rows: Int[np.ndarray, "m"] | None = None) -> Int[np.ndarray, "m 3 2"]:
    """The three fixed clicks of each object of `rows` (None: of all): int32 (x, y), px. Errors as `fixed_clicks`."""
    chosen = range(len(masks)) if rows is None else rows
    points = [fixed_clicks(masks[row : row + 1][0])[0] for row in chosen]
    return np.array(points, np.int32).reshape(len(points), CLICKS, 2)


def corrective_click(
    truth: Bool[np.ndarray, "h w"], prediction: Bool[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, "2"], int] | None:
    """The click that a careful user would add: in the middle of the largest error, as the reference code places it.

    Of the missed and of the superfluous pixels each, the one farthest from the outside of its region is taken (exact
    distance, the image border counting as outside, first in row-major order); the deeper of the two is clicked, the
    superfluous one where they are equally deep.

    Returns:
      The point float32 (x, y) in pixels and its label, 1 on a missed and 0 on a superfluous pixel; None where
      prediction and truth are equal.
    """
    depth, label, point = 0, 0, None
    for error, kind in ((prediction & ~truth, 0), (truth & ~prediction, 1)):
        if error.any():
            deepest, position = _deepest(error)
            if deepest > depth:
                depth, label, point = deepest, kind, position
    return None if point is None else (np.array(point, np.float32), label)


def _deepest(region: Bool[np.ndarray, "h w"]) -> tuple[int, tuple[int, int]]:
    """Squared depth and (x, y) of the pixel farthest from the outside of a region that is not empty."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    padded = np.pad(region[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    squared = np.rint(distance_transform_edt(padded) ** 2).astype(np.int64)
    y, x = np.unravel_index(int(squared.argmax()), squared.shape)
    return int(squared[y, x]), (int(x) + left - 1, int(y) + top - 1)
