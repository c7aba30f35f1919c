"""COCO JSON: one file lists `images` and `annotations`, each annotation with its image's id and a segmentation."""

import functools
import os
from collections import Counter
from collections.abc import Callable, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import Any

from ruac_jax.data.dataset import Listing, Sample
from ruac_jax.data.files import IMAGE_ENDINGS, read_json
from ruac_jax.data.names import natural_key
from ruac_jax.data.readers.segmentation import read_listed_segmentations
from ruac_jax.errors import UserError

Entry = dict[str, Any]  # of `images` or `annotations`


def file_name(image: Entry) -> Any:
    """Where an entry of `images` says its file is."""
    return image.get("file_name")


def list_coco(
    annotations: Path, images: Path, *, path_of: Callable[[Entry], Any] = file_name, prefix: str = ""
) -> Listing:
    """Every image that a COCO file lists, also those without an object; parses the file once.

    An image is looked for at its path below `images`, then by its bare name there: exporters write folders of their
    own machine into `file_name`. Crowds (`iscrowd` 1) are left out, as they are no single objects, and so are objects
    without a segmentation. Images that share an id or a file are problems, all of them, as nobody can tell which the
    annotations mean; an annotation whose id comes twice within an image counts once and is a problem.

    Args:
      annotations: the JSON file.
      images: the folder that paths are relative to.
      path_of: path of the file that an entry of `images` means.
      prefix: put before each image's id, which is its path below `images` without ending.

    Raises:
      UserError: no COCO file with segmentations, or none of its images is in the folder.
    """
    entries, objects = _read_index(annotations)
    found, problems = _find_images(annotations, entries, images, path_of)
    segmentations, more = _group_by_image(annotations, objects, {entry.get("id") for entry in entries})
    samples = []
    for file, entry in found:
        listed = (entry.get("height"), entry.get("width"))
        masks = functools.partial(
            read_listed_segmentations, file, annotations, segmentations.get(entry["id"], []), listed=listed
        )
        samples.append(Sample(prefix + _image_id(file, images), file, masks, (annotations,)))
    samples.sort(key=lambda sample: natural_key(sample.image_id))
    return Listing(samples, problems + more)


def _read_index(annotations: Path) -> tuple[list[Entry], list[Entry]]:
    """The lists `images` and `annotations`; entries have ids that are numbers or text, or none."""
    index = read_json(annotations)
    lists = [index.get(key) for key in ("images", "annotations")] if isinstance(index, dict) else [None]
    if not all(isinstance(entries, list) and all(map(_is_entry, entries)) for entries in lists):
        found = f"an object with {', '.join(index)}" if isinstance(index, dict) else f"a {type(index).__name__}"
        raise UserError(f"{annotations}: expected COCO's lists images and annotations of objects, found {found}")
    entries, objects = lists
    if not any(entry.get("segmentation") for entry in objects):
        raise UserError(f"{annotations}: none of its {len(objects)} annotations has a segmentation; boxes do not do")
    return entries, objects


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(key), int | float | str | None) for key in ("id", "image_id")
    )


def _find_images(
    annotations: Path, entries: Sequence[Entry], images: Path, path_of: Callable[[Entry], Any]
) -> tuple[list[tuple[Path, Entry]], list[str]]:
    """Files and entries of images that can be used, and problems."""
    ids = Counter(entry.get("id") for entry in entries)
    find = _finder(images)
    by_name: dict[str, list[tuple[Path, Entry]]] = {}
    missing, problems = [], []
    for entry in entries:
        number, path = entry.get("id"), path_of(entry)
        if number is None or not isinstance(path, str) or not path:
            problems.append(f"{annotations}: an image without id or file name, {str(entry)[:80]}")
        elif ids[number] > 1:
            problems.append(f"{annotations}: image {path} shares its id {number} with another")
        elif (file := find(path)) is None:
            missing.append(f"{images / path}: no such image, {annotations} lists it")
        else:
            by_name.setdefault(_image_id(file, images), []).append((file, entry))
    if missing and not by_name:
        raise UserError(f"{annotations}: none of its images was found in {images}, e.g. {missing[0]}")
    shared = [found for found in by_name.values() if len(found) > 1]
    problems += [f"{found[0][0]}: {annotations} lists {len(found)} images of this name" for found in shared]
    return [found[0] for found in by_name.values() if len(found) == 1], missing + problems


def _group_by_image(
    annotations: Path, objects: Sequence[Entry], known: Set[Any]
) -> tuple[dict[Any, list[Any]], list[str]]:
    """Segmentations by id of their image, in the file's order, and problems."""
    grouped: dict[Any, list[Any]] = {}
    strays, repeated, seen = [], [], set()
    for entry in objects:
        image, number = entry.get("image_id"), entry.get("id")
        if image is None or image not in known:
            strays.append(number)
        elif number is not None and (image, number) in seen:
            repeated.append(number)
        else:
            seen.add((image, number))
            if entry.get("segmentation") and not entry.get("iscrowd"):
                grouped.setdefault(image, []).append(entry["segmentation"])
    problems = [
        f"{annotations}: {len(numbers)} annotations {what}, with id {', '.join(map(str, numbers[:5]))}"
        + (" ..." if len(numbers) > 5 else "")
        for numbers, what in ((strays, "of images that it does not list"), (repeated, "come twice in an image"))
        if numbers
    ]
    return grouped, problems


def _finder(images: Path) -> Callable[[str], Path | None]:
    """Looks files up below `images`; reads each folder's directory once and opens no file."""

    @functools.cache
    def names(folder: Path) -> frozenset[str]:
        return frozenset(os.listdir(folder)) if folder.is_dir() else frozenset()

    def find(path: str) -> Path | None:
        parts = PurePosixPath(path.replace("\\", "/"))
        below = [] if parts.is_absolute() or ".." in parts.parts else [images / parts]
        places = [*below, images / parts.name] if parts.name else []
        return next((place for place in places if place.name in names(place.parent)), None)

    return find


def _image_id(file: Path, images: Path) -> str:
    path = file.relative_to(images)
    return (path.with_suffix("") if path.suffix.lower() in IMAGE_ENDINGS else path).as_posix()
