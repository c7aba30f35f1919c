import shutil

import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.files import image_size, read_pixels
from ruac_jax.data.readers.video_frames import list_frames, read_masks
from ruac_jax.errors import UserError

from ...real_data import real_data
from ..video_tree import CLIPS, frame_labels, write_image, write_mask, write_mose

ALL = [(clip, f"{index:05d}") for clip, frames in sorted(CLIPS.items()) for index in range(len(frames))]


def names(listing):
    return [(sample.clip, sample.image_id.split("/")[1]) for sample in listing.samples]


@pytest.mark.parametrize("place", ["train", ".", "MOSE/train", "MOSE/MOSE/train"])
def test_the_root_is_found_by_its_folders(tmp_path, place):
    write_mose(tmp_path / place)
    listing = list_frames(tmp_path, "train")
    assert names(listing) == ALL
    assert listing.problems == []


def test_a_resolution_level_and_a_folder_per_video_are_read_too(tmp_path):
    write_mose(tmp_path / "mose")
    davis, videos = tmp_path / "davis", tmp_path / "videos"
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(tmp_path / "mose" / kind, davis / kind / "480p")
        for clip in CLIPS:
            shutil.copytree(tmp_path / "mose" / kind / clip, videos / clip / kind)
    assert names(list_frames(davis, "train")) == ALL
    assert names(list_frames(videos, "train")) == ALL


def test_the_split_is_picked_and_another_is_never_taken_for_it(tmp_path):
    write_mose(tmp_path / "train", {"one": [(1,)]})
    write_mose(tmp_path / "valid", {"two": [(1,), None, None]})
    assert names(list_frames(tmp_path, "train")) == [("one", "00000")]
    assert names(list_frames(tmp_path, "valid")) == [("two", "00000")]  # frames without mask are left out
    with pytest.raises(UserError, match="holds train, valid, but no test"):
        list_frames(tmp_path, "test")
    assert names(list_frames(tmp_path / "train", "validation")) == [("one", "00000")]


def test_junk_is_ignored(tmp_path):
    write_mose(tmp_path)
    write_mose(tmp_path / "__MACOSX" / "train")
    for name in (
        "JPEGImages/aa11/._00000.jpg",
        "Annotations/aa11/._00009.png",
        "Annotations/.DS_Store",
        "JPEGImages/x.txt",
    ):
        (tmp_path / name).write_bytes(b"junk")
    (tmp_path / "Annotations" / ".hidden").mkdir()
    assert names(list_frames(tmp_path, "train")) == ALL


def test_a_mask_without_image_is_a_problem_by_name(tmp_path):
    write_mose(tmp_path)
    write_mask(tmp_path / "Annotations/aa11/00007.png", (1,))
    write_mask(tmp_path / "Annotations/zz99/00000.png", (1,))
    listing = list_frames(tmp_path, "train")
    assert names(listing) == ALL
    assert len(listing.problems) == 2
    assert str(tmp_path / "Annotations/aa11/00007.png") in listing.problems[0]
    assert str(tmp_path / "Annotations/zz99/00000.png") in listing.problems[1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda root: None, "no folder"),
        (lambda root: root.mkdir(), "does not look like MOSE or DAVIS: expected train/JPEGImages"),
        (lambda root: [write_mose(root, {"one": [None]}), (root / "Annotations").mkdir()], "no annotated frame"),
        (lambda root: [write_mose(root / d / "train") for d in "ab"], "ambiguous"),
        (
            lambda root: (
                [write_image(root / f"JPEGImages/{r}/one/0.jpg", 0) for r in ("480p", "1080p")]
                + [write_mask(root / "Annotations/480p/one/0.png", (1,))]
            ),
            "several resolutions",
        ),
    ],
)
def test_unknown_layouts_are_explained(tmp_path, build, message):
    build(tmp_path / "source")
    with pytest.raises(UserError, match=message):
        list_frames(tmp_path / "source", "train")


def one_sample(root, objects):
    write_mose(root, {"one": [objects]})
    (sample,) = list_frames(root, "train").samples
    return sample, root / "Annotations/one/00000.png"


def test_each_object_number_is_a_mask(tmp_path):
    sample, file = one_sample(tmp_path, (9, 2, 255))
    masks = sample.masks((24, 32))
    np.testing.assert_array_equal(masks[:], [frame_labels((9, 2, 255)) == value for value in (2, 9, 255)])
    assert sample.files == (file,)
    assert sample.image == tmp_path / "JPEGImages/one/00000.jpg"


@pytest.mark.parametrize("mode", ["L", "1"])
def test_greyscale_masks_of_0_and_255_hold_one_object(tmp_path, mode):
    sample, file = one_sample(tmp_path, (1,))
    Image.fromarray(frame_labels((255,))).convert(mode).save(file)
    np.testing.assert_array_equal(sample.masks((24, 32))[:], [frame_labels((1,)) == 1])


def truncate(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


BAD = {
    "truncated mask": (truncate, "not a readable mask"),
    "colour mask": (lambda file: Image.open(file).convert("RGB").save(file), "mode RGB, expected a palette"),
    "16-bit mask": (
        lambda file: Image.fromarray(frame_labels((1,)).astype(np.uint16)).save(file),
        "mode I;16, expected a palette",
    ),
    "other size": (lambda file: Image.open(file).crop((0, 0, 20, 24)).save(file), "20x24 px, its image is 32x24"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_masks_are_told_by_name_and_reason(tmp_path, kind):
    sample, file = one_sample(tmp_path, (1, 2))
    assert len(sample.masks((24, 32))) == 2
    spoil, message = BAD[kind]
    spoil(file)
    with pytest.raises(BadFileError, match=message) as error:
        sample.masks((24, 32))
    assert str(error.value).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("folder", "clips", "frames"), [("davis2016_val", 14, 88), ("vos_demo_palette/xmem2_pumavos", 2, 25)]
)
def test_real_videos(folder, clips, frames):
    listing = list_frames(real_data(folder), "val")
    assert len({sample.clip for sample in listing.samples}) == clips
    assert len(listing.samples) == frames
    assert listing.problems == []
    for sample in listing.samples[::5]:
        height, width = image_size(sample.image)
        count = len(np.unique(read_pixels(sample.files[0]))) - 1
        assert 1 <= count <= 2
        assert read_masks(sample.files[0], (height, width)).shape == (count, height, width)
