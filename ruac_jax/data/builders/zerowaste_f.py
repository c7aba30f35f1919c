"""ZeroWaste-f: `splits_final_deblurred/<split>/labels.json` (COCO, polygons) beside `data/*.PNG`.

`sem_seg/` beside them holds classes, not instances, and is not read.
"""

from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_root
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.coco import list_coco


def list_zerowaste(source: Path, split: str) -> Listing:
    """Images of a split.

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    folder = find_root(source, f"{split}/labels.json", f"{split}/data", name="ZeroWaste-f") / split
    return list_coco(folder / "labels.json", folder / "data")


DATASET = Dataset(
    name="zerowaste_f",
    title="ZeroWaste-f, waste on a conveyor belt (Bashkirova et al., 2022)",
    group="objects",
    splits={"train": Counts(3002, 6155), "val": Counts(572), "test": Counts(929)},
    evaluation_split="train",
    license="CC BY-NC 4.0",
    download="zerowaste-f-final.zip from https://zenodo.org/records/6412647, no registration",
    layout="splits_final_deblurred/{train,val,test}/, each with labels.json and data/*.PNG",
    list_samples=list_zerowaste,
    notes="55 images of train have no object.",
)
