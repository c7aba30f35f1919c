"""TimberSeg 1.0: `prescaled/coco_annotation.json` (COCO, polygons) beside `prescaled/images/`.

`coco_annotation_rotated.json` beside it has rotated boxes, and `original/` the same photos before scaling; neither is
read. A `file_name` begins with `images/`.
"""

from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_root
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.coco import list_coco


def list_timberseg(source: Path, split: str) -> Listing:
    """All images; there are no splits.

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    markers = ("prescaled/coco_annotation.json", "prescaled/images")
    folder = find_root(source, *markers, name="TimberSeg 1.0") / "prescaled"
    return list_coco(folder / "coco_annotation.json", folder / "images")


DATASET = Dataset(
    name="timberseg",
    title="TimberSeg 1.0, logs in piles (Fortin et al., 2022)",
    group="objects",
    splits={"all": Counts(220, 2487)},
    evaluation_split="all",
    license="CC BY 4.0",
    download="https://data.mendeley.com/datasets/y5npsm3gkj/2, no registration",
    layout="prescaled/coco_annotation.json and prescaled/images/",
    list_samples=list_timberseg,
)
