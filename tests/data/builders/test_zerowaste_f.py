import pytest

from ruac_jax.data.builders.zerowaste_f import DATASET
from ruac_jax.errors import UserError

from ..coco_tree import assert_masks, write_image, write_split

BOX, OTHER = (3, 2, 9, 7), (20, 10, 32, 24)


def write_zerowaste(root):
    for split, objects in {
        "train": {"10_frame_2.PNG": [BOX, OTHER], "9_frame_1.PNG": []},
        "val": {"1.PNG": [OTHER]},
    }.items():
        write_split(root / split / "labels.json", root / split / "data", objects)
        write_image(root / split / "sem_seg" / "10_frame_2.PNG")


@pytest.mark.parametrize("place", [".", "splits_final_deblurred", "zerowaste-f-final/splits_final_deblurred"])
def test_labels_of_a_split_with_upper_case_endings(tmp_path, place):
    write_zerowaste(tmp_path / place)
    (tmp_path / place / "train" / "data" / "._9_frame_1.PNG").write_bytes(b"junk")
    listing = DATASET.list_samples(tmp_path, "train")
    assert_masks(listing, {"9_frame_1": [], "10_frame_2": [BOX, OTHER]})
    assert all(sample.image.parent.name == "data" for sample in listing.samples)
    assert listing.problems == []
    assert_masks(DATASET.list_samples(tmp_path, "val"), {"1": [OTHER]})


def test_what_is_missing_is_said(tmp_path):
    write_zerowaste(tmp_path)
    with pytest.raises(UserError, match=r"does not look like ZeroWaste-f: expected test/labels.json and test/data"):
        DATASET.list_samples(tmp_path, "test")
    with pytest.raises(UserError, match="no split 'valid'; known are train, val, test"):
        DATASET.list_samples(tmp_path, "valid")
    write_zerowaste(tmp_path / "x" / "a")
    write_zerowaste(tmp_path / "x" / "b")
    with pytest.raises(UserError, match="is ambiguous"):
        DATASET.list_samples(tmp_path / "x", "train")
