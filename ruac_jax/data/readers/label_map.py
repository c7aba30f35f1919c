"""Label maps: images whose pixel values or colours say which object, or which class, a pixel belongs to.

Values may be palette indices, 8- or 16-bit grey, or 32-bit numbers; palettes are never looked up, so that index 1 is
object 1 whatever its colour. Any number of objects fits.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer, UInt8
from pycocotools import mask as coco

from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.files import read_pixels
from ruac_jax.data.masks import RunLengthMasks

LABEL_ENDINGS = (".png", ".tif", ".tiff", ".bmp")  # of those that keep every value

# Which of a map's distinct values, given rising, are objects; raises ValueError where a map cannot have such values.
Rule = Callable[[Int64[np.ndarray, "n"]], Bool[np.ndarray, "n"]]

_MAX_OBJECTS = 10_000  # more are a picture taken for a label map; real images hold up to about 2,000


def not_zero(values: Int64[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """The usual rule: 0 is ground, any other value an object."""
    return values != 0


def encode_labels(labels: Integer[np.ndarray, "h w"], is_object: Rule = not_zero) -> RunLengthMasks:
    """One mask per distinct value that is an object, by rising value.

    One pass finds the runs of equal values column by column, which already are every object's run lengths; comparing
    the map with each value in turn takes a pass per object.

    Raises:
      ValueError: from the rule, or far too many objects for a label map.
    """
    height, width = labels.shape
    columns = labels.ravel(order="F")
    starts = np.flatnonzero(np.concatenate([[True], columns[1:] != columns[:-1]]))
    ends = np.append(starts[1:], columns.size)
    runs = columns[starts].astype(np.int64)
    order = np.argsort(runs, kind="stable")
    values, first = np.unique(runs[order], return_index=True)
    groups = np.split(order, first[1:])
    chosen = np.flatnonzero(is_object(values))
    if len(chosen) > _MAX_OBJECTS:
        raise ValueError(f"{len(chosen)} distinct values, a label map has one per object")
    counts = []
    for group in (groups[index] for index in chosen):
        borders = np.stack([starts[group], ends[group]], axis=1).ravel()
        lengths = np.diff(borders, prepend=0, append=columns.size)  # ground, object, ground, ...
        lengths = lengths if lengths[-1] else lengths[:-1]
        counts.append(coco.frPyObjects({"size": [height, width], "counts": lengths}, height, width)["counts"])
    return RunLengthMasks((height, width), counts)


def read_label_map(file: Path, size: tuple[int, int], is_object: Rule = not_zero) -> RunLengthMasks:
    """Masks of a map whose numbers mean something; of several channels the first holds them.

    Raises:
      BadFileError: unreadable or truncated, no whole numbers, another size than (height, width), or values that the
        rule rejects.
    """
    pixels = _read_integers(file, size)
    return _encode(file, pixels if pixels.ndim == 2 else pixels[..., 0], is_object)


def read_colour_map(file: Path, size: tuple[int, int], is_object: Rule = not_zero) -> RunLengthMasks:
    """Masks of a map in which every distinct value or colour but 0, black or transparent is an object.

    The rule sees colours as `pack_colours` makes them. Raises as `read_label_map`.
    """
    return _encode(file, read_colours(file, size), is_object)


def read_colours(file: Path, size: tuple[int, int]) -> Integer[np.ndarray, "h w"]:
    """One number per pixel, the value as stored or the packed colour; 0 where black or transparent.

    Raises:
      BadFileError: unreadable or truncated, no whole numbers, another size than (height, width).
    """
    pixels = _read_integers(file, size)
    return pixels if pixels.ndim == 2 else pack_colours(pixels)


def pack_colours(pixels: UInt8[np.ndarray, "h w c"]) -> Int32[np.ndarray, "h w"]:
    """`red << 16 | green << 8 | blue`, or the grey value; 0 where an alpha channel (of 2 or 4) says transparent."""
    channels = np.moveaxis(pixels.astype(np.int32), -1, 0)
    colours = channels[0] if len(channels) < 3 else channels[0] << 16 | channels[1] << 8 | channels[2]
    return np.where(channels[-1] > 0, colours, 0) if len(channels) in (2, 4) else colours


def check_size(file: Path, found: tuple[int, int], size: tuple[int, int]) -> None:
    """Checks an annotation's (height, width) against its image's.

    Raises:
      BadFileError: they differ.
    """
    if found != tuple(size):
        raise BadFileError(f"{file}: {found[1]}x{found[0]} px, its image is {size[1]}x{size[0]}")


def _read_integers(file: Path, size: tuple[int, int]) -> Integer[np.ndarray, "h w *c"]:
    pixels = read_pixels(file)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.dtype.kind not in "ui":
        raise BadFileError(f"{file}: {pixels.dtype} values, expected whole numbers")
    check_size(file, pixels.shape[:2], size)
    return pixels


def _encode(file: Path, labels: Integer[np.ndarray, "h w"], is_object: Rule) -> RunLengthMasks:
    try:
        return encode_labels(labels, is_object)
    except ValueError as error:
        raise BadFileError(f"{file}: {error}") from error
