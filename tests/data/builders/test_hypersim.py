import shutil

import h5py
import numpy as np
import pytest

from ruac_jax.data.builders.hypersim import DATASET
from ruac_jax.data.dataset import first_frames
from ruac_jax.errors import UserError

from ..coco_tree import SIZE, assert_masks, box_mask, write_image

BOX, OTHER = (3, 2, 9, 7), (20, 10, 32, 24)
TABLE = "metadata_images_split_scene_v1.csv"


def write_frame(root, scene, camera, number, objects):
    """A frame with the companions that the download has; `objects` maps numbers to boxes."""
    images = root / scene / "images"
    for kind in ("tonemap", "color", "diffuse_reflectance"):
        write_image(images / f"scene_{camera}_final_preview" / f"frame.{number:04d}.{kind}.jpg")
    values = np.full(SIZE, -1, np.int16)
    for value, box in objects.items():
        values[box_mask(box)] = value
    folder = images / f"scene_{camera}_geometry_hdf5"
    folder.mkdir(parents=True, exist_ok=True)
    for kind, content in {"semantic_instance": values, "semantic": values % 40, "depth_meters": values + 0.5}.items():
        with h5py.File(folder / f"frame.{number:04d}.{kind}.hdf5", "w") as file:
            file.create_dataset("dataset", data=content, compression="gzip")
    write_image(images / f"scene_{camera}_geometry_preview" / f"frame.{number:04d}.semantic_instance.png")
    (root / scene / "_detail" / camera).mkdir(parents=True, exist_ok=True)


def write_hypersim(root):
    """Two cameras without a frame 0; numbers above a byte."""
    write_frame(root, "ai_001_001", "cam_00", 12, {7: OTHER})
    write_frame(root, "ai_001_001", "cam_00", 3, {4166: BOX, 300: OTHER})
    write_frame(root, "ai_001_001", "cam_01", 0, {})
    write_frame(root, "ai_055_010", "cam_00", 2, {1: OTHER, 44: BOX})
    return root


EXPECTED = {
    "ai_001_001/cam_00/0003": [OTHER, BOX],
    "ai_001_001/cam_00/0012": [OTHER],
    "ai_001_001/cam_01/0000": [],
    "ai_055_010/cam_00/0002": [OTHER, BOX],
}


def write_table(folder, hidden=(), partition=("train", "val")):
    """The authors' table: all frames of the two scenes; the first scene is in one part, the second in another."""
    lines = ["scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"]
    for image_id in EXPECTED:
        scene, camera, number = image_id.split("/")
        part = partition[scene == "ai_055_010"]
        shown = "False,CONTENT FLAGGED FOR REMOVAL," if image_id in hidden else f"True,,{part}"
        lines.append(f"{scene},{camera},{int(number)},{shown}")
    (folder / TABLE).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("place", [".", "hypersim/scenes"])
def test_frames_by_scene_camera_and_number(tmp_path, place):
    write_hypersim(tmp_path / place)
    write_frame(tmp_path / "__MACOSX", "ai_009_009", "cam_00", 0, {1: BOX})
    listing = DATASET.list_samples(tmp_path, DATASET.evaluation_split)
    assert_masks(listing, EXPECTED)
    assert listing.problems == []
    assert {sample.image_id: sample.clip for sample in listing.samples} == {
        image_id: image_id.rsplit("/", 1)[0] for image_id in EXPECTED
    }
    assert all(sample.image.name.endswith(".tonemap.jpg") for sample in listing.samples)


def test_the_first_frame_is_the_smallest_number_that_is_there(tmp_path):
    samples = first_frames(DATASET.list_samples(write_hypersim(tmp_path), "all").samples)
    assert DATASET.frames == "first"
    assert [sample.image_id[-4:] for sample in samples] == ["0003", "0000", "0002"]


