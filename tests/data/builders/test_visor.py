import json
import shutil
from pathlib import Path
from zipfile import Path as ZipPath
from zipfile import ZipFile

import numpy as np
import pytest

from ruac_jax.data.builders.visor import DATASET
from ruac_jax.data.dataset import BadFileError, first_frames
from ruac_jax.data.files import read_image
from ruac_jax.errors import UserError

from ..coco_tree import assert_masks, box_mask, write_image

SIZE = (27, 48)  # a fortieth of the annotation's 1080 and 1920
BOX, OTHER, CORNER = (3, 2, 9, 7), (20, 10, 40, 24), (44, 20, 48, 27)


def points(x0, y0, x1, y1):
    """A box of SIZE's pixels as the annotation writes it."""
    return [[40.0 * x, 40.0 * y] for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]


def frame(video, sequence, number, *objects):
    """An entry of `video_annotations`; each object is a list of rings."""
    name = f"{video}_frame_{number:010d}.jpg"
    subsequence = f"{video}_seq_{sequence:05d}"
    image = {
        "image_path": f"{video}/{subsequence}/{name}",
        "name": name,
        "subsequence": subsequence,
        "video": video,
    }
    annotations = [
        {"id": f"{number}{index}", "name": "left hand", "class_id": 300, "exhaustive": "y", "segments": rings}
        for index, rings in enumerate(objects)
    ]
    return {"image": image, "annotations": annotations}


VIDEOS = {
    "P01_107": [  # frames out of order, two subsequences
        frame("P01_107", 2, 900, [points(*OTHER)]),
        frame("P01_107", 1, 140, [points(*BOX), points(*CORNER)], [points(2, 1, 20, 20)], []),
        frame("P01_107", 1, 20, [[]], [points(*OTHER), [], [[1.0, 1.0]]]),
    ],
    "P37_101": [frame("P37_101", 1, 5)],
}
EXPECTED = {
    "P01_107_seq_00001/P01_107_frame_0000000020": [OTHER],
    "P01_107_seq_00001/P01_107_frame_0000000140": [box_mask(BOX, CORNER, size=SIZE), (2, 1, 20, 20)],
    "P01_107_seq_00002/P01_107_frame_0000000900": [OTHER],
    "P37_101_seq_00001/P37_101_frame_0000000005": [],
}


def write_annotations(root, videos, split="val"):
    folder = root / "annotations" / split
    folder.mkdir(parents=True, exist_ok=True)
    for video, frames in videos.items():
        (folder / f"{video}.json").write_text(json.dumps({"info": {}, "video_annotations": frames}))


def write_visor(root, inner="", archive="{person}/{video}.zip", split="val", videos=VIDEOS):
    """A zip of frames per video; inside them frames lie in the folder `inner`."""
    write_annotations(root, videos, split)
    for video, frames in videos.items():
        file = root / "rgb_frames" / split / archive.format(person=video[:3], video=video)
        file.parent.mkdir(parents=True, exist_ok=True)
        with ZipFile(file, "w") as packed:
            for entry in frames:
                name = entry["image"]["name"]
                write_image(root / "frame.jpg", SIZE)
                packed.write(root / "frame.jpg", inner.format(video=video) + name)
                packed.writestr(f"__MACOSX/._{name}", b"junk")
        (root / "frame.jpg").unlink()
    return root


def unpack(root, split="val"):
    for file in sorted((root / "rgb_frames" / split).rglob("*.zip")):
        with ZipFile(file) as packed:
            packed.extractall(file.with_suffix(""))
        file.unlink()


@pytest.mark.parametrize("inner", ["", "{video}/", "./", "P01/{video}/"])
@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("place", [".", "VISOR (2022)/GroundTruth-SparseAnnotations"])
def test_frames_in_archives_or_folders(tmp_path, inner, unpacked, place):
    root = write_visor(tmp_path / place, inner)
    if unpacked:
        unpack(root)
    listing = DATASET.list_samples(tmp_path, DATASET.evaluation_split)
    assert_masks(listing, EXPECTED, SIZE)
    assert listing.problems == []
    assert [sample.clip for sample in listing.samples] == [image_id.split("/")[0] for image_id in EXPECTED]
    for sample in listing.samples:
        assert isinstance(sample.image, Path if unpacked else ZipPath)
        assert read_image(sample.image)[1] == SIZE


def test_an_unpacked_frame_is_taken_before_a_packed_one(tmp_path):
    write_visor(tmp_path)
    name = "P01_107_frame_0000000140.jpg"
    write_image(tmp_path / "rgb_frames" / "val" / "P01" / name, SIZE)
    images = {sample.image.name: sample.image for sample in DATASET.list_samples(tmp_path, "val").samples}
    assert [isinstance(image, Path) for image in images.values()] == [file == name for file in images]


