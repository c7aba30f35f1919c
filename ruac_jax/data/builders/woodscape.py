"""WoodScape: street scenes through four fisheye cameras of a car, one JSON of polygons per image.

`rgb_images/00000_FV.png` (FV, RV, MVL, MVR) with `instance_annotations/00000_FV.json`, either of which may lie a folder
deeper, as the download has zips within zips. `previous_images` and `semantic_annotations` hold PNGs of like names; they
are not read.
"""

from functools import partial
from pathlib import Path
from typing import Any

from ruac_jax.data.dataset import BadFileError, Counts, Dataset, Listing, Sample
from ruac_jax.data.files import find_root, list_files, read_json
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.names import check_split, natural_key
from ruac_jax.data.readers.segmentation import read_listed_segmentations
from ruac_jax.errors import UserError

_IMAGES, _ANNOTATIONS = "rgb_images", "instance_annotations"
_VIEWS = ("FV", "RV", "MVL", "MVR")  # front, rear, mirrors


def list_samples(source: Path, split: str) -> Listing:
    """Images with an annotation.

    Raises:
      UserError: no such split, or not the layout of WoodScape.
    """
    check_split(DATASET, split)
    root = find_root(source, _IMAGES, _ANNOTATIONS, name="WoodScape")
    images, annotations = _find(root / _IMAGES, ".png"), _find(root / _ANNOTATIONS, ".json")
    samples, problems = [], []
    for name in sorted(images.keys() | annotations.keys(), key=natural_key):
        if name not in images:
            problems.append(f"{annotations[name]}: no image {name}.png in {_IMAGES}")
        elif name not in annotations:
            problems.append(f"{images[name]}: no annotation {name}.json in {_ANNOTATIONS}")
        else:
            masks = partial(_read_masks, images[name], annotations[name])
            samples.append(Sample(name, images[name], masks, (annotations[name],)))
    return Listing(samples, problems)


def _find(folder: Path, ending: str) -> dict[str, Path]:
    """Files `<number>_<view>` by name."""
    place = find_root(folder, f"*_[FRM]V*{ending}", name="WoodScape with the zips inside it unpacked")
    return {file.stem: file for file in list_files(place, (ending,)) if file.stem.rpartition("_")[2] in _VIEWS}


def _read_masks(image: Path, annotations: Path, size: tuple[int, int]) -> RunLengthMasks:
    """Whole polygons, of all tags; pieces of the same group and tag are one object."""
    objects: dict[Any, list[Any]] = {}
    try:
        (content,) = read_json(annotations).values()
        listed = (content["image_height"], content["image_width"])
        for number, entry in enumerate(content["annotation"]):
            if len(entry["tags"]) == 1:  # the authors' code skips others
                group = entry.get("group_id")
                key = (group, entry["tags"][0]) if group else number
                objects.setdefault(key, []).append(entry["segmentation"])
    except (UserError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadFileError(f"{annotations}: not an instance annotation of WoodScape ({error!r})") from error
    return read_listed_segmentations(image, annotations, list(objects.values()), size, listed=listed)


DATASET = Dataset(
    name="woodscape",
    title="WoodScape, streets through the fisheye cameras of a car (Yogamani et al., 2019)",
    group="scenes",
    splits={"all": Counts(images=8234)},
    evaluation_split="all",
    license="the authors' own, non-commercial",
    download="https://woodscape.valeo.com, no registration",
    layout="rgb_images/*.png and instance_annotations/*.json, with the zips inside the download unpacked",
    list_samples=list_samples,
    notes="Every polygon with one tag is an object, of any tag (road, sky, void and the car itself too), as the 96 "
    "masks per image reported for SAM require; pieces that share group and tag are one. Polygons are taken whole: "
    "what lies in front of an object is not cut out of it.",
)
