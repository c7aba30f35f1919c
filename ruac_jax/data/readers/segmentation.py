"""An object's shape as COCO, YouTube-VIS and their kin write it in JSON: polygons, run lengths, packed run lengths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import Path as ZipPath

import numpy as np
from jaxtyping import Int
from pycocotools import mask as coco

from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.readers.polygons import clean_rings, fill_rings


def encode_segmentation(segmentation: Any, size: tuple[int, int]) -> bytes | None:
    """COCO's packed run lengths of one object, clipped at the image; None where no pixel is left.

    Args:
      segmentation: a list of rings, flat (x, y, x, y ...) or of pairs, whose insides are united; or one ring as a list
        of pairs; or `{"size": [height, width], "counts": ...}` with run lengths, column by column, as numbers or
        packed as text.
      size: the image's height and width.

    Raises:
      ValueError: none of these shapes, or run lengths that do not fit the size; says why.
    """
    if isinstance(segmentation, dict):
        return _encode_runs(segmentation, size)
    if not isinstance(segmentation, list) or not all(isinstance(ring, list) for ring in segmentation):
        raise ValueError(f"a segmentation is a list of polygons or run lengths, found {_excerpt(segmentation)}")
    if len(segmentation) > 2 and all(_is_pair(ring) for ring in segmentation):
        segmentation = [segmentation]
    try:
        if any(np.asarray(ring, np.float64).shape[1:] not in ((), (2,)) for ring in segmentation):
            raise ValueError("points are pairs x, y")
        mask = fill_rings(clean_rings(segmentation), size)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a polygon that cannot be drawn: {_excerpt(segmentation)} ({error})") from error
    return RunLengthMasks.encode(size, [mask]).counts[0] if mask.any() else None


def read_segmentations(file: Path, segmentations: Sequence[Any], size: tuple[int, int]) -> RunLengthMasks:
    """Masks of an image's objects from what JSON says of each; objects without a pixel in the image are left out.

    Args:
      file: where they come from, for the error.
      segmentations: one of the shapes that `encode_segmentation` takes for each object.
      size: the image's height and width.

    Raises:
      BadFileError: an object has none of these shapes, or another size.
    """
    try:
        encoded = [encode_segmentation(segmentation, size) for segmentation in segmentations]
    except ValueError as error:
        raise BadFileError(f"{file}: {error}") from error
    return RunLengthMasks(size, [counts for counts in encoded if counts is not None])


def read_listed_segmentations(
    image: Path | ZipPath,
    annotations: Path,
    segmentations: Sequence[Any],
    size: tuple[int, int],
    *,
    listed: tuple[Any, Any] = (None, None),
) -> RunLengthMasks:
    """Masks of one of the images that an annotation file lists; as `read_segmentations`, with errors that name it.

    Args:
      image: the file.
      annotations: where the segmentations come from.
      segmentations: as for `read_segmentations`.
      size: the image's height and width.
      listed: height and width by the annotation file; some exporters leave them out, or 0.

    Raises:
      BadFileError: the image has another size than listed, or what `read_segmentations` raises.
    """
    if all(listed) and listed != size:
        raise BadFileError(f"{image}: {size[1]}x{size[0]} px, {annotations} says {listed[1]}x{listed[0]}")
    try:
        return read_segmentations(annotations, segmentations, size)
    except BadFileError as error:
        raise BadFileError(f"{image}: {error}") from error


def _encode_runs(segmentation: dict[str, Any], size: tuple[int, int]) -> bytes | None:
    height, width = size
    counts = segmentation.get("counts")
    if not isinstance(counts, str | bytes | list) or "size" not in segmentation:
        raise ValueError(f"run lengths need size and counts, found {_excerpt(segmentation)}")
    if segmentation["size"] != [height, width]:
        raise ValueError(f"run lengths for height and width {segmentation['size']}, the image has {[height, width]}")
    packed = counts.encode("latin-1", "replace") if isinstance(counts, str) else counts
    runs = np.asarray(packed) if isinstance(packed, list) else _unpack(packed)
    if runs.dtype.kind != "i" or runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"run lengths {_excerpt(counts)} do not fill {width}x{height} px")
    if not runs[1::2].any():
        return None
    if isinstance(packed, list):
        packed = coco.frPyObjects({"size": [height, width], "counts": packed}, height, width)["counts"]
    return packed


def _unpack(counts: bytes) -> Int[np.ndarray, "r"]:
    """Run lengths from their packed form, of any content: the COCO tools read past the end of a broken one.

    Each number is written low digits first, six bits a character above "0": five of the number, the highest says that
    more follow; the last character's fifth bit is the sign. From the fourth on they are differences to the run two
    places earlier.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(digits & 0x20 == 0)
    if not last.size or last[-1] != digits.size - 1 or digits.min() < 0 or digits.max() > 63:
        return np.array([-1])
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(digits.size) - np.repeat(first, last - first + 1)
    if place.max() > 6:  # beyond 32 bits
        return np.array([-1])
    runs = np.add.reduceat((digits & 0x1F) << 5 * place, first)
    runs -= np.where(digits[last] & 0x10, np.int64(1) << 5 * (last - first + 1), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _is_pair(ring: list[Any]) -> bool:
    return len(ring) == 2 and all(isinstance(value, int | float) for value in ring)


def _excerpt(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
