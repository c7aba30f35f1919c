"""Supervisely JSON: one file per image, whose objects are small bitmaps placed in it.

`NAME.json` belongs to the image `NAME` (ending included, `frame.jpg.json`): `size` {height, width} and `objects`, each
with `bitmap` {data, origin}. `data` is base64 of zlib of a PNG whose alpha channel is the mask, `origin` the (x, y) of
its upper left pixel; fractions of a pixel (20 objects of TrashCan have some) are cut off. Objects of the same
`instance` are pieces of one.
"""

import base64
import functools
import io
import math
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from ruac_jax.data.dataset import BadFileError, Listing, Sample
from ruac_jax.data.files import read_json
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.names import natural_key
from ruac_jax.errors import UserError

Entry = dict[str, Any]  # of `objects`
# What reading a file of some other content ends in.
_MALFORMED = (ArithmeticError, AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError, zlib.error)


def list_bitmaps(images: Sequence[Path], annotations: Sequence[Path], is_object: Callable[[Entry], bool]) -> Listing:
    """Pairs images with their annotation files by name; none is opened.

    Args:
      images: image files; their names without ending become ids.
      annotations: JSON files. One without an image is a problem, and the other way round.
      is_object: whether an entry counts as an object; asked when masks are read, module-level (samples are pickled).
    """
    by_name = {file.stem: file for file in annotations}
    names = {image.name for image in images}
    problems = [f"{file}: no image {name}" for name, file in by_name.items() if name not in names]
    ids = Counter(image.stem for image in images)
    samples = []
    for image in sorted(images, key=lambda image: natural_key(image.stem)):
        if image.name not in by_name:
            problems.append(f"{image}: no annotation {image.name}.json")
        elif ids[image.stem] > 1:
            problems.append(f"{image}: {ids[image.stem]} images have this name but for the ending")
        else:
            file = by_name[image.name]
            samples.append(Sample(image.stem, image, functools.partial(read_bitmaps, file, is_object), (file,)))
    return Listing(samples, problems)


def read_bitmaps(file: Path, is_object: Callable[[Entry], bool], size: tuple[int, int]) -> RunLengthMasks:
    """Masks of an image's objects, in the file's order; pixels of any opacity belong to them.

    Args:
      file: Supervisely JSON.
      is_object: whether an entry counts; pieces of one instance count together if one of them does.
      size: the image's height and width.

    Raises:
      BadFileError: unreadable, another size, or a shape that is no bitmap within the image.
    """
    try:
        document = read_json(file)
    except UserError as error:
        raise BadFileError(str(error)) from error
    try:
        listed = (document["size"]["height"], document["size"]["width"])
        objects = document["objects"]
        if listed != size:
            raise BadFileError(f"{file}: says {listed[1]}x{listed[0]} px, its image has {size[1]}x{size[0]}")
        pieces: dict[Any, list[Entry]] = {}
        for index, entry in enumerate(objects):
            pieces.setdefault(entry.get("instance") or index, []).append(entry)
        united = (_unite(entries, size) for entries in pieces.values() if any(map(is_object, entries)))
        return RunLengthMasks.encode(size, (mask for mask in united if mask.any()))
    except _MALFORMED as error:
        raise BadFileError(f"{file}: no Supervisely bitmaps ({error!r})") from error


def _unite(entries: Sequence[Entry], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    union = np.zeros(size, bool)
    for entry in entries:
        if entry["geometryType"] != "bitmap":
            raise ValueError(f"object {entry.get('id')} is a {entry['geometryType']}, expected a bitmap")
        bitmap = _decode(entry["bitmap"]["data"])
        x, y = map(math.floor, entry["bitmap"]["origin"])
        height, width = bitmap.shape
        if min(x, y) < 0 or x + width > size[1] or y + height > size[0]:
            raise ValueError(f"bitmap of {width}x{height} px at x {x}, y {y} leaves the image")
        union[y : y + height, x : x + width] |= bitmap
    return union


def _decode(data: str) -> Bool[np.ndarray, "h w"]:
    with Image.open(io.BytesIO(zlib.decompress(base64.b64decode(data)))) as image:
        if not image.has_transparency_data:
            raise ValueError(f"a bitmap of mode {image.mode}, expected transparency")
        return np.array(image.convert("RGBA").getchannel("A")) > 0
