"""Hypersim: rendered rooms, object numbers in HDF5 beside tone-mapped JPEG previews.

`ai_VVV_NNN/images/scene_cam_XX_final_preview/frame.IIII.tonemap.jpg` with
`ai_VVV_NNN/images/scene_cam_XX_geometry_hdf5/frame.IIII.semantic_instance.hdf5`, numbers per scene up to some thousand.
Frame numbers have gaps, at 0 too, and one published frame has no map. The authors' table of frames says which are
public, and which belong to train, val and test.
"""

import csv
from collections import Counter
from functools import partial
from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing, Sample
from ruac_jax.data.files import find_roots
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.hdf5 import read_masks
from ruac_jax.errors import UserError

_TABLE = "metadata_images_split_scene_v1.csv"
_SCENE = "ai_[0-9][0-9][0-9]_[0-9][0-9][0-9]"
_IMAGE, _MAP = "tonemap.jpg", "semantic_instance.hdf5"
_NEVER_PUBLISHED = {"ai_006_001/cam_00/0053"}  # an image without its map


def list_samples(source: Path, split: str) -> Listing:
    """Frames with a map, by scene, camera and number; frames that are not public or of another split are left out.

    Raises:
      UserError: no such split, no scene, or no table of frames where it is needed.
    """
    check_split(DATASET, split)
    roots = find_roots(source, f"{_SCENE}/images")
    if not roots:
        raise UserError(f"{source} does not look like Hypersim: expected ai_VVV_NNN/images in it or below it")
    wanted = _read_table([source, *roots], split)
    scenes = [scene for root in roots for scene in root.glob(_SCENE)]
    copies = Counter(scene.name for scene in scenes)
    samples, problems = [], []
    for scene in sorted(scenes, key=lambda folder: folder.name):
        if copies[scene.name] > 1:
            problems.append(f"{scene}: the scene is there {copies[scene.name]} times")
        elif not (scene / "images").is_dir():
            problems.append(f"{scene}: has no folder images")
        else:
            part = _list_scene(scene, wanted)
            samples += part.samples
            problems += part.problems
    return Listing(samples, problems)


def _list_scene(scene: Path, wanted: set[str] | None) -> Listing:
    samples, problems = [], []
    for camera in sorted({folder.name[6:12] for folder in (scene / "images").glob("scene_cam_[0-9][0-9]_*")}):
        clip = f"{scene.name}/{camera}"
        images = _numbered(scene / "images" / f"scene_{camera}_final_preview", _IMAGE)
        maps = _numbered(scene / "images" / f"scene_{camera}_geometry_hdf5", _MAP)
        for number in sorted(images.keys() | maps.keys()):
            image_id = f"{clip}/{number}"
            if image_id in _NEVER_PUBLISHED or (wanted is not None and image_id not in wanted):
                continue
            if number not in maps:
                problems.append(f"{images[number]}: no map {_MAP} of this frame")
            elif number not in images:
                problems.append(f"{maps[number]}: no image {_IMAGE} of this frame")
            else:
                masks = partial(read_masks, maps[number])
                samples.append(Sample(image_id, images[number], masks, (maps[number],), clip))
    return Listing(samples, problems)


def _read_table(folders: list[Path], split: str) -> set[str] | None:
    """Ids of the split's public frames; None for all frames, where there is no table."""
    file = next((folder / _TABLE for folder in folders if (folder / _TABLE).is_file()), None)
    if file is None:
        if split == "all":
            return None
        raise UserError(
            f"{folders[0]} has no {_TABLE}, which says what {split} is: copy it there from "
            "evermotion_dataset/analysis/ of https://github.com/apple/ml-hypersim, or prepare the split all"
        )
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            return {
                f"{row['scene_name']}/{row['camera_name']}/{int(row['frame_id']):04d}"
                for row in csv.DictReader(lines)
                if row["included_in_public_release"] == "True" and split in ("all", row["split_partition_name"])
            }
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise UserError(f"{file}: not Hypersim's table of frames ({error!r})") from error


def _numbered(folder: Path, kind: str) -> dict[str, Path]:
    """Files `frame.IIII.<kind>` by IIII."""
    return {file.name.split(".")[1]: file for file in folder.glob(f"frame.[0-9][0-9][0-9][0-9].{kind}")}


DATASET = Dataset(
    name="hypersim",
    title="Hypersim, rendered rooms (Roberts et al., 2021)",
    group="scenes",
    splits={
        "all": Counts(images=74619),
        "train": Counts(images=59543),
        "val": Counts(images=7386),
        "test": Counts(images=7690),
    },
    evaluation_split="all",
    license="CC BY-SA 3.0",
    download="https://github.com/apple/ml-hypersim (a zip per scene), no registration",
    layout="ai_VVV_NNN/images with scene_cam_XX_final_preview/frame.IIII.tonemap.jpg and "
    "scene_cam_XX_geometry_hdf5/frame.IIII.semantic_instance.hdf5; for train, val and test also "
    "metadata_images_split_scene_v1.csv of the repository",
    list_samples=list_samples,
    frames="first",
    notes="One frame of each camera trajectory: the first that is public. Without the repository's table every frame "
    "on disk counts as public. A few trajectories are rendered without lights or textures, e.g. ai_004_009 cam_01 and "
    "ai_038_007 cam_00; they are kept.",
)
