"""InstanceBuilding (IBD), its 2D part: roofs in photos from drones.

How the published 2D annotations are stored could not be found out. This builder reads the one form that is the same
everywhere, COCO JSON per split beside a folder of images of that name, and says so where it finds anything else.
"""

from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_roots, is_junk
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.coco import list_coco
from ruac_jax.errors import UserError


def list_ibd(source: Path, split: str) -> Listing:
    """Images of a split.

    Raises:
      UserError: no such split, or not exactly one `*<split>*.json` beside a folder `<split>`.
    """
    check_split(DATASET, split)
    roots = find_roots(source, f"*{split}*.json", split)
    files = [file for root in roots for file in sorted(root.glob(f"*{split}*.json")) if not is_junk(file)]
    if len(files) != 1:
        raise UserError(
            f"the published layout of IBD is not documented; expected one COCO file *{split}*.json beside a folder "
            f"{split} of images, in {source} or below it, found {', '.join(map(str, files)) or 'none'}. Bring it into "
            "that form, or prepare it as a dataset of your own"
        )
    return list_coco(files[0], files[0].parent / split)


DATASET = Dataset(
    name="ibd",
    title="InstanceBuilding, roofs in photos from drones (Chen et al., 2022)",
    group="scientific",
    splits={"train": Counts(467, 11953), "val": Counts(), "test": Counts()},
    evaluation_split="train",
    license="free for non-commercial use",
    download="2D part, by the links of https://californiachen.github.io/datasets/InstanceBuilding",
    layout="one COCO file *train*.json beside a folder train of images; val and test alike",
    list_samples=list_ibd,
    notes="The published format of the 2D annotations is not documented; only COCO JSON is read.",
)
