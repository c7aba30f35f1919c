"""Users' own images under the evaluation: a folder of images with a COCO JSON, or with a folder of label PNGs."""

from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.readers.coco import list_coco
from ruac_jax.data.readers.folders import list_label_folder
from ruac_jax.errors import UserError

SPLIT = "all"


def custom_dataset(name: str, images: Path, annotations: Path) -> Dataset:
    """Describes a user's own dataset of one split, "all".

    Args:
      name: what to call it.
      images: folder of images.
      annotations: a COCO JSON file, or a folder with, for each image, a label map `<stem>.png` or a folder
        `<stem>` of one PNG per object.

    Raises:
      UserError: later, from `list_samples`: the annotations are not there or of neither kind.
    """

    def list_samples(source: Path, split: str) -> Listing:
        if split != SPLIT:
            raise UserError(f"{name} has one split, {SPLIT!r}, not {split!r}")
        if annotations.is_file():
            return list_coco(annotations, images)
        if annotations.is_dir():
            return list_label_folder(images, annotations)
        raise UserError(
            f"--annotations {annotations}: expected a COCO JSON file or a folder of label PNGs, found nothing"
        )

    return Dataset(
        name=name,
        title=name,
        group="objects",
        splits={SPLIT: Counts()},
        evaluation_split=SPLIT,
        license="yours",
        download=str(images),
        layout="a folder of images, and a COCO JSON file or a folder of label or instance PNGs",
        list_samples=list_samples,
    )
