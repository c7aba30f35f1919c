"""Cityscapes: `leftImg8bit/<split>/<city>/` with 16-bit `gtFine/<split>/<city>/*_gtFine_instanceIds.png`.

The two may lie in different folders, as their archives unpack. pix2pixHD's flattened copy is read as well:
`<split>_img/*_leftImg8bit.png` and `<split>_inst/*_gtFine_instanceIds.png`.

A pixel of 1000 or more is object `v % 1000` of class `v // 1000`; below, the value is the class: stuff and void, but
also a group of things that could not be told apart. Two readings are offered as splits of their own:

- `train`, `val`: panoptic, as SAM judged. By the rules of the official panoptic converter: each object and each stuff
  class in the image, of the classes that are evaluated; groups, crowds to the converter, are left out.
- `train_things`, `val_things`: whatever has a number of its own (1000 or more), of any class.
"""

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_root, find_roots, list_files, list_folders
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.folders import list_pairs
from ruac_jax.data.readers.label_map import read_label_map
from ruac_jax.errors import UserError

_IMAGE, _LABEL = "_leftImg8bit.png", "_gtFine_instanceIds.png"
_THINGS = "_things"  # ending of those splits

# Classes that are evaluated.
_STUFF_CLASSES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23)  # road ... sky
_THING_CLASSES = (24, 25, 26, 27, 28, 31, 32, 33)  # person ... bicycle, without caravan and trailer


def list_cityscapes(source: Path, split: str) -> Listing:
    """Images of a split.

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    part = split.removesuffix(_THINGS)
    if find_roots(source, f"gtFine/{part}/*/*{_LABEL}"):
        labels = find_root(source, f"gtFine/{part}/*/*{_LABEL}", name="Cityscapes") / "gtFine" / part
        images = find_root(source, f"leftImg8bit/{part}/*/*{_IMAGE}", name="Cityscapes") / "leftImg8bit" / part
        image_folders, label_folders = list_folders(images), list_folders(labels)
    elif find_roots(source, f"{part}_inst/*{_LABEL}", f"{part}_img/*{_IMAGE}"):
        root = find_root(source, f"{part}_inst/*{_LABEL}", f"{part}_img/*{_IMAGE}", name="Cityscapes")
        image_folders, label_folders = [root / f"{part}_img"], [root / f"{part}_inst"]
    else:
        raise UserError(
            f"{source} does not look like Cityscapes: expected gtFine/{part}/<city>/*{_LABEL} and "
            f"leftImg8bit/{part}/<city>/*{_IMAGE}, or {part}_inst/*{_LABEL} and {part}_img/*{_IMAGE}, in it or below it"
        )
    return list_pairs(
        _named(image_folders, _IMAGE),
        _named(label_folders, _LABEL),
        partial(read_label_map, is_object=is_thing if split.endswith(_THINGS) else is_segment),
    )


def is_segment(values: Int64[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Objects and stuff of the evaluated classes."""
    return np.isin(values, _STUFF_CLASSES) | is_thing(values) & np.isin(values // 1000, _THING_CLASSES)


def is_thing(values: Int64[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Objects with a number of their own."""
    return values >= 1000


def _named(folders: list[Path], ending: str) -> list[tuple[str, Path]]:
    files = (file for folder in folders for file in list_files(folder, (".png",)))
    return [(file.name.removesuffix(ending), file) for file in files if file.name.endswith(ending)]


DATASET = Dataset(
    name="cityscapes",
    title="Cityscapes, streets of German cities (Cordts et al., 2016)",
    group="scenes",
    splits={
        "train": Counts(images=2975),
        "val": Counts(images=500),
        "train_things": Counts(images=2975),
        "val_things": Counts(images=500),
    },
    evaluation_split="val",
    license="own terms, non-commercial",
    download="leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com, "
    "registration",
    layout="leftImg8bit/{train,val}/<city>/*_leftImg8bit.png and gtFine/{train,val}/<city>/*_gtFine_instanceIds.png, "
    "or the flattened {train,val}_img and {train,val}_inst of pix2pixHD",
    list_samples=list_cityscapes,
    notes="train and val are read as panoptic, as SAM did: objects (ids of 1000 and more) and stuff of the evaluated "
    "classes, without groups of things and ignored classes. The splits with _things hold every id of 1000 and more and "
    "nothing else. SAM drew 293 images from val, with 34 masks an image; it does not say what it did with groups.",
)
