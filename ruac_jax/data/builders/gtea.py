"""GTEA, hands in first-person video: `GTEA/Images/*.jpg` and `GTEA/Masks/*.png` of `hand2K_dataset`.

Left, right and intersecting hands have labels of their own in a mask. How they are coded is not documented; published
readers, the authors' among them, see masks in grey and take what is darker than a tenth of white for ground. Here each
distinct colour that is lighter is a hand; more than three cannot be labels of hands and are refused. The folders
`oldImages` and `oldMasks`, and GTEA Gaze+ beside GTEA, are not read.
"""

from functools import partial
from pathlib import Path

import numpy as np

from ruac_jax.data.dataset import BadFileError, Counts, Dataset, Listing
from ruac_jax.data.files import decode_rgb, find_root, list_files, read_image
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.folders import list_pairs
from ruac_jax.data.readers.label_map import check_size, encode_labels, pack_colours

_HANDS = 3  # left, right, intersecting
_DARKEST = 25.5  # grey of a label, at least


def list_gtea(source: Path, split: str) -> Listing:
    """Frames of GTEA.

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    root = find_root(source, "GTEA/Images/*.jpg", "GTEA/Masks/*.png", name="GTEA's hands") / "GTEA"
    return list_pairs(
        [(file.stem, file) for file in list_files(root / "Images", (".jpg",))],
        [(file.stem, file) for file in list_files(root / "Masks", (".png",))],
        read_hands,
    )


def read_hands(file: Path, size: tuple[int, int]) -> RunLengthMasks:
    """One mask per label of hands in a frame.

    Raises:
      BadFileError: unreadable or truncated, another size than (height, width), or too many colours.
    """
    data, found = read_image(file)
    check_size(file, found, size)
    colours = pack_colours(decode_rgb(data))
    values = np.unique(colours)
    grey = 0.299 * (values >> 16) + 0.587 * (values >> 8 & 255) + 0.114 * (values & 255)
    hands = values[grey >= _DARKEST]
    if len(hands) > _HANDS:
        raise BadFileError(f"{file}: {len(hands)} colours, expected at most {_HANDS}: left, right, intersecting hands")
    return encode_labels(colours, partial(np.isin, test_elements=hands))


DATASET = Dataset(
    name="gtea",
    title="GTEA, hands in first-person video of cooking (Fathi et al., 2011; masks of Li et al., 2015)",
    group="egocentric",
    splits={"train": Counts(images=663)},
    evaluation_split="train",
    license="research; terms not stated",
    download="hand2K_dataset.zip from https://cbs.ic.gatech.edu/fpv, no registration",
    layout="hand2K_dataset/GTEA/{Images/*.jpg,Masks/*.png}",
    list_samples=list_gtea,
    notes="The split train is all of GTEA. One mask per label in a frame: left, right and intersecting hands. SAM has "
    "652 images with 1,208 masks, the frames without a hand left out.",
)
