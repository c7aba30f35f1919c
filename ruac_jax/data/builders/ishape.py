"""iShape: six parts, each `<part>/<split>/` with `image/*.jpg` and a 16-bit `instance_map/*.png` of the same name.

In a map 0 is ground and each other number an object (1000 x class + number). The same file names occur in all parts,
so a part's name leads the image id. The COCO files and links beside the maps are not needed; the links often break.
"""

from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_root, list_files
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.folders import list_pairs
from ruac_jax.data.readers.label_map import read_label_map

_PARTS = ("antenna", "branch", "fence", "hanger", "log", "wire")


def list_ishape(source: Path, split: str) -> Listing:
    """Images of a split of all parts; a missing part is a problem.

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    root = find_root(source, f"*/{split}/instance_map/*.png", f"*/{split}/image/*.jpg", name="iShape")
    folders = {part: root / part / split for part in _PARTS}
    listing = list_pairs(
        [(f"{part}/{file.stem}", file) for part in _PARTS for file in list_files(folders[part] / "image", (".jpg",))],
        [
            (f"{part}/{file.stem}", file)
            for part in _PARTS
            for file in list_files(folders[part] / "instance_map", (".png",))
        ],
        read_label_map,
    )
    missing = [f"{folder}: no such folder" for folder in folders.values() if not folder.is_dir()]
    return Listing(listing.samples, missing + listing.problems)


DATASET = Dataset(
    name="ishape",
    title="iShape, objects of irregular shape: antennas, branches, fences, hangers, logs, wires (Yang et al., 2021)",
    group="objects",
    splits={"train": Counts(), "val": Counts()},
    evaluation_split="val",
    license="CC0",
    download="ishape_dataset.tar from https://ishape.github.io, no registration",
    layout="ishape_dataset/{antenna,branch,fence,hanger,log,wire}/{train,val}/{image,instance_map}",
    list_samples=list_ishape,
    notes="train and val together have 12,870 images with 175,840 objects. SAM drew 754 images from val.",
)
