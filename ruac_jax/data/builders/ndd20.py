"""NDD20: dolphins and whales above and below water, outlined by VIA polylines.

`ABOVE/<n>.jpg` and `BELOW/<n>.jpg` bear the same names for different images, so that the folder is part of the id.
Some outlines are not closed, and two have 2 points only.
"""

from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_root
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.via import list_via

_FOLDERS = ("ABOVE", "BELOW")


def list_samples(source: Path, split: str) -> Listing:
    """Images of both folders with their outlines, closed.

    Raises:
      UserError: no such split, or not the layout of NDD20.
    """
    check_split(DATASET, split)
    markers = [marker for folder in _FOLDERS for marker in (folder, f"{folder}_LABELS.json")]
    root = find_root(source, *markers, name="NDD20")
    parts = [list_via(root / f"{folder}_LABELS.json", root / folder, prefix=f"{folder}/") for folder in _FOLDERS]
    samples = [sample for part in parts for sample in part.samples]
    return Listing(samples, [problem for part in parts for problem in part.problems])


DATASET = Dataset(
    name="ndd20",
    title="NDD20, dolphins and whales above and below water (Trotter et al., 2020)",
    group="objects",
    splits={"all": Counts(images=4402, masks=6100)},
    evaluation_split="all",
    license="CC BY-NC-SA 4.0 according to third parties, some of which say CC BY",
    download="https://doi.org/10.25405/data.ncl.c.4982342 (NDD20.zip), no registration",
    layout="ABOVE/*.jpg, BELOW/*.jpg, ABOVE_LABELS.json and BELOW_LABELS.json",
    list_samples=list_samples,
    notes="Open outlines are closed; outlines of 2 points (two of 6102) are left out.",
)
