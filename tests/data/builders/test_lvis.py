import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from ruac_jax.data.builders.lvis import DATASET
from ruac_jax.errors import UserError

from ...real_data import real_data
from ..coco_tree import annotation, assert_masks, ring, write_coco, write_image

BOX, OTHER = (3, 2, 9, 7), (3, 2, 20, 20)
URL = "http://images.cocodataset.org/"


def image(number, path, **more):
    return {"id": number, "coco_url": URL + path, "height": 24, "width": 32, **more}


def write_v1(root):
    """Val lies in both folders of images; there is no file_name and no iscrowd."""
    write_image(root / "val2017" / "000000000139.jpg")
    write_image(root / "train2017" / "000000000009.jpg")
    images = [image(139, "val2017/000000000139.jpg"), image(9, "train2017/000000000009.jpg")]
    objects = [annotation(1, 139, [ring(*BOX)]), annotation(2, 139, [ring(*OTHER)]), annotation(3, 9, [ring(*OTHER)])]
    write_coco(root / "annotations" / "lvis_v1_val.json", images, objects)
    write_coco(root / "annotations" / "lvis_v1_train.json", images[1:], objects[2:])


@pytest.mark.parametrize("place", [".", "coco", "LVIS (v1)/coco"])
def test_v1_takes_images_from_both_folders(tmp_path, place):
    write_v1(tmp_path / place)
    listing = DATASET.list_samples(tmp_path, "v1_val")
    assert_masks(listing, {"train2017/000000000009": [OTHER], "val2017/000000000139": [BOX, OTHER]})
    assert listing.problems == []
    assert_masks(DATASET.list_samples(tmp_path, "v1_train"), {"train2017/000000000009": [OTHER]})


def test_the_file_name_of_v05_is_not_believed(tmp_path):
    write_image(tmp_path / "images" / "val2017" / "000000266409.jpg")
    write_image(tmp_path / "images" / "val2017" / "COCO_val2014_000000266409.jpg")
    index = [image(266409, "val2017/000000266409.jpg", file_name="COCO_val2014_000000266409.jpg"), {"id": 5}]
    write_coco(tmp_path / "lvis_v0.5_val.json", index, [annotation(1, 266409, [ring(*BOX)])])
    listing = DATASET.list_samples(tmp_path, "v0.5_val")
    assert_masks(listing, {"val2017/000000266409": [BOX]})
    assert listing.samples[0].image.name == "000000266409.jpg"
    (problem,) = listing.problems
    assert "an image without id or file name, {'id': 5}" in problem


def test_what_is_missing_is_said(tmp_path):
    write_v1(tmp_path)
    with pytest.raises(UserError, match=r"does not look like LVIS v0.5_val: expected lvis_v0.5_val.json"):
        DATASET.list_samples(tmp_path, "v0.5_val")
    with pytest.raises(UserError, match=r"no split 'val'; known are v0.5_val, v0.5_train, v1_val, v1_train"):
        DATASET.list_samples(tmp_path, "val")
    (tmp_path / "train2017" / "000000000009.jpg").unlink()
    listing = DATASET.list_samples(tmp_path, "v1_val")
    assert [sample.image_id for sample in listing.samples] == ["val2017/000000000139"]
    (problem,) = listing.problems
    assert problem.startswith(f"{tmp_path / 'train2017' / '000000000009.jpg'}: ")
    (tmp_path / "train2017").rmdir()
    with pytest.raises(UserError, match="COCO 2017's images for LVIS v1_val: expected train2017 and val2017"):
        DATASET.list_samples(tmp_path, "v1_val")


def test_published_annotations_give_the_masks_of_the_coco_tools(tmp_path):
    published = real_data("format_fixtures") / "lvis_api" / "data" / "lvis_val_100.json"
    (tmp_path / "lvis_v0.5_val.json").write_bytes(published.read_bytes())
    index = json.loads(published.read_text())
    (tmp_path / "val2017").mkdir()
    for entry in index["images"]:
        (tmp_path / "val2017" / f"{entry['id']:012d}.jpg").touch()
    listing = DATASET.list_samples(tmp_path, "v0.5_val")
    assert listing.problems == []
    assert [sample.image_id for sample in listing.samples] == sorted(f"val2017/{e['id']:012d}" for e in index["images"])
    tools = COCO()
    tools.dataset = index
    tools.createIndex()
    objects = 0
    for sample in listing.samples:
        number = int(sample.image_id.rpartition("/")[2])
        size = (tools.imgs[number]["height"], tools.imgs[number]["width"])
        expected = [tools.annToMask(entry) for entry in index["annotations"] if entry["image_id"] == number]
        assert all(mask.any() for mask in expected)
        np.testing.assert_array_equal(sample.masks(size)[:], np.array(expected, bool).reshape(-1, *size))
        objects += len(expected)
    assert objects == len(index["annotations"]) == 977
