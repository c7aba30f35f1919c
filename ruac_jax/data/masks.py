"""Masks of many objects in little memory: run lengths as COCO stores them, decoded a few at a time.

A thousand objects in an image of 12 million pixels are 12 GB as an array and a few MB as runs. `RunLengthMasks`
answers to `shape`, `len` and indexing like the array it stands for, so that code which takes a slice of objects at a
time works with either.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt8
from pycocotools import mask as coco


class RunLengthMasks:
    """Masks of `n` objects of one image; indexing by a slice or an array of indices decodes those objects."""

    def __init__(self, size: tuple[int, int], counts: Sequence[bytes]):
        """Takes the image's height and width, and COCO's compressed run lengths (column-major) of each object."""
        self.size = (int(size[0]), int(size[1]))
        self.counts = list(counts)

    @classmethod
    def encode(cls, size: tuple[int, int], masks: Iterable[Bool[np.ndarray, "h w"]]) -> "RunLengthMasks":
        """Encodes masks of (height, width) one by one.

        Raises:
          ValueError: a mask has another size.
        """
        counts = []
        for mask in masks:
            if mask.shape != tuple(size):
                raise ValueError(f"a mask of {mask.shape[1]}x{mask.shape[0]} px in an image of {size[1]}x{size[0]}")
            counts.append(coco.encode(_by_columns(mask))["counts"])
        return cls(size, counts)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, height, width)."""
        return (len(self.counts), *self.size)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, index: slice | Int[np.ndarray, "m"]) -> Bool[np.ndarray, "m h w"]:
        chosen = self.counts[index] if isinstance(index, slice) else [self.counts[i] for i in index]
        masks = np.zeros((len(chosen), *self.size), bool)
        for mask, counts in zip(masks, chosen, strict=True):
            mask[:] = coco.decode({"size": self.size, "counts": counts})
        return masks

    def areas(self) -> Int[np.ndarray, "n"]:
        """Pixels of each object, from the runs alone."""
        # One by one: pycocotools 2.0.11 overflows on more than 255.
        areas = [coco.area({"size": self.size, "counts": counts}) for counts in self.counts]
        return np.array(areas, np.int64)


def _by_columns(mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """The mask in column-major memory; only its bounding box is copied, which is most of the time of encoding."""
    result = np.zeros(mask.shape, np.uint8, order="F")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows):
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        result[box] = mask[box]
    return result


Masks = Bool[np.ndarray, "n h w"] | RunLengthMasks


def mask_areas(masks: Masks) -> Int[np.ndarray, "n"]:
    """Pixels of each object."""
    return masks.areas() if isinstance(masks, RunLengthMasks) else np.count_nonzero(masks, axis=(1, 2))
