"""ADE20K in full: `{training,validation}/.../<image>.jpg` with what is annotated in it, objects and their parts.

Release of 2021: `<image>.json` lists objects and parts, each with a mask of its own in the folder `<image>/`; 255 is
visible, 128 belongs to the object but is hidden by others and is left out. Parts lie within objects, so masks overlap.

Release of 2016: `<image>_seg.png` for objects and `<image>_parts_1.png`, `_parts_2.png` ... for parts, in colours: red
and green give the class (0: not labelled), blue tells objects of a class apart, so that a colour is an object. In the
authors' sample of 2021, which has both codings, these are the same objects and parts: 70 of 70, the least like with an
IoU of 0.96.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, Integer

from ruac_jax.data.dataset import BadFileError, Counts, Dataset, Listing
from ruac_jax.data.files import find_root, list_files, list_folders, read_json
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.folders import list_pairs
from ruac_jax.data.readers.instance_files import read_instance_files
from ruac_jax.data.readers.label_map import read_colour_map
from ruac_jax.errors import UserError

_FOLDERS = {"train": "training", "val": "validation"}
_OBJECTS = "_seg.png"


def list_ade20k(source: Path, split: str) -> Listing:
    """Images of a split.

    Raises:
      UserError: no such split or layout.
    """
    check_split(DATASET, split)
    folder = _FOLDERS[split]
    root = find_root(
        source,
        f"{folder}/**/*{_OBJECTS}",
        name="the full ADE20K (the scene parsing challenge, ADEChallengeData2016, has classes only)",
    )
    folders = list(_image_folders(root / folder))
    images = [(file.stem, file) for folder in folders for file in list_files(folder, (".jpg",))]
    indices = [(file.stem, file) for folder in folders for file in list_files(folder, (".json",))]
    if indices:
        read, files_of = read_2021, _files_of_2021
    else:
        read, files_of = read_2016, _files_of_2016
        pngs = (file for folder in folders for file in list_files(folder, (".png",)))
        indices = [(file.name.removesuffix(_OBJECTS), file) for file in pngs if file.name.endswith(_OBJECTS)]
    samples, problems = list_pairs(images, indices, read)
    return Listing([sample._replace(files=files_of(sample.files[0])) for sample in samples], problems)


def read_2021(index: Path, size: tuple[int, int]) -> RunLengthMasks:
    """Visible parts of the objects, and of their parts, in the order of an image's JSON file.

    Raises:
      BadFileError: the file does not name its masks, or one of them is missing or unreadable, of another size than
        (height, width), or coded otherwise.
    """
    try:
        names = [entry["instance_mask"] for entry in read_json(index)["annotation"]["object"]]
    except UserError as error:
        raise BadFileError(str(error)) from error
    except (KeyError, TypeError) as error:
        raise BadFileError(f"{index}: expected annotation.object with an instance_mask each") from error
    return read_instance_files([index.parent / name for name in names], size, is_visible)


def is_visible(pixels: Integer[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of an object that nothing hides.

    Raises:
      ValueError: the highest value is none of 0, 128, 255.
    """
    if pixels.max() not in (0, 128, 255):
        raise ValueError(f"values up to {pixels.max()}, expected 0, 128 (hidden) and 255 (visible)")
    return pixels == 255


def read_2016(objects: Path, size: tuple[int, int]) -> RunLengthMasks:
    """One mask per colour of the objects' map, then of the parts' maps, level by level.

    Raises:
      BadFileError: a map is unreadable, or of another size than (height, width).
    """
    levels = [read_colour_map(file, size, is_labelled) for file in _files_of_2016(objects)]
    return RunLengthMasks(size, [counts for masks in levels for counts in masks.counts])


def is_labelled(values: Int64[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Colours whose red and green name a class."""
    return (values >> 16) // 10 * 256 + (values >> 8 & 255) != 0


def _files_of_2021(index: Path) -> tuple[Path, ...]:
    return (index, *list_files(index.with_suffix(""), (".png",)))


def _files_of_2016(objects: Path) -> tuple[Path, ...]:
    stem = objects.name.removesuffix(_OBJECTS)
    levels = (objects.with_name(f"{stem}_parts_{level}.png") for level in itertools.count(1))
    return (objects, *itertools.takewhile(Path.is_file, levels))


def _image_folders(folder: Path) -> Iterator[Path]:
    """The folder and those below it, without the folders that hold the masks of an image."""
    yield folder
    images = {file.stem for file in list_files(folder, (".jpg",))}
    for child in list_folders(folder):
        if child.name not in images:
            yield from _image_folders(child)


DATASET = Dataset(
    name="ade20k",
    title="ADE20K, scenes with their objects and parts (Zhou et al., 2017)",
    group="scenes",
    splits={"train": Counts(images=25574), "val": Counts(images=2000)},
    evaluation_split="val",
    license="own terms, research and teaching",
    download="full dataset, release of 2021 or 2016, from https://ade20k.csail.mit.edu, registration",
    layout="ADE20K_2021_17_01/images/ADE/{training,validation}/ or ADE20K_2016_07_26/images/{training,validation}/",
    list_samples=list_ade20k,
    notes="Objects and parts, stuff such as sky among the objects; of hidden objects the visible part. SAM drew 302 "
    "images with 10,128 masks from val. Counts of images are those of 2021.",
)
