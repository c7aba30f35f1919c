import pytest

from ruac_jax.data.builders.ovis import DATASET
from ruac_jax.data.dataset import first_frames
from ruac_jax.errors import UserError

from ..coco_tree import SIZE, assert_masks, box_mask, packed
from ..youtube_vis_tree import frame_names, track, video_entry, write_youtube_vis

BOX, OTHER = (3, 2, 9, 7), (20, 10, 32, 24)


def write_ovis(root, annotations="annotations_train.json", frames="OVIS_train"):
    """The second object of the first video comes in its second frame."""
    videos = [video_entry(1, frame_names("001ca3cb", 2)), video_entry(2, frame_names("ff5a1f8f", 1))]
    tracks = [
        track(1, 1, [packed(box_mask(BOX)), packed(box_mask(OTHER))]),
        track(2, 1, [None, packed(box_mask(BOX))]),
        track(3, 2, [packed(box_mask(OTHER))]),
    ]
    write_youtube_vis(root / annotations, videos, tracks, root / frames)
    for split in ("valid", "test"):  # as published: without annotations
        write_youtube_vis(root / f"annotations_{split}.json", [video_entry(1, frame_names("11111111", 1))], None)
    return root


FIRST = {"001ca3cb/img_0000001": [BOX], "ff5a1f8f/img_0000001": [OTHER]}
ALL = {"001ca3cb/img_0000001": [BOX], "001ca3cb/img_0000002": [OTHER, BOX], "ff5a1f8f/img_0000001": [OTHER]}


@pytest.mark.parametrize("annotations", ["annotations_train.json", "annotations/annotations_train.json"])
@pytest.mark.parametrize("frames", ["train", "OVIS_train", "train_images/train_images"])
@pytest.mark.parametrize("place", [".", "OVIS/OVIS"])
def test_frames_by_video_wherever_they_lie(tmp_path, annotations, frames, place):
    write_ovis(tmp_path / place, annotations, frames)
    listing = DATASET.list_samples(tmp_path, DATASET.evaluation_split)
    assert_masks(listing, ALL)
    assert listing.problems == []


def test_only_the_first_frames_are_prepared_by_default(tmp_path):
    samples = first_frames(DATASET.list_samples(write_ovis(tmp_path), "train").samples)
    assert DATASET.frames == "first"
    assert [sample.image_id for sample in samples] == list(FIRST)
    assert [len(sample.masks(SIZE)) for sample in samples] == [1, 1]


@pytest.mark.parametrize("split", ["valid", "test", "all"])
def test_splits_without_public_annotations_are_refused(tmp_path, split):
    with pytest.raises(UserError, match=f"ovis has no split '{split}'; known are train"):
        DATASET.list_samples(write_ovis(tmp_path), split)


def test_another_layout_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"does not look like OVIS: expected annotations_train\.json"):
        DATASET.list_samples(tmp_path, "train")
