"""TrashCan 1.0: `instance_version/` as COCO JSON with polygons, `original_data/` as Supervisely bitmaps.

The released polygons are outlines of the bitmaps, traced on a padded copy and simplified: about a pixel too large to
the right and below (a mean IoU of 0.94 with the bitmaps), partly beyond the image, holes as ordinary rings. Figures on
TrashCan are computed from them, so they are read as they are, clipped at the image and with holes filled. Copies
without the JSON files still tell the split by the images in `train/` and `val/`; there the exact bitmaps are read.

From the bitmaps, the release leaves out trash without any tag (209 of 12,480 bitmaps) and unites the pieces of an
instance; so do we. For val the number of objects is the release's (2,588), for train 9,528: its script counts
12 pieces as objects of their own.
"""

from pathlib import Path
from typing import Any

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import IMAGE_ENDINGS, find_root, list_files
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.bitmaps import list_bitmaps
from ruac_jax.data.readers.coco import list_coco
from ruac_jax.errors import UserError


def list_trashcan(source: Path, split: str) -> Listing:
    """Images of train or val, or of "all" with the exact bitmaps.

    Raises:
      UserError: no such split, or neither its JSON file nor its images and the bitmaps are there.
    """
    check_split(DATASET, split)
    if split == "all":
        root = find_root(source, "original_data/annotations", "original_data/images", name="TrashCan's original data")
        return _list_original(root, list_files(root / "original_data" / "images", IMAGE_ENDINGS), whole=True)
    root = find_root(source, "instance_version", name="TrashCan 1.0")
    index = root / "instance_version" / f"instances_{split}_trashcan.json"
    if index.is_file():
        return list_coco(index, index.parent / split)
    images = list_files(index.parent / split, IMAGE_ENDINGS)
    if not images or not (root / "original_data" / "annotations").is_dir():
        raise UserError(
            f"{root} has no TrashCan split {split}: expected {index}, or images in {index.parent / split} and "
            f"{root / 'original_data' / 'annotations'}; the split all needs only original_data"
        )
    return _list_original(root, images, whole=False)


def _list_original(root: Path, images: list[Path], whole: bool) -> Listing:
    annotations = list_files(root / "original_data" / "annotations", (".json",))
    names = {image.name for image in images}
    return list_bitmaps(images, [file for file in annotations if whole or file.stem in names], is_released)


def is_released(entry: dict[str, Any]) -> bool:
    """Whether the release made an annotation of this bitmap."""
    return entry["classTitle"] != "trash" or bool(entry["tags"])


DATASET = Dataset(
    name="trashcan",
    title="TrashCan 1.0, trash, animals and robots on the sea floor (Hong et al., 2020)",
    group="objects",
    splits={"train": Counts(6065, 9540), "val": Counts(1147, 2588), "all": Counts(7212)},
    evaluation_split="train",
    license="free for teaching and research, commercial use by JAMSTEC's consent; the files say CC BY-NC-SA 2.0",
    download="dataset.zip from https://hdl.handle.net/11299/214865, no registration",
    layout="instance_version/instances_{train,val}_trashcan.json with images in instance_version/{train,val}; "
    "for the split all original_data/{images,annotations}",
    list_samples=list_trashcan,
    notes="The released polygons fill holes and are up to a pixel too large. The split all, and train and val where "
    "their JSON files are missing, have the annotators' exact bitmaps instead. 129 images of train have no object.",
)
