"""LVIS v1 and v0.5: annotations of their own for images of COCO 2017.

The path of an image is the end of its `coco_url`: v1's val lies in both `train2017` and `val2017`, and the `file_name`
of v0.5 is that of COCO 2014. There is no `iscrowd`; masks overlap and have no holes.
"""

from pathlib import Path
from typing import Any

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_root
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.coco import list_coco

_FOLDERS = {  # of images
    "v0.5_val": ("val2017",),
    "v0.5_train": ("train2017",),
    "v1_val": ("train2017", "val2017"),
    "v1_train": ("train2017",),
}


def list_lvis(source: Path, split: str) -> Listing:
    """Images of a split; JSON file and image folders may lie in different places below the source.

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    file = f"lvis_{split}.json"
    images = find_root(source, *_FOLDERS[split], name=f"COCO 2017's images for LVIS {split}")
    return list_coco(find_root(source, file, name=f"LVIS {split}") / file, images, path_of=_path)


def _path(image: dict[str, Any]) -> str | None:
    url = image.get("coco_url")
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) else None


DATASET = Dataset(
    name="lvis",
    title="LVIS, everyday photos with a large vocabulary (Gupta et al., 2019)",
    group="objects",
    splits={split: Counts(5000) if split == "v0.5_val" else Counts() for split in _FOLDERS},
    evaluation_split="v0.5_val",
    license="annotations CC BY 4.0, images under the terms of Flickr",
    download="annotations from https://www.lvisdataset.org, images (train2017.zip, val2017.zip) from "
    "https://cocodataset.org, no registration",
    layout="lvis_v0.5_{train,val}.json or lvis_v1_{train,val}.json, and the folders train2017 and val2017 of images",
    list_samples=list_lvis,
    notes="SAM's figures are on v0.5's val. Not every object in an image is annotated.",
)
