"""Plittersdorf: `train.json`, `val.json` and `test.json` (COCO, polygons) beside one folder `images/`.

Polygons were traced from masks, outlines of holes included, so that holes get filled. Numbers of images begin anew in
each file. Disparity maps beside the images (`.exr`) are not read.
"""

import itertools
from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_root
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.coco import list_coco

_PARTS = ("test", "train", "val")


def list_plittersdorf(source: Path, split: str) -> Listing:
    """Images of a split; of all three, with the split before the name, for "all".

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    parts = _PARTS if split == "all" else (split,)
    root = find_root(source, "images", *(f"{part}.json" for part in parts), name="Plittersdorf")
    listings = [
        list_coco(root / f"{part}.json", root / "images", prefix=f"{part}/" if split == "all" else "") for part in parts
    ]
    return Listing(*(list(itertools.chain(*lists)) for lists in zip(*listings, strict=True)))


DATASET = Dataset(
    name="plittersdorf",
    title="Plittersdorf, wildlife before camera traps (Haucke et al., 2022)",
    group="objects",
    splits={"train": Counts(), "val": Counts(), "test": Counts(), "all": Counts(187, 546)},
    evaluation_split="train",
    license="not stated",
    download="https://timm.haucke.xyz/datasets/plittersdorf, no registration",
    layout="plittersdorf_instance_segmentation_coco/ with train.json, val.json, test.json and images/",
    list_samples=list_plittersdorf,
    notes="SAM pooled all three splits (all). Holes in masks are filled.",
)
