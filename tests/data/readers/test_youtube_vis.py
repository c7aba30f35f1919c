import pickle

import numpy as np
import pytest

from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.readers.youtube_vis import list_youtube_vis
from ruac_jax.errors import UserError

from ..coco_tree import SIZE, assert_masks, box_mask, packed, read, ring, runs
from ..youtube_vis_tree import frame_names, track, video_entry, write_youtube_vis

BOX, OTHER, EDGE = (3, 2, 9, 7), (20, 10, 32, 24), (30, 0, 32, 2)
ONE, TWO = frame_names("0a0a0a0a", 3), frame_names("f00dcafe", 2)


def write_tree(root, frames="train"):
    """The videos come in reverse order of name; object 3 of the first is a polygon, a packed and an unpacked run."""
    videos = [video_entry(7, TWO), video_entry(4, ONE)]
    tracks = [
        track(1, 4, [packed(box_mask(OTHER)), None, runs(box_mask(OTHER))]),
        track(2, 7, [None, [ring(*EDGE)]]),
        track(3, 4, [[ring(*BOX)], packed(box_mask(BOX)), runs(box_mask(BOX, EDGE))]),
        track(4, 4, [runs(box_mask()), None, [ring(40, 0, 50, 9)]]),  # no pixel anywhere
        track(5, 7, [[ring(*BOX)], None], iscrowd=1),
    ]
    return write_youtube_vis(root / "index.json", videos, tracks, root / frames)


EXPECTED = {
    "0a0a0a0a/img_0000001": [OTHER, BOX],
    "0a0a0a0a/img_0000002": [BOX],
    "0a0a0a0a/img_0000003": [OTHER, box_mask(BOX, EDGE)],
    "f00dcafe/img_0000001": [],
    "f00dcafe/img_0000002": [EDGE],
}


@pytest.mark.parametrize("frames", [".", "train", "train_images", "OVIS (copy)/OVIS_train"])
def test_frames_are_found_and_their_objects_are_the_tracks_present(tmp_path, frames):
    file = write_tree(tmp_path, frames)
    listing = list_youtube_vis(file, tmp_path)
    assert_masks(listing, EXPECTED)
    assert listing.problems == []
    assert [sample.clip for sample in listing.samples] == ["0a0a0a0a"] * 3 + ["f00dcafe"] * 2
    assert [sample.image for sample in listing.samples] == [tmp_path / frames / name for name in ONE + TWO]
    assert {sample.files for sample in listing.samples} == {(file,)}
    again = pickle.loads(pickle.dumps(listing))
    np.testing.assert_array_equal(read(again)["f00dcafe/img_0000002"], [box_mask(EDGE)])


def test_the_order_of_frames_is_the_files(tmp_path):
    names = [f"v/{name}.jpg" for name in ("b", "a", "c")]
    boxes = [BOX, OTHER, EDGE]
    shapes = [[ring(*box)] for box in boxes]
    file = write_youtube_vis(tmp_path / "index.json", [video_entry(1, names)], [track(1, 1, shapes)], tmp_path)
    assert_masks(list_youtube_vis(file, tmp_path), {"v/b": [BOX], "v/a": [OTHER], "v/c": [EDGE]})


def test_missing_frames_are_problems_even_the_first(tmp_path):
    file = write_tree(tmp_path)
    for name in (ONE[0], TWO[1]):
        (tmp_path / "train" / name).unlink()
    listing = list_youtube_vis(file, tmp_path)
    assert_masks(listing, {name: EXPECTED[name] for name in list(EXPECTED)[1:4]})
    assert [problem.split(": ")[0] for problem in listing.problems] == [
        str(tmp_path / "train" / name) for name in (ONE[0], TWO[1])
    ]


def test_a_video_that_cannot_be_read_in_full_is_left_out(tmp_path):
    good = frame_names("aaaaaaaa", 1)
    videos = [
        video_entry(1, good),
        video_entry(2, frame_names("bbbbbbbb", 2)),
        video_entry(3, frame_names("cccccccc", 1)),
        video_entry(3, frame_names("dddddddd", 1)),
        video_entry(4, [*frame_names("eeeeeeee", 1), "ffffffff/img_0000002.jpg"]),
        video_entry(5, frame_names("gggggggg", 1) * 2),
        video_entry(6, frame_names("hhhhhhhh", 1)),
    ]
    tracks = [
        track(1, 1, [[ring(*BOX)]]),
        track(2, 2, [[ring(*BOX)]]),  # of two frames
        track(3, 9, [[ring(*BOX)]]),
        track(4, 6, None),
    ]
    file = write_youtube_vis(tmp_path / "index.json", videos, tracks, tmp_path)
    listing = list_youtube_vis(file, tmp_path)
    assert_masks(listing, {"aaaaaaaa/img_0000001": [BOX]})
    expected = ["does not list: 3", "track 2 has 1 segmentations for 2 frames"]
    expected += ["another video has its id"] * 2 + ["several folders", "repeat", "track 4 has no segmentations"]
    assert len(listing.problems) == len(expected)
    for problem, text in zip(listing.problems, expected, strict=True):
        assert problem.startswith(f"{file}: ")
        assert text in problem


@pytest.mark.parametrize(
    ("segmentation", "size", "message"),
    [
        ([ring(*BOX)], (24, 33), r"img_0000001\.jpg: 32x24 px, .*index\.json says 33x24"),
        (packed(np.ones((32, 24), bool)), SIZE, "height and width"),
        ({"size": list(SIZE), "counts": "5"}, SIZE, "do not fill"),
        ("x", SIZE, "list of polygons or run lengths"),
    ],
)
def test_frames_of_another_size_and_broken_shapes_are_bad_files(tmp_path, segmentation, size, message):
    names = frame_names("aaaaaaaa", 1)
    file = write_youtube_vis(
        tmp_path / "index.json", [video_entry(1, names, size)], [track(1, 1, [segmentation])], tmp_path
    )
    (sample,) = list_youtube_vis(file, tmp_path).samples
    with pytest.raises(BadFileError, match=message):
        sample.masks(SIZE)


@pytest.mark.parametrize(
    ("videos", "tracks", "message"),
    [
        (None, [], "no list of videos"),
        ([video_entry(1, ONE)], None, "no tracks; the file of a split with public annotations"),
        ([video_entry(1, ONE)], [], "no tracks"),
        ([{"id": 1}], [track(1, 1, [])], "without id or file_names"),
        ([video_entry(1, [])], [track(1, 1, [])], "without id or file_names"),
        ([video_entry(1, ["img.jpg"])], [track(1, 1, [None])], "expected file_names like <video>/<frame>.jpg"),
    ],
)
def test_another_file_is_refused(tmp_path, videos, tracks, message):
    file = tmp_path / "index.json"
    write_youtube_vis(file, videos, tracks)
    with pytest.raises(UserError, match=message):
        list_youtube_vis(file, tmp_path)


def test_no_frames_and_frames_twice_are_explained(tmp_path):
    file = write_youtube_vis(tmp_path / "index.json", [video_entry(1, ONE)], [track(1, 1, [None] * 3)])
    with pytest.raises(
        UserError, match=r"no folder with the frames of .*index\.json, such as 0a0a0a0a/img_0000001\.jpg"
    ):
        list_youtube_vis(file, tmp_path)
    for folder in ("a", "b"):
        write_youtube_vis(file, [video_entry(1, ONE)], [track(1, 1, [None] * 3)], tmp_path / folder)
    with pytest.raises(UserError, match=r"more than once, keep one of .*a, .*b"):
        list_youtube_vis(file, tmp_path)