def test_only_the_first_frame_of_a_subsequence_by_default(tmp_path):
    samples = first_frames(DATASET.list_samples(write_visor(tmp_path), "val").samples)
    assert DATASET.frames == "first"
    assert [sample.image_id for sample in samples] == [list(EXPECTED)[index] for index in (0, 2, 3)]


@pytest.mark.parametrize("scale", [1, 2, 40])
def test_outlines_are_scaled_to_the_frame(tmp_path, scale):
    listing = DATASET.list_samples(write_visor(tmp_path), "val")
    masks = listing.samples[1].masks((27 * scale, 48 * scale))[:]
    for mask, expected in zip(masks, EXPECTED[listing.samples[1].image_id], strict=True):
        expected = box_mask(expected, size=SIZE) if isinstance(expected, tuple) else expected
        np.testing.assert_array_equal(mask, expected.repeat(scale, 0).repeat(scale, 1))


def test_splits_are_kept_apart(tmp_path):
    write_visor(tmp_path)
    write_visor(tmp_path, split="train", videos={"P02_01": [frame("P02_01", 1, 7, [points(*BOX)])]})
    assert_masks(DATASET.list_samples(tmp_path, "train"), {"P02_01_seq_00001/P02_01_frame_0000000007": [BOX]}, SIZE)
    assert len(DATASET.list_samples(tmp_path, "val").samples) == 4
    with pytest.raises(UserError, match="no split 'test'; known are train, val"):
        DATASET.list_samples(tmp_path, "test")


def test_what_cannot_be_read_is_a_problem(tmp_path):
    good = frame("P01_01", 1, 1, [points(*BOX)])
    gone = frame("P01_01", 1, 2, [points(*BOX)])
    broken = [{"image": {"name": "x.jpg"}, "annotations": []}, "x", frame("P01_01", 1, 3, None)]
    del broken[2]["annotations"][0]["segments"]
    nameless = frame("P01_01", 1, 4)
    nameless["image"]["subsequence"] = None
    write_visor(tmp_path, videos={"P01_01": [good, frame("P01_01", 1, 3)]})
    write_annotations(tmp_path, {"P01_01": [good, gone, *broken, nameless, good]})
    (tmp_path / "rgb_frames/val/P02").mkdir()
    (tmp_path / "rgb_frames/val/P02/P02_02.zip").write_bytes(b"PK not a zip")
    listing = DATASET.list_samples(tmp_path, "val")
    assert_masks(listing, {"P01_01_seq_00001/P01_01_frame_0000000001": [BOX]}, SIZE)
    expected = ["P02_02.zip: not a readable zip", "no image P01_01_frame_0000000002.jpg in or below"]
    expected += ["without image name"] * 3 + ["no text", "comes twice"]
    assert len(listing.problems) == len(expected)
    for problem, text in zip(listing.problems, expected, strict=True):
        assert text in problem


@pytest.mark.parametrize("rings", [[[[1.0, 2.0, 3.0]]], [[["a", "b"]]], [[1.0, 2.0]], 5, [[[0, 0], [1e9, 0], [5, 5]]]])
def test_rings_that_cannot_be_drawn_are_bad_files(tmp_path, rings):
    listing = DATASET.list_samples(write_visor(tmp_path, videos={"P01_01": [frame("P01_01", 1, 1, rings)]}), "val")
    with pytest.raises(BadFileError, match=r"P01_01_frame_0000000001\.jpg: .*P01_01\.json"):
        listing.samples[0].masks(SIZE)


def test_a_damaged_archive_member_is_a_bad_file(tmp_path):
    write_visor(tmp_path)
    file = tmp_path / "rgb_frames/val/P01/P01_107.zip"
    data = file.read_bytes()
    file.write_bytes(data.replace(b"\xff\xd8\xff", b"\x00\x00\x00"))
    listing = DATASET.list_samples(tmp_path, "val")
    with pytest.raises(BadFileError, match=r"P01_107_frame_0000000020\.jpg: not a readable image"):
        read_image(listing.samples[0].image)


def test_another_layout_or_file_is_refused(tmp_path):
    write_visor(tmp_path)
    (tmp_path / "annotations/val/P01_107.json").write_text("[]")
    with pytest.raises(UserError, match=r"P01_107\.json: expected VISOR's list video_annotations"):
        DATASET.list_samples(tmp_path, "val")
    shutil.rmtree(tmp_path / "rgb_frames")
    with pytest.raises(
        UserError, match=r"does not look like VISOR: expected annotations/val/\*\.json and rgb_frames/val"
    ):
        DATASET.list_samples(tmp_path, "val")
