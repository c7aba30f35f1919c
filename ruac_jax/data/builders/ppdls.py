"""PPDLS, leaves of potted plants: `Plant/{Ara2012,Tobacco}/<name>_rgb.png` with `<name>_label.png`.

The same images are also distributed for the CVPPP challenge as `{A1,A3}/plantNNN_{rgb,label}.png`; that packaging is
read as well. Maps are palette images, in some copies turned into RGB: each value or colour but 0 or black is a leaf.
Foregrounds, boxes and other companions are not needed, nor are the trays of many plants.
"""

from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_root, find_roots, list_files
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.folders import list_pairs
from ruac_jax.data.readers.label_map import read_colour_map
from ruac_jax.errors import UserError

_PARTS = ("Ara2012", "Tobacco")
_CHALLENGE_PARTS = ("A1", "A3")  # the same plants
_IMAGE, _LABEL = "_rgb.png", "_label.png"


def list_ppdls(source: Path, split: str) -> Listing:
    """Plants of Arabidopsis (2012) and tobacco.

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    markers = [f"{part}/*_plant*{_LABEL}" for part in _PARTS]
    challenge = f"A[13]/plant*{_LABEL}"
    if find_roots(source, *markers):
        root, parts = find_root(source, *markers, name="PPDLS"), _PARTS
    elif find_roots(source, challenge):
        root, parts = find_root(source, challenge, name="PPDLS"), _CHALLENGE_PARTS
    else:
        raise UserError(
            f"{source} does not look like PPDLS: expected {' and '.join(markers)}, or for the CVPPP challenge's "
            f"packaging {challenge}, in it or below it"
        )
    return list_pairs(_named(root, parts, _IMAGE), _named(root, parts, _LABEL), read_colour_map)


def _named(root: Path, parts: tuple[str, ...], ending: str) -> list[tuple[str, Path]]:
    files = [(part, file) for part in parts for file in list_files(root / part, (".png",))]
    return [(f"{part}/{file.name.removesuffix(ending)}", file) for part, file in files if file.name.endswith(ending)]


DATASET = Dataset(
    name="ppdls",
    title="PPDLS, leaves of Arabidopsis and tobacco plants from above (Minervini et al., 2016)",
    group="scientific",
    splits={"all": Counts(182, 2347)},
    evaluation_split="all",
    license="academic use",
    download="Plant_Phenotyping_Datasets.zip from https://www.plant-phenotyping.org/datasets, registration",
    layout="Plant_Phenotyping_Datasets/Plant/{Ara2012,Tobacco}/*_plant<nnn>_{rgb,label}.png, or the CVPPP challenge's "
    "{A1,A3}/plant<nnn>_{rgb,label}.png",
    list_samples=list_ppdls,
    notes="The split all has the 120 plants of Ara2012 and the 62 of Tobacco, by number those that SAM used, and not "
    "the 165 of Ara2013-Canon. The CVPPP challenge holds out some of them.",
)
