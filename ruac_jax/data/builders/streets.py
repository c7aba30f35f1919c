"""STREETS: vehicles seen by traffic cameras, outlined by VIA polygons.

File names hold spaces and parentheses; outlines leave the image, and some have under 3 points. The dataset has no
splits of its own; the authors' code comes with one, of the file `train-val-split.json`.
"""

from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_root, read_json
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.via import list_via
from ruac_jax.errors import UserError

_ANNOTATIONS = "annotations/vehicle-annotations.json"
_SPLIT_FILE = "train-val-split.json"


def list_samples(source: Path, split: str) -> Listing:
    """Images of the split, all of them or those that the authors' split file names.

    Raises:
      UserError: no such split, not the layout of STREETS, or no split file where it is needed.
    """
    check_split(DATASET, split)
    root = find_root(source, _ANNOTATIONS, "images", name="STREETS")
    names = None if split == "all" else _read_names(source, root, split)
    return list_via(root / _ANNOTATIONS, root / "images", names=names)


def _read_names(source: Path, root: Path, split: str) -> list[str]:
    file = next((folder / _SPLIT_FILE for folder in (root, source) if (folder / _SPLIT_FILE).is_file()), None)
    if file is None:
        raise UserError(
            f"{source} has no {_SPLIT_FILE}, which says what {split} is: copy it there from data/ of "
            "https://github.com/corey-snyder/STREETS, or prepare the split all"
        )
    index = read_json(file)
    names = index.get(split) if isinstance(index, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: expected a list of file names under {split!r}")
    return names


DATASET = Dataset(
    name="streets",
    title="STREETS, vehicles seen by traffic cameras (Snyder and Do, 2019)",
    group="scenes",
    splits={"all": Counts(images=2951), "train": Counts(images=2478), "val": Counts(images=473)},
    evaluation_split="all",
    license="none stated",
    download="https://databank.illinois.edu/datasets/IDB-3671567 (vehicleannotations.zip), no registration",
    layout="images/*.jpg and annotations/vehicle-annotations.json; for train and val also train-val-split.json of "
    "https://github.com/corey-snyder/STREETS",
    list_samples=list_samples,
    notes="Outlines are clipped at the image; those of under 3 points are left out.",
)
