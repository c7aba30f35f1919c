"""What every dataset reader yields and every training step receives (host memory, numpy)."""

from collections.abc import Sequence
from typing import NamedTuple, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, UInt8

from ruac_jax.data.masks import Masks, mask_areas


class Record(TypedDict):
    """One image with its objects, at the size it was published in."""

    image: UInt8[np.ndarray, "h w 3"]  # RGB
    masks: Masks  # [n h w], one per object; they may overlap, n may be 0
    image_id: str  # unique within the dataset
    points: NotRequired[Int[np.ndarray, "n clicks 2"]]  # fixed clicks (x, y) of every object, px, where stored


class Batch(NamedTuple):
    """Square images with a fixed number of object slots."""

    image: UInt8[np.ndarray, "b s s 3"]  # RGB
    masks: Bool[np.ndarray, "b k s s"]  # all False in an empty slot
    valid: Bool[np.ndarray, "b k"]  # the first slots of each image


@runtime_checkable
class Source(Protocol):
    """Random access to records; reading an index twice gives the same record."""

    def __len__(self) -> int:
        """Number of records."""
        ...

    def __getitem__(self, index: int) -> Record: ...


@runtime_checkable
class ClipSource(Source, Protocol):
    """A source of video frames: `clips` holds, per clip, the indices of its usable frames in time order."""

    clips: Sequence[Sequence[int]]


def select_objects(record: Record, max_objects: int, rng: np.random.Generator) -> Record:
    """Drops empty masks, then keeps at most `max_objects`, drawn uniformly without replacement.

    Args:
      record: any record; it is not changed.
      max_objects: at least 1.
      rng: used only when there are more objects than wanted.

    Returns:
      The same image with 0 to `max_objects` masks as an array, in their original order.
    """
    keep = np.flatnonzero(mask_areas(record["masks"]))
    if len(keep) > max_objects:
        keep = np.sort(rng.choice(keep, max_objects, replace=False))
    return Record(image=record["image"], masks=record["masks"][keep], image_id=record["image_id"])


def pad_objects(
    masks: Bool[np.ndarray, "n h w"], slots: int
) -> tuple[Bool[np.ndarray, "{slots} h w"], Bool[np.ndarray, "{slots}"]]:
    """Fills up to `slots` masks with empty ones and says which slots are in use (n <= slots)."""
    padded = np.zeros((slots, *masks.shape[1:]), bool)
    padded[: len(masks)] = masks
    return padded, np.arange(slots) < len(masks)
