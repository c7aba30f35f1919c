"""EgoHOS, hands and what they touch: `<split>/image/*.jpg` and `<split>/label/*.png`.

A map's numbers are classes: 1 left hand, 2 right hand, 3 to 5 things touched by the left, right or both hands, 6 to 8
things touched through those. Some files decode with several channels; the first holds the numbers. Contact maps and
the folders `label_*`, made by the authors' scripts, are not read. The begin of a file's name tells its source.
"""

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_root, list_files
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.folders import list_pairs
from ruac_jax.data.readers.label_map import read_label_map

_SAM = "train_ego4d_thu"
_SAM_SOURCES = ("ego4d_", "thu_")


def list_egohos(source: Path, split: str) -> Listing:
    """Images of a split.

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    folder, sources = ("train", _SAM_SOURCES) if split == _SAM else (split, ("",))
    root = find_root(source, f"{folder}/image/*.jpg", f"{folder}/label/*.png", name="EgoHOS") / folder

    def named(kind: str, ending: str) -> list[tuple[str, Path]]:
        files = list_files(root / kind, (ending,))
        return [(file.stem, file) for file in files if file.name.startswith(sources)]

    return list_pairs(named("image", ".jpg"), named("label", ".png"), partial(read_label_map, is_object=is_class))


def is_class(values: Int64[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Hands and things.

    Raises:
      ValueError: a number that is no class.
    """
    if values[-1] > 8 or values[0] < 0:
        raise ValueError(f"values {values[0]} to {values[-1]}, expected the classes 0 to 8")
    return values > 0


DATASET = Dataset(
    name="egohos",
    title="EgoHOS, hands and the things they touch, first-person (Zhang et al., 2022)",
    group="egocentric",
    splits={
        _SAM: Counts(),
        "train": Counts(),
        "val": Counts(),
        "test_indomain": Counts(),
        "test_outdomain": Counts(),
    },
    evaluation_split=_SAM,
    license="code MIT, data not stated",
    download="egohos_dataset.zip by the links of https://github.com/owenzlz/EgoHOS, no registration",
    layout="{train,val,test_indomain,test_outdomain}/{image/*.jpg,label/*.png}",
    list_samples=list_egohos,
    notes="Classes, not objects: one mask for each of up to eight kinds of hand and thing in an image. SAM used the "
    "images of train from Ego4D and THU-READ (train_ego4d_thu), 2,940 images with 9,961 masks, perhaps not all.",
)