@pytest.mark.parametrize("place", [".", "scenes"])
def test_the_table_says_what_is_public_and_in_which_split(tmp_path, place):
    write_hypersim(tmp_path / "scenes")
    write_table(tmp_path / place, hidden=["ai_001_001/cam_00/0003"])
    shown = {image_id: objects for image_id, objects in EXPECTED.items() if image_id != "ai_001_001/cam_00/0003"}
    assert_masks(DATASET.list_samples(tmp_path, "all"), shown)
    first = first_frames(DATASET.list_samples(tmp_path, "all").samples)
    assert [sample.image_id[-4:] for sample in first] == ["0012", "0000", "0002"]
    for split, scene in (("train", "ai_001_001"), ("val", "ai_055_010"), ("test", "none")):
        part = {image_id: objects for image_id, objects in shown.items() if image_id.startswith(scene)}
        assert_masks(DATASET.list_samples(tmp_path, split), part)


def test_a_split_without_the_table_is_refused_with_a_way_out(tmp_path):
    write_hypersim(tmp_path)
    with pytest.raises(UserError, match=f"no {TABLE}, which says what train is: copy it there from evermotion_dataset"):
        DATASET.list_samples(tmp_path, "train")
    for content in ("scene_name,camera_name\nai_001_001,cam_00\n", "\xff\xfe"):
        (tmp_path / TABLE).write_text(content, encoding="latin-1")
        with pytest.raises(UserError, match="not Hypersim's table of frames"):
            DATASET.list_samples(tmp_path, "all")
    with pytest.raises(UserError, match="no split 'valid'; known are all, train, val, test"):
        DATASET.list_samples(tmp_path, "valid")


def test_frames_that_lack_their_map_or_image_are_problems(tmp_path):
    write_hypersim(tmp_path)
    images = tmp_path / "ai_001_001" / "images"
    (images / "scene_cam_00_geometry_hdf5" / "frame.0003.semantic_instance.hdf5").unlink()
    (images / "scene_cam_00_final_preview" / "frame.0012.tonemap.jpg").unlink()
    shutil.rmtree(tmp_path / "ai_055_010" / "images" / "scene_cam_00_geometry_hdf5")
    listing = DATASET.list_samples(tmp_path, "all")
    assert_masks(listing, {"ai_001_001/cam_01/0000": []})
    assert [problem.split(": ")[0].rsplit("/", 1)[1] for problem in listing.problems] == [
        "frame.0003.tonemap.jpg",
        "frame.0012.semantic_instance.hdf5",
        "frame.0002.tonemap.jpg",
    ]


def test_the_one_map_that_was_never_published_is_no_problem(tmp_path):
    for number in (52, 53, 54):
        write_frame(tmp_path, "ai_006_001", "cam_00", number, {1: BOX})
    for number in (53, 54):
        (tmp_path / f"ai_006_001/images/scene_cam_00_geometry_hdf5/frame.{number:04d}.semantic_instance.hdf5").unlink()
    listing = DATASET.list_samples(tmp_path, "all")
    assert_masks(listing, {"ai_006_001/cam_00/0052": [BOX]})
    assert len(listing.problems) == 1
    assert "frame.0054.tonemap.jpg" in listing.problems[0]


def test_scenes_unpacked_into_folders_of_their_own_are_pooled_and_copies_told(tmp_path):
    for scene, box in (("ai_002_001", BOX), ("ai_003_001", OTHER)):
        write_frame(tmp_path / scene, scene, "cam_00", 0, {1: box})
    assert_masks(
        DATASET.list_samples(tmp_path, "all"),
        {"ai_002_001/cam_00/0000": [BOX], "ai_003_001/cam_00/0000": [OTHER]},
    )
    write_frame(tmp_path / "again", "ai_003_001", "cam_00", 0, {1: OTHER})
    listing = DATASET.list_samples(tmp_path, "all")
    assert_masks(listing, {"ai_002_001/cam_00/0000": [BOX]})
    assert [problem.split(": ")[1] for problem in listing.problems] == ["the scene is there 2 times"] * 2


def test_a_scene_without_images_is_a_problem_and_no_scene_an_error(tmp_path):
    write_hypersim(tmp_path / "scenes")
    shutil.rmtree(tmp_path / "scenes" / "ai_055_010" / "images")
    listing = DATASET.list_samples(tmp_path, "all")
    assert listing.problems == [f"{tmp_path / 'scenes' / 'ai_055_010'}: has no folder images"]
    with pytest.raises(UserError, match="does not look like Hypersim: expected ai_VVV_NNN/images"):
        DATASET.list_samples(tmp_path / "scenes" / "ai_055_010", "all")
