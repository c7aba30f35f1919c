import base64
import io
import json
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.builders.trashcan import DATASET
from ruac_jax.data.files import image_size
from ruac_jax.errors import UserError

from ...real_data import real_data
from ..bitmap_tree import bitmap, write_bitmaps
from ..coco_tree import annotation, assert_masks, box_mask, entry, ring, write_coco, write_image

BOX, OTHER, EDGE = (3, 2, 9, 7), (20, 10, 28, 20), (24, 16, 32, 24)


def write_trashcan(root):
    """Train has two images, val one; the material version is split in another way."""
    instance, material, original = (root / name for name in ("instance_version", "material_version", "original_data"))
    names = {"train": ["vid_2_frame10", "vid_2_frame9"], "val": ["vid_3_frame1"]}
    for split in names:
        for name in names[split]:
            write_image(instance / split / f"{name}.jpg")
            write_image(original / "images" / f"{name}.jpg")
    write_coco(
        instance / "instances_train_trashcan.json",
        [entry(1, "vid_2_frame10.jpg"), entry(2, "vid_2_frame9.jpg")],
        [
            annotation(1, 1, [ring(24, 16, 33, 25)], iscrowd=0),  # beyond the image
            annotation(2, 1, [ring(2, 2, 20, 20), ring(6, 6, 12, 12)], iscrowd=0),  # a hole's outline
            annotation(3, 1, [ring(*BOX), ring(*OTHER)], iscrowd=0),
        ],
    )
    write_coco(  # numbers go on from train's
        instance / "instances_val_trashcan.json",
        [entry(3, "vid_3_frame1.jpg")],
        [annotation(4, 3, [ring(*BOX)], iscrowd=0)],
    )
    write_coco(
        material / "instances_train_trashcan.json", [entry(1, "vid_3_frame1.jpg")], [annotation(1, 1, [ring(*OTHER)])]
    )
    write_image(material / "train" / "vid_3_frame1.jpg")
    hole = np.full((18, 18), 255, np.uint8)
    hole[4:10, 4:10] = 0
    objects = {
        "vid_2_frame10": [
            bitmap(EDGE, tags=()),  # trash without tags is not in the release
            bitmap((2, 2, 20, 20), alpha=hole),
            bitmap(BOX, instance="one"),
            bitmap(OTHER, instance="one"),
            bitmap(EDGE, title="rov", tags=()),
        ],
        "vid_2_frame9": [bitmap(EDGE, tags=())],
        "vid_3_frame1": [bitmap(BOX, title="bio")],
    }
    for name, bitmaps in objects.items():
        write_bitmaps(original / "annotations" / f"{name}.jpg.json", bitmaps)
    (root / "README.txt").write_text("TrashCAN 1.0")
    for junk in (instance / "train" / "._vid_2_frame9.jpg", original / "annotations" / ".DS_Store"):
        junk.write_bytes(b"junk")
    return root


HOLED = box_mask((2, 2, 20, 20)) & ~box_mask((6, 6, 12, 12))
EXACT = {"vid_2_frame9": [], "vid_2_frame10": [HOLED, box_mask(BOX, OTHER), EDGE]}


@pytest.mark.parametrize("place", [".", "dataset", "Trash Can (1)/dataset"])
def test_the_release_is_read_as_published(tmp_path, place):
    write_trashcan(tmp_path / place)
    (tmp_path / "__MACOSX" / "instance_version").mkdir(parents=True)
    train, val = (DATASET.list_samples(tmp_path, split) for split in ("train", "val"))
    assert_masks(train, {"vid_2_frame9": [], "vid_2_frame10": [EDGE, box_mask((2, 2, 20, 20)), box_mask(BOX, OTHER)]})
    assert_masks(val, {"vid_3_frame1": [BOX]})
    assert train.problems == val.problems == []


def test_the_original_data_has_the_exact_masks(tmp_path):
    write_trashcan(tmp_path)
    listing = DATASET.list_samples(tmp_path, "all")
    assert_masks(listing, EXACT | {"vid_3_frame1": [BOX]})
    assert listing.problems == []
    shutil.rmtree(tmp_path / "instance_version")
    (tmp_path / "original_data" / "images" / "vid_3_frame1.jpg").unlink()
    listing = DATASET.list_samples(tmp_path, "all")
    assert_masks(listing, EXACT)
    (problem,) = listing.problems
    assert problem.startswith(str(tmp_path / "original_data" / "annotations" / "vid_3_frame1.jpg.json"))


def test_without_json_the_folders_tell_the_split(tmp_path):
    write_trashcan(tmp_path)
    for file in (tmp_path / "instance_version").glob("*.json"):
        file.unlink()
    listing = DATASET.list_samples(tmp_path, "train")
    assert_masks(listing, EXACT)
    assert_masks(DATASET.list_samples(tmp_path, "val"), {"vid_3_frame1": [BOX]})
    assert listing.problems == []
    assert {sample.image.parent.name for sample in listing.samples} == {"train"}


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(UserError, match=r"does not look like TrashCan 1.0: expected instance_version"):
        DATASET.list_samples(tmp_path, "train")
    with pytest.raises(UserError, match="no split 'test'; known are train, val, all"):
        DATASET.list_samples(tmp_path, "test")
    (tmp_path / "instance_version" / "train").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"no TrashCan split train: expected .*instances_train_trashcan.json, or images"
    ):
        DATASET.list_samples(tmp_path, "train")
    with pytest.raises(UserError, match="expected original_data/annotations"):
        DATASET.list_samples(tmp_path, "all")


def test_published_files():
    root = real_data("trashcan")
    listing = DATASET.list_samples(root, "all")
    files = sorted((root / "original_data" / "annotations").glob("*.json"))
    assert listing.problems == []
    assert sorted(sample.image_id for sample in listing.samples) == [
        file.name.removesuffix(".jpg.json") for file in files
    ]
    objects = 0
    for sample in listing.samples:
        document = json.loads(sample.files[0].read_text())
        expected = []
        for item in document["objects"]:
            assert item["classTitle"] != "trash" or item["tags"]  # in this sample all are in the release
            alpha = Image.open(io.BytesIO(zlib.decompress(base64.b64decode(item["bitmap"]["data"])))).split()[3]
            canvas = Image.new("L", (document["size"]["width"], document["size"]["height"]))
            canvas.paste(alpha.point(lambda value: 255 * (value > 0)), tuple(item["bitmap"]["origin"]))
            expected.append(np.array(canvas) == 255)
            assert "instance" not in item  # in this sample no object is in pieces
        objects += len(expected)
        masks = sample.masks(image_size(sample.image))
        np.testing.assert_array_equal(masks[:], np.array(expected, bool).reshape(-1, *masks.size))
    assert objects == 175  # as counted when the sample was drawn
