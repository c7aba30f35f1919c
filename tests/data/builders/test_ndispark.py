import pytest

from ruac_jax.data.builders.ndispark import DATASET
from ruac_jax.errors import UserError

from ..coco_tree import annotation, assert_masks, box_mask, entry, packed, ring, runs, write_coco, write_image

BOX, OTHER = (3, 2, 9, 7), (20, 10, 32, 24)


def write_ndispark(root, encode):
    """Numbers of images begin at 0 in each file; the files of `validation` are called `val_...`."""
    for folder, file, names in (
        ("train", "train", ["69_1531569735.jpg", "64_1531569735.jpg", "7_99.jpg"]),
        ("validation", "val", ["64_1.jpg"]),
    ):
        for name in names:
            write_image(root / folder / "imgs" / name)
        last = len(names) - 1  # the first has no car
        objects = [annotation(number, last, encode(box), iscrowd=0) for number, box in enumerate((BOX, OTHER))]
        write_coco(
            root / folder / f"{file}_coco_annotations.json",
            [entry(number, name) for number, name in enumerate(names)],
            objects,
        )
        (root / folder / f"{file}_dot_annotations.csv").write_text("x,y\n")
    write_image(root / "test" / "imgs" / "1_1.jpg")
    (root / "test" / "ground_truth_test_counting.csv").write_text("1_1.jpg,3\n")


@pytest.mark.parametrize("place", [".", "ndis_park", "ndis park/ndis_park"])
@pytest.mark.parametrize(
    "encode", [lambda box: [ring(*box)], lambda box: runs(box_mask(box)), lambda box: packed(box_mask(box))]
)
def test_both_splits_in_every_encoding(tmp_path, encode, place):
    write_ndispark(tmp_path / place, encode)
    train = DATASET.list_samples(tmp_path, "train")
    assert_masks(train, {"7_99": [BOX, OTHER], "64_1531569735": [], "69_1531569735": []})
    assert train.problems == []
    assert_masks(DATASET.list_samples(tmp_path, "validation"), {"64_1": [BOX, OTHER]})


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match=r"expected train/train_coco_annotations.json and train/imgs"):
        DATASET.list_samples(tmp_path, "train")
    with pytest.raises(UserError, match="no split 'test'; known are train, validation"):
        DATASET.list_samples(tmp_path, "test")
