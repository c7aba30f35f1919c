"""PIDray, first release: `annotations/xray_*.json` (COCO) beside the folders `train`, `easy`, `hard` and `hidden`.

Numbers of images begin at 0 in each file. The second release (files `train.json`, `test*.json`) has other splits of the
same names and is refused.
"""

from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_root, find_roots
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.coco import list_coco
from ruac_jax.errors import UserError


def list_pidray(source: Path, split: str) -> Listing:
    """Images of a split.

    Raises:
      UserError: no such split or layout, or it is the second release.
    """
    check_split(DATASET, split)
    file = "annotations/xray_train.json" if split == "train" else f"annotations/xray_test_{split}.json"
    markers = (file, split)
    if not find_roots(source, *markers) and find_roots(source, "annotations/test*.json"):
        raise UserError(
            f"{source} looks like the second release of PIDray, whose splits are others; expected {file} of the first"
        )
    root = find_root(source, *markers, name="PIDray")
    return list_coco(root / file, root / split)


DATASET = Dataset(
    name="pidray",
    title="PIDray, X-ray images of luggage (Wang et al., 2021)",
    group="scientific",
    splits={"train": Counts(29457), "easy": Counts(), "hard": Counts(3733, 8892), "hidden": Counts()},
    evaluation_split="hard",
    license="academic use only",
    download="first release, by the links of https://github.com/bywang2018/security-dataset, no registration",
    layout="annotations/xray_{train,test_easy,test_hard,test_hidden}.json and images in train, easy, hard, hidden",
    list_samples=list_pidray,
    notes="The second release has another hard split (9,746 images) and is not read.",
)
