import pytest

from ruac_jax.data.builders.pidray import DATASET
from ruac_jax.errors import UserError

from ..coco_tree import annotation, assert_masks, box_mask, entry, packed, ring, write_coco, write_image, write_split

BOX, OTHER = (3, 2, 9, 7), (20, 10, 32, 24)


def write_pidray(root):
    """Numbers begin at 0 in each file; run lengths and polygons."""
    write_split(
        root / "annotations" / "xray_train.json",
        root / "train",
        {"xray_00000.png": [BOX], "xray_00001.png": []},
        first_id=0,
    )
    write_image(root / "hard" / "xray_hard00000.png", (20, 16))
    write_image(root / "hard" / "xray_hard00001.png", (20, 16))
    write_coco(
        root / "annotations" / "xray_test_hard.json",
        [entry(0, "xray_hard00001.png", (20, 16)), entry(1, "xray_hard00000.png", (20, 16))],
        [
            annotation(1, 0, [ring(*BOX)], iscrowd=0),
            annotation(2, 0, packed(box_mask((4, 4, 16, 20), size=(20, 16))), iscrowd=0),
        ],
    )
    (root / "annotations" / "._xray_test_hard.json").write_bytes(b"junk")


@pytest.mark.parametrize("place", [".", "pidray", "pidray/pidray"])
def test_splits_are_files_and_folders(tmp_path, place):
    write_pidray(tmp_path / place)
    train, hard = (DATASET.list_samples(tmp_path, split) for split in ("train", "hard"))
    assert_masks(train, {"xray_00000": [BOX], "xray_00001": []})
    assert_masks(hard, {"xray_hard00000": [], "xray_hard00001": [BOX, (4, 4, 16, 20)]}, size=(20, 16))
    assert train.problems == hard.problems == []


def test_what_is_missing_is_said(tmp_path):
    write_pidray(tmp_path)
    with pytest.raises(UserError, match=r"expected annotations/xray_test_easy.json and easy"):
        DATASET.list_samples(tmp_path, "easy")
    with pytest.raises(UserError, match="no split 'test'; known are train, easy, hard, hidden"):
        DATASET.list_samples(tmp_path, "test")


def test_the_second_release_is_refused(tmp_path):
    write_split(tmp_path / "annotations" / "test_hard.json", tmp_path / "test", {"x.png": [OTHER]})
    with pytest.raises(UserError, match=r"second release of PIDray.*expected annotations/xray_test_hard.json"):
        DATASET.list_samples(tmp_path, "hard")
