"""BBBC038v1, nuclei in microscopy: `<image id>/images/*.png` and `<image id>/masks/*.png`, one nucleus to a file.

The archive has no folder of its own, so the ids may lie right in `--source`. Images are RGBA. The corrected copy
(kaggle-dsbowl-2018-dataset-fixes) has the same layout; it is one or the other, never both.
"""

from functools import partial
from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing, Sample
from ruac_jax.data.files import find_root, list_files, list_folders
from ruac_jax.data.names import check_split, natural_key
from ruac_jax.data.readers.instance_files import read_instance_files


def list_bbbc038(source: Path, split: str) -> Listing:
    """Images of stage 1's training set.

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    samples, problems = [], []
    for folder in list_folders(find_root(source, "*/images/*.png", "*/masks/*.png", name="BBBC038v1, stage1_train")):
        images, masks = (list_files(folder / kind, (".png",)) for kind in ("images", "masks"))
        if len(images) != 1 or not masks:
            problems.append(f"{folder}: {len(images)} images and {len(masks)} masks, expected one image and its masks")
            continue
        samples.append(Sample(folder.name, images[0], partial(read_instance_files, masks), tuple(masks)))
    return Listing(sorted(samples, key=lambda sample: natural_key(sample.image_id)), problems)


DATASET = Dataset(
    name="bbbc038",
    title="BBBC038v1, nuclei in microscopy of many kinds (Caicedo et al., 2019)",
    group="scientific",
    splits={"train": Counts(images=670)},
    evaluation_split="train",
    license="CC0",
    download="stage1_train.zip from https://bbbc.broadinstitute.org/BBBC038, no registration",
    layout="stage1_train/<image id>/images/<image id>.png and stage1_train/<image id>/masks/*.png",
    list_samples=list_bbbc038,
    notes="SAM drew 227 images with 10,506 masks. The published masks have known errors; a corrected copy of 664 "
    "images, kaggle-dsbowl-2018-dataset-fixes, can be prepared instead.",
)
