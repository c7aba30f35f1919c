"""Objects of a record with the clicks of the evaluation, in groups of one size, so that a study compiles once."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ruac_jax.data.masks import mask_areas
from ruac_jax.data.record import Record
from ruac_jax.prompts import fixed_points
from ruac_jax.sam2.prompt_encoder import POSITIVE

SLOTS = 8


class ClickedGroup(NamedTuple):
    """Up to 8 objects of one image.

    Attributes:
      masks: the objects, at the size they were annotated in.
      points: fixed clicks (x, y) in pixels of the network's square; the last object's again in unused slots.
      labels: all 1.
    """

    masks: Bool[np.ndarray, "n h w"]
    points: Float[np.ndarray, "8 clicks 2"]
    labels: Int[np.ndarray, "8 clicks"]


def clicked_groups(record: Record, size: int) -> Iterator[ClickedGroup]:
    """Groups the objects of a record that have a pixel, in their order.

    Args:
      record: an image with its objects.
      size: side of the network's square, px.
    """
    masks = record["masks"]
    height, width = masks.shape[1:]
    scale = np.array([size / width, size / height])
    present = np.flatnonzero(mask_areas(masks))
    for start in range(0, len(present), SLOTS):
        rows = present[start : start + SLOTS]
        clicks = record["points"][rows] if "points" in record else fixed_points(masks, rows)
        padded = clicks[np.minimum(np.arange(SLOTS), len(rows) - 1)]
        yield ClickedGroup(
            masks[rows], (padded * scale).astype(np.float32), np.full(padded.shape[:2], POSITIVE, np.int32)
        )
