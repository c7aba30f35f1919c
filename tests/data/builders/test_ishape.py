import numpy as np
import pytest

from ruac_jax.data.builders.ishape import DATASET
from ruac_jax.errors import UserError

from ..label_tree import OBJECTS, check_masks, label_map, write_image, write_labels

PARTS = ("antenna", "branch", "fence", "hanger", "log", "wire")


def write_part(root, part, split="val", names=("10", "2")):
    for seed, name in enumerate(names):
        write_image(root / part / split / "image" / f"{name}.jpg", seed)
        write_labels(root / part / split / "instance_map" / f"{name}.png", label_map((3001, 1000, 3000), np.uint16))


@pytest.fixture(params=["ishape_dataset", "ishape dataset (1)/ishape_dataset", "."])
def root(request, tmp_path):
    root = tmp_path / request.param
    for part in PARTS:
        write_part(root, part)
        write_part(root, part, "train", ("7",))
        for file in ("coco_format-mask_encoding=rle-instances_2017.json", "coco_format/instances_train2017.json"):
            (root / part / "val" / file).parent.mkdir(exist_ok=True)
            (root / part / "val" / file).write_text("{}")
        (root / part / "val/coco_format/train2017").symlink_to("no such place")
    return root


def test_all_parts_are_pooled_and_every_number_is_an_object(root, tmp_path):
    samples, problems = DATASET.list_samples(tmp_path, "val")
    assert problems == []
    assert [sample.image_id for sample in samples] == [f"{part}/{name}" for part in PARTS for name in (2, 10)]
    for sample in samples:
        part, name = sample.image_id.split("/")
        assert sample.image == root / part / "val/image" / f"{name}.jpg"
        assert sample.files == (root / part / "val/instance_map" / f"{name}.png",)
        check_masks(sample, [OBJECTS[1], OBJECTS[2], OBJECTS[0]])
    assert [sample.image_id for sample in DATASET.list_samples(tmp_path, "train").samples] == [f"{p}/7" for p in PARTS]


def test_missing_parts_and_files_are_problems(tmp_path):
    for part in PARTS[1:]:
        write_part(tmp_path, part)
    (tmp_path / "log/val/instance_map/2.png").unlink()
    (tmp_path / "wire/val/image/10.jpg").unlink()
    samples, problems = DATASET.list_samples(tmp_path, "val")
    assert len(samples) == 8
    assert problems == [
        f"{tmp_path / 'antenna/val'}: no such folder",
        f"{tmp_path / 'log/val/image/2.jpg'}: no annotation of that name",
        f"{tmp_path / 'wire/val/instance_map/10.png'}: no image of that name",
    ]


def test_unknown_splits_and_layouts_are_explained(tmp_path):
    write_part(tmp_path, "wire")
    with pytest.raises(UserError, match="no split 'test'; known are train, val"):
        DATASET.list_samples(tmp_path, "test")
    with pytest.raises(UserError, match=r"does not look like iShape: expected \*/train/instance_map/\*\.png"):
        DATASET.list_samples(tmp_path, "train")
