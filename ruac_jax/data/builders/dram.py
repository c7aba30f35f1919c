"""DRAM, paintings: `test/[unseen/]<movement>/<artist>/*.jpg` with label maps at the same path below `labels/`.

Maps hold numbers of Pascal VOC classes. Eleven of them are annotated; 0 is ground and the rest, 255 with it, is of no
account: the authors ignore those pixels in their scores. The training images have no labels.
"""

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import IMAGE_ENDINGS, find_root
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.folders import list_pairs, list_tree
from ruac_jax.data.readers.label_map import LABEL_ENDINGS, read_label_map

# bird, boat, bottle, cat, chair, cow, dog, horse, person, potted plant, sheep
_CLASSES = (3, 4, 5, 8, 9, 10, 12, 13, 15, 16, 17)
_VOC = (*range(21), 255)


def list_dram(source: Path, split: str) -> Listing:
    """Labelled paintings, those of unseen movements too.

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    root = find_root(
        source, "test/*/*/*.jpg", "labels/*/*/*.png", name="DRAM (unpack the .rar inside DRAM_processed.zip too)"
    )
    images, labels = list_tree(root / "test", IMAGE_ENDINGS), list_tree(root / "labels", LABEL_ENDINGS)
    return list_pairs(images, labels, partial(read_label_map, is_object=is_annotated))


def is_annotated(values: Int64[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Which numbers are annotated classes.

    Raises:
      ValueError: a number is none of Pascal VOC's.
    """
    if unknown := sorted(set(values.tolist()) - set(_VOC)):
        raise ValueError(f"values {unknown[:5]}, expected the classes 0 to 20 of Pascal VOC and 255")
    return np.isin(values, _CLASSES)


DATASET = Dataset(
    name="dram",
    title="DRAM, diverse realism in art movements: paintings (Cohen et al., 2022)",
    group="objects",
    splits={"test": Counts(718, 1179)},
    evaluation_split="test",
    license="research only, no commercial use",
    download="DRAM_processed.zip from https://faculty.runi.ac.il/arik/site/artseg/Dram-Dataset.html, no registration; "
    "it holds a .rar to unpack as well",
    layout="DRAM_processed/ with test/[unseen/]<movement>/<artist>/*.jpg and labels/ of the same folders, *.png",
    list_samples=list_dram,
    notes="Classes, not objects: one mask for each annotated class in a painting, as SAM counted. The movements that "
    "the authors call unseen are part of test.",
)
