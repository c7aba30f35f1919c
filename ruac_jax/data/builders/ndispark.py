"""NDISPark: `train/train_coco_annotations.json` and `validation/val_coco_annotations.json`, each beside `imgs/`.

Numbers of images begin at 0 in each file. `test/` has counts of cars, no masks.
"""

from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_root
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.coco import list_coco

_FILES = {"train": "train_coco_annotations.json", "validation": "val_coco_annotations.json"}


def list_ndispark(source: Path, split: str) -> Listing:
    """Images of a split.

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    file = _FILES[split]
    folder = find_root(source, f"{split}/{file}", f"{split}/imgs", name="NDISPark") / split
    return list_coco(folder / file, folder / "imgs")


DATASET = Dataset(
    name="ndispark",
    title="NDISPark, cars in parking areas by day and night (Ciampi et al., 2021)",
    group="scenes",
    splits={"train": Counts(112, 2577), "validation": Counts(30, 725)},
    evaluation_split="train",
    license="ODC-By 1.0",
    download="ndis_park.zip from https://zenodo.org/records/6560823, no registration",
    layout="train/ with train_coco_annotations.json and imgs/, validation/ with val_coco_annotations.json and imgs/",
    list_samples=list_ndispark,
    notes="One image of train has no car. The test split has counts only.",
)
