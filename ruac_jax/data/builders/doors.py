"""DOORS, rendered boulders on small bodies: set DS1, one boulder to an image.

`Segmentation/DS1/DS/` holds `img/` and `mask/` of all splits under the same names, and `T.txt`, `V.txt`, `Te1.txt`,
`Te2.txt` with a split's file names, one a line. Where that is missing, `Regression/` is read: folders `T_*`, `V_*`,
`Te1_*`, `Te2_*` (number and time of rendering follow, with spaces), each with `img/` and `Rock_all/`.

A boulder is white (255) in its mask, or 1 where there is nothing else.
"""

from collections.abc import Sequence
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

_CODES = {"train": "T", "val": "V", "test1": "Te1", "test2": "Te2"}  # beginnings of names on disk
_POOLED = "test"  # of both tests

_Named = list[tuple[str, Path]]


def list_doors(source: Path, split: str) -> Listing:
    """Images of a split; of "test", both test sets.

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    parts = ("test1", "test2") if split == _POOLED else (split,)
    codes = [_CODES[part] for part in parts]
    segmentation = ["DS1/DS/img/*.png", "DS1/DS/mask/*.png", *(f"DS1/DS/{code}.txt" for code in codes)]
    regression = [f"{code}_*/{kind}/*.png" for code in codes for kind in ("img", "Rock_all")]
    if find_roots(source, *segmentation):
        root = find_root(source, *segmentation, name="DOORS") / "DS1" / "DS"
        images, masks = _from_lists(root, parts)
    elif find_roots(source, *regression):
        images, masks = _from_folders(find_root(source, *regression, name="DOORS"), parts)
    else:
        raise UserError(
            f"{source} does not look like DOORS: expected {', '.join(segmentation)}, or {', '.join(regression)}, in it "
            "or below it"
        )
    return list_pairs(images, masks, partial(read_label_map, is_object=is_boulder))


def is_boulder(values: Int64[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Which value is the boulder's.

    Raises:
      ValueError: neither 255 nor 1 is the highest value above 0.
    """
    if values[-1] not in (0, 1, 255):
        raise ValueError(f"values up to {values[-1]}, expected 255 or 1 for the boulder")
    return (values == values[-1]) & (values > 0)


def _from_lists(root: Path, parts: Sequence[str]) -> tuple[_Named, _Named]:
    images, masks = [], []
    pictures, labels = ({file.name for file in list_files(root / kind, (".png",))} for kind in ("img", "mask"))
    for part in parts:
        lines = (root / f"{_CODES[part]}.txt").read_text().splitlines()
        names = {line.strip() for line in lines if line.strip()}
        images += [(part, root / "img" / name) for name in names & pictures]
        # A name without any file is told as a mask without an image.
        masks += [(part, root / "mask" / name) for name in names if name in labels or name not in pictures]
    return _with_ids(images), _with_ids(masks)


def _from_folders(root: Path, parts: Sequence[str]) -> tuple[_Named, _Named]:
    images, masks = [], []
    for part in parts:
        folders = [folder for folder in list_folders(root) if folder.name.startswith(f"{_CODES[part]}_")]
        if len(folders) > 1:
            raise UserError(f"{root} has several folders {_CODES[part]}_*, keep one: {', '.join(map(str, folders))}")
        images += [(part, file) for file in list_files(folders[0] / "img", (".png",))]
        masks += [(part, file) for file in list_files(folders[0] / "Rock_all", (".png",))]
    return _with_ids(images), _with_ids(masks)


def _with_ids(files: _Named) -> _Named:
    return [(f"{part}/{file.stem}", file) for part, file in files]


DATASET = Dataset(
    name="doors",
    title="DOORS, rendered boulders on small bodies (Pugliatti and Topputo, 2022)",
    group="scenes",
    splits={
        "train": Counts(images=30181),
        "val": Counts(images=5044),
        "test1": Counts(images=5044),
        "test2": Counts(images=5000),
        "test": Counts(images=10044),
    },
    evaluation_split="val",
    license="CC BY 4.0",
    download="DOORS.zip from https://zenodo.org/records/7107409, no registration",
    layout="Segmentation/DS1/DS/ with img/, mask/ and T.txt, V.txt, Te1.txt, Te2.txt; or Regression/ with folders T_*, "
    "V_*, Te1_*, Te2_* of img/ and Rock_all/",
    list_samples=list_doors,
    notes="Where both parts are there, Segmentation is read; give Regression as --source to read that. A few images "
    "have no boulder. SAM has 10,000 images of DS1 and does not say which; test is test1 and test2 together.",
)
