"""JSON of the VGG Image Annotator (VIA): one entry per image with its regions, a dict in version 1 and a list in 2."""

from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from ruac_jax.data.dataset import Listing, Sample
from ruac_jax.data.files import IMAGE_ENDINGS, list_files, read_json
from ruac_jax.data.names import natural_key
from ruac_jax.data.readers.segmentation import read_listed_segmentations
from ruac_jax.errors import UserError

Outline = list[list[Any]]  # points [x, y], as the file has them


def list_via(annotations: Path, images: Path, *, names: Collection[str] | None = None, prefix: str = "") -> Listing:
    """Every image of a folder with its regions as objects; images that VIA does not know have none.

    A region is the inside of a polygon, or of a polyline taken as closed; one of under 3 points has no inside and is
    left out. An image whose entry cannot be read is a problem, as is one with two entries.

    Args:
      annotations: the JSON file.
      images: the folder of its images.
      names: of the files to keep; None: all.
      prefix: put before each image's id, which is its file name without ending.

    Raises:
      UserError: no VIA file, or none of its images is in the folder.
    """
    entries = _read_entries(annotations)
    files = {file.name: file for file in list_files(images, IMAGE_ENDINGS)}
    listed = Counter(entry["filename"] for entry in entries)
    if listed and not listed.keys() & files.keys():
        raise UserError(f"none of the {len(listed)} images of {annotations} was found in {images}: {min(listed)}")
    wanted = files.keys() | listed.keys() if names is None else set(names)
    stems = Counter(files[name].stem for name in wanted & files.keys())
    regions = {entry["filename"]: entry["regions"] for entry in entries}
    samples, problems = [], []
    for name in sorted(wanted, key=lambda name: (natural_key(PurePath(name).stem), name)):
        try:
            if name not in files:
                raise ValueError("no such image")
            if listed[name] > 1:
                raise ValueError(f"{annotations} has {listed[name]} entries for it")
            if stems[files[name].stem] > 1:
                raise ValueError("another image has the same name with another ending")
            outlines = [[_read_outline(region)] for region in _in_order(regions.get(name, []))]
        except ValueError as error:
            problems.append(f"{images / name}: {error}")
            continue
        masks = partial(read_listed_segmentations, files[name], annotations, outlines)
        samples.append(Sample(prefix + files[name].stem, files[name], masks, (annotations,)))
    return Listing(samples, problems)


def _read_entries(annotations: Path) -> list[dict[str, Any]]:
    index = read_json(annotations)
    entries = list(index.values()) if isinstance(index, dict) else [index]
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str) or "regions" not in entry:
            raise UserError(f"{annotations}: expected VIA's entries with filename and regions, found {entry!r:.60}")
    return entries


def _in_order(regions: Any) -> list[Any]:
    if isinstance(regions, dict):
        return [regions[number] for number in sorted(regions, key=natural_key)]
    if not isinstance(regions, list):
        raise ValueError(f"its regions are neither a list nor a dict: {regions!r:.60}")
    return regions


def _read_outline(region: Any) -> Outline:
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    if not isinstance(shape, dict) or shape.get("name") not in ("polygon", "polyline"):
        raise ValueError(f"expected a polygon or polyline, found the region {shape or region!r:.60}")
    x, y = shape.get("all_points_x"), shape.get("all_points_y")
    if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y):
        raise ValueError(f"a {shape['name']} needs as many all_points_x as all_points_y")
    return [list(point) for point in zip(x, y, strict=True)]
