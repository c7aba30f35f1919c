import pytest

from ruac_jax.data.builders.plittersdorf import DATASET
from ruac_jax.errors import UserError

from ..coco_tree import annotation, assert_masks, box_mask, entry, ring, write_coco, write_image

BOX, OTHER = (3, 2, 9, 7), (20, 10, 32, 24)
OBJECTS = {
    "train": {"v1_10.jpg": [[ring(2, 2, 20, 20), ring(6, 6, 12, 12)]], "v1_9.png": []},
    "val": {"v2_1.jpg": [[ring(*BOX)], [ring(*OTHER)]]},
    "test": {"v3_1.jpg": [[ring(*OTHER)]]},
}
FILLED = box_mask((2, 2, 20, 20))


def write_plittersdorf(root):
    """Numbers of images and annotations begin at 1 in every file; holes are ordinary rings."""
    for split, images in OBJECTS.items():
        entries, annotations = [], []
        for number, (name, objects) in enumerate(images.items(), 1):
            write_image(root / "images" / name)
            entries.append(entry(number, name))
            for segmentation in objects:
                annotations.append(annotation(len(annotations) + 1, number, segmentation, iscrowd=0))
        write_coco(root / f"{split}.json", entries, annotations)
    (root / "images" / "v1_10.exr").write_bytes(b"disparity")
    (root / "._train.json").write_bytes(b"junk")


@pytest.mark.parametrize("place", [".", "plittersdorf_instance_segmentation_coco", "a b/c"])
def test_splits_share_a_folder_of_images(tmp_path, place):
    write_plittersdorf(tmp_path / place)
    train = DATASET.list_samples(tmp_path, "train")
    assert_masks(train, {"v1_9": [], "v1_10": [FILLED]})
    assert train.problems == []
    assert_masks(DATASET.list_samples(tmp_path, "val"), {"v2_1": [BOX, OTHER]})
    assert_masks(DATASET.list_samples(tmp_path, "test"), {"v3_1": [OTHER]})


def test_all_pools_them_with_the_split_in_the_name(tmp_path):
    write_plittersdorf(tmp_path)
    listing = DATASET.list_samples(tmp_path, "all")
    assert_masks(listing, {"test/v3_1": [OTHER], "train/v1_9": [], "train/v1_10": [FILLED], "val/v2_1": [BOX, OTHER]})
    (tmp_path / "images" / "v1_9.png").unlink()
    listing = DATASET.list_samples(tmp_path, "all")
    assert [sample.image_id for sample in listing.samples] == ["test/v3_1", "train/v1_10", "val/v2_1"]
    (problem,) = listing.problems
    assert problem.startswith(f"{tmp_path / 'images' / 'v1_9.png'}: ")


def test_what_is_missing_is_said(tmp_path):
    write_plittersdorf(tmp_path)
    (tmp_path / "val.json").unlink()
    assert len(DATASET.list_samples(tmp_path, "train").samples) == 2
    with pytest.raises(UserError, match=r"does not look like Plittersdorf: expected images and .*val.json"):
        DATASET.list_samples(tmp_path, "all")
    with pytest.raises(UserError, match="no split 'x'; known are train, val, test, all"):
        DATASET.list_samples(tmp_path, "x")
