"""Polygons to masks, as the COCO tools rasterise them, after what real files need: closing, cleaning, clipping."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from pycocotools import mask as coco

Ring = Float[np.ndarray, "_ 2"]
_FAR = 1e5  # px: the COCO tools take memory by the length of an edge, and crash on points much further out


def clean_rings(rings: Sequence[Sequence[Any]]) -> list[Ring]:
    """Rings as arrays of (x, y), from flat lists x, y, x, y ... or lists of pairs; those of under 3 points are dropped.

    The COCO tools take a ring of 1 or 2 points for a box or fail. Values that are not finite, or an odd number of
    them, drop the ring too.
    """
    kept = []
    for ring in rings:
        values = np.asarray(ring, np.float64).reshape(-1)
        if values.size >= 6 and values.size % 2 == 0 and np.isfinite(values).all():
            kept.append(values.reshape(-1, 2))
    return kept


def fill_rings(rings: Sequence[Ring], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Union of the insides of all rings, clipped at the image; `size` is (height, width).

    A ring inside another is filled, not cut out: the formats read here do not mark holes.

    Raises:
      ValueError: a point lies absurdly far outside.
    """
    height, width = size
    if not rings:
        return np.zeros((height, width), bool)
    if (farthest := max(np.abs(ring).max() for ring in rings)) > _FAR:
        raise ValueError(f"a polygon's point at {farthest:g} px in an image of {width}x{height}")
    runs = coco.frPyObjects([ring.reshape(-1).tolist() for ring in rings], height, width)
    return coco.decode(coco.merge(runs)).astype(bool)
