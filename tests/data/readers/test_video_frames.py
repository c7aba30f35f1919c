import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.readers.video_frames import (
    BadFileError,
    check_frame,
    decode,
    encode_labels,
    list_frames,
    read_clip_list,
)
from ruac_jax.errors import UserError

from ..video_tree import CLIPS, frame_image, frame_labels, write_image, write_mask, write_mose

ALL = [(clip, f"{index:05d}") for clip, frames in sorted(CLIPS.items()) for index in range(len(frames))]


def names(listing):
    return [(frame.clip, frame.name) for frame in listing.frames]


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
    assert list_frames(davis, "train").fingerprint == list_frames(videos, "train").fingerprint


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


def test_clips_are_filtered_and_every_unknown_one_is_named(tmp_path):
    write_mose(tmp_path)
    assert {clip for clip, _ in names(list_frames(tmp_path, "train", ["bb22"]))} == {"bb22"}
    with pytest.raises(UserError, match=r"2 clips are not in .*: nope, nowhere"):
        list_frames(tmp_path, "train", ["nowhere", "bb22", "nope"])


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


def test_the_fingerprint_follows_the_files_and_not_the_place(tmp_path):
    write_mose(tmp_path / "one")
    first = list_frames(tmp_path / "one", "train").fingerprint
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert list_frames(tmp_path / "two", "train").fingerprint == first
    write_image(tmp_path / "two/JPEGImages/aa11/00000.jpg", 77)
    assert list_frames(tmp_path / "two", "train").fingerprint != first
    assert list_frames(tmp_path / "one", "train", ["aa11"]).fingerprint != first


def test_objects_survive_the_way_through_a_png(tmp_path):
    image, mask = tmp_path / "a.jpg", tmp_path / "a.png"
    write_image(image, 3)
    write_mask(mask, (2, 9, 255))
    encoded = encode_labels(mask)
    assert Image.open(io.BytesIO(encoded)).mode == "L"
    picture, masks = decode(image.read_bytes(), encoded)
    np.testing.assert_array_equal(masks, [frame_labels((2, 9, 255)) == value for value in (2, 9, 255)])
    assert np.abs(picture.astype(int) - np.asarray(Image.open(image)).astype(int)).max() == 0
    assert picture.shape == frame_image(3).shape


@pytest.mark.parametrize("mode", ["L", "1"])
def test_greyscale_masks_of_0_and_255_hold_one_object(tmp_path, mode):
    write_mose(tmp_path, {"one": [(1,)]})
    (frame,) = list_frames(tmp_path, "train").frames
    Image.fromarray(frame_labels((255,))).convert(mode).save(frame.mask)
    assert check_frame(frame) == 1
    _, masks = decode(frame.image.read_bytes(), encode_labels(frame.mask))
    np.testing.assert_array_equal(masks, [frame_labels((1,)) == 1])


def test_a_greyscale_jpeg_reads_as_rgb(tmp_path):
    write_mose(tmp_path, {"one": [(1,)]})
    (frame,) = list_frames(tmp_path, "train").frames
    Image.open(frame.image).convert("L").save(frame.image)
    assert check_frame(frame) == 1
    assert decode(frame.image.read_bytes(), encode_labels(frame.mask))[0].shape == (24, 32, 3)


def truncate(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


BAD = {
    "truncated image": (lambda frame: truncate(frame.image), "JPEGImages.*not a readable image"),
    "empty image": (lambda frame: frame.image.write_bytes(b""), "JPEGImages.*not a readable image"),
    "text as image": (lambda frame: frame.image.write_text("404 not found"), "JPEGImages.*not a readable image"),
    "truncated mask": (lambda frame: truncate(frame.mask), "Annotations.*not a readable mask"),
    "colour mask": (
        lambda frame: Image.open(frame.mask).convert("RGB").save(frame.mask),
        "Annotations.*mode RGB, expected a palette",
    ),
    "16-bit mask": (
        lambda frame: Image.fromarray(frame_labels((1,)).astype(np.uint16)).save(frame.mask),
        "mode I;16, expected a palette",
    ),
    "other size": (
        lambda frame: Image.open(frame.mask).crop((0, 0, 20, 24)).save(frame.mask),
        "Annotations.*20x24 px, its image is 32x24",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_told_by_name_and_reason(tmp_path, kind):
    write_mose(tmp_path, {"one": [(1, 2)]})
    (frame,) = list_frames(tmp_path, "train").frames
    assert check_frame(frame) == 2
    spoil, message = BAD[kind]
    spoil(frame)
    with pytest.raises(BadFileError, match=message):
        check_frame(frame)


def test_a_list_of_clips_may_have_comments(tmp_path):
    file = tmp_path / "clips.txt"
    file.write_text("# SAM2's sample\naa11\n\n  bb22 \n")
    assert read_clip_list(file) == ["aa11", "bb22"]
    file.write_text("\n#\n")
    with pytest.raises(UserError, match="names no clip"):
        read_clip_list(file)
    with pytest.raises(UserError, match="cannot read the list of clips"):
        read_clip_list(tmp_path / "missing.txt")


@pytest.mark.skipif("RUAC_REAL_DATA" not in os.environ, reason="RUAC_REAL_DATA does not point to real samples")
@pytest.mark.parametrize(
    ("folder", "clips", "frames"), [("davis2016_val", 14, 88), ("vos_demo_palette/xmem2_pumavos", 2, 25)]
)
def test_real_videos(folder, clips, frames):
    listing = list_frames(Path(os.environ["RUAC_REAL_DATA"]) / folder, "val")
    assert len({frame.clip for frame in listing.frames}) == clips
    assert len(listing.frames) == frames
    assert listing.problems == []
    for frame in listing.frames[::5]:
        count = check_frame(frame)
        image, masks = decode(frame.image.read_bytes(), encode_labels(frame.mask))
        assert masks.shape == (count, *image.shape[:2])
        assert 1 <= count <= 2
