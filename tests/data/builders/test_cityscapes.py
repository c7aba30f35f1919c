import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.builders.cityscapes import DATASET
from ruac_jax.errors import UserError

from ...real_data import real_data
from ..label_tree import SIZE, box, check_masks, write_image, write_labels

# Value -> pixels. Void, stuff, a group of cars, cars 0 and 1, a caravan, a bicycle in two pieces.
SEGMENTS = {
    4: box(0, 0, 2, 32),
    7: box(2, 0, 6, 10),
    23: box(2, 20, 6, 32),
    26: box(8, 0, 10, 8),
    26000: box(8, 10, 12, 18),
    26001: box(8, 20, 12, 28),
    29000: box(14, 0, 18, 8),
    33000: box(14, 12, 16, 16) | box(20, 30, 24, 32),
    14: box(18, 0, 20, 8),  # guard rail, not evaluated
}
PANOPTIC = [SEGMENTS[value] for value in (7, 23, 26000, 26001, 33000)]
THINGS = [SEGMENTS[value] for value in (26000, 26001, 29000, 33000)]


def write_frame(image, label, seed=0):
    labels = np.zeros(SIZE, np.uint16)
    for value, mask in SEGMENTS.items():
        labels[mask] = value
    write_image(image, seed)
    write_labels(label, labels)


def write_cityscapes(images, labels, split="val", names=("ulm_000010_000019", "aachen_000000_000019")):
    for seed, name in enumerate(names):
        city = name.split("_")[0]
        folder = labels / "gtFine" / split / city
        image = images / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
        write_frame(image, folder / f"{name}_gtFine_instanceIds.png", seed)
        for ending in ("labelIds", "color"):
            write_labels(folder / f"{name}_gtFine_{ending}.png", np.zeros(SIZE, np.uint8))
        (folder / f"{name}_gtFine_polygons.json").write_text("{}")


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (".", "."),
        ("cityscapes/cityscapes", "cityscapes/cityscapes"),
        ("leftImg8bit_trainvaltest", "gtFine_trainvaltest"),
    ],
)
def test_objects_and_stuff_or_objects_alone(tmp_path, images, labels):
    write_cityscapes(tmp_path / images, tmp_path / labels)
    for split, expected in (("val", PANOPTIC), ("val_things", THINGS)):
        samples, problems = DATASET.list_samples(tmp_path, split)
        assert problems == []
        assert [sample.image_id for sample in samples] == ["aachen_000000_000019", "ulm_000010_000019"]
        for sample in samples:
            assert sample.image.name == f"{sample.image_id}_leftImg8bit.png"
            assert [file.name for file in sample.files] == [f"{sample.image_id}_gtFine_instanceIds.png"]
            check_masks(sample, expected)


def test_the_evaluated_classes_are_those_of_the_official_labels(tmp_path):
    ignored = {*range(7), 9, 10, 14, 15, 16, 18, 29, 30}
    evaluated, with_objects = set(range(34)) - ignored, set(range(24, 34))
    stuff, things = evaluated - with_objects, evaluated & with_objects
    assert len(stuff | things) == 19
    write_frame(
        tmp_path / "leftImg8bit/train/a/a_0_0_leftImg8bit.png", tmp_path / "gtFine/train/a/a_0_0_gtFine_instanceIds.png"
    )
    labels = np.zeros(SIZE, np.uint16)
    labels[0, :32] = range(32)
    labels[1, :2] = 32, 33
    labels[2, :32] = np.arange(32) * 1000
    labels[3, :2] = 32000, 33000
    write_labels(tmp_path / "gtFine/train/a/a_0_0_gtFine_instanceIds.png", labels)
    masks = DATASET.list_samples(tmp_path, "train").samples[0].masks(SIZE)
    found = [int(labels[mask][0]) for mask in masks[:]]
    assert found == sorted(stuff) + [1000 * thing for thing in sorted(things)]
    masks = DATASET.list_samples(tmp_path, "train_things").samples[0].masks(SIZE)
    assert [int(labels[mask][0]) for mask in masks[:]] == [1000 * number for number in range(1, 34)]


def test_the_flattened_copy_is_read_alike(tmp_path):
    root = tmp_path / "datasets/cityscapes"
    for seed, name in enumerate(("b_000000_000019", "a_000001_000019")):
        write_frame(
            root / "train_img" / f"{name}_leftImg8bit.png", root / "train_inst" / f"{name}_gtFine_instanceIds.png", seed
        )
    samples, problems = DATASET.list_samples(tmp_path, "train")
    assert problems == []
    assert [sample.image_id for sample in samples] == ["a_000001_000019", "b_000000_000019"]
    check_masks(samples[0], PANOPTIC)
    check_masks(DATASET.list_samples(tmp_path, "train_things").samples[0], THINGS)


def test_frames_without_a_counterpart_are_problems(tmp_path):
    write_cityscapes(tmp_path, tmp_path, names=("a_0_0", "a_0_1", "a_0_2"))
    image = tmp_path / "leftImg8bit/val/a/a_0_1_leftImg8bit.png"
    label = tmp_path / "gtFine/val/a/a_0_2_gtFine_instanceIds.png"
    image.unlink()
    label.unlink()
    samples, problems = DATASET.list_samples(tmp_path, "val")
    assert [sample.image_id for sample in samples] == ["a_0_0"]
    assert problems == [
        f"{tmp_path / 'gtFine/val/a/a_0_1_gtFine_instanceIds.png'}: no image of that name",
        f"{tmp_path / 'leftImg8bit/val/a/a_0_2_leftImg8bit.png'}: no annotation of that name",
    ]


def test_unknown_splits_and_layouts_are_explained(tmp_path):
    write_cityscapes(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="no split 'test'; known are train, val, train_things, val_things"):
        DATASET.list_samples(tmp_path, "test")
    with pytest.raises(
        UserError, match=r"expected gtFine/train/<city>/\*_gtFine_instanceIds\.png and .* or train_inst"
    ):
        DATASET.list_samples(tmp_path, "train_things")
    with pytest.raises(UserError, match="expected leftImg8bit/val/"):
        DATASET.list_samples(tmp_path / "b", "val")


def test_a_real_frame():
    root = real_data("cityscapes_pix2pixhd")
    (file,) = root.rglob("*_instanceIds.png")
    (label_file,) = root.rglob("*_labelIds.png")
    ids, classes = np.array(Image.open(file)), np.array(Image.open(label_file))
    numbers = [value for value in np.unique(ids) if value >= 1000]
    assert len(numbers) == 13
    (things,) = DATASET.list_samples(root, "train_things").samples
    np.testing.assert_array_equal(things.masks(ids.shape)[:], [ids == value for value in numbers])
    (panoptic,) = DATASET.list_samples(root, "train").samples
    masks = panoptic.masks(ids.shape)
    stuff = [7, 8, 11, 17, 20, 21, 22, 23]  # of the 16 classes in the other map: without void and 4 classes of things
    np.testing.assert_array_equal(masks[: len(stuff)], [classes == value for value in stuff])
    np.testing.assert_array_equal(masks[len(stuff) :], things.masks(ids.shape)[:])


def test_a_tree_made_by_others():
    root = real_data("format_fixtures") / "datumaro/cityscapes_dataset/train_dataset"
    (train,) = DATASET.list_samples(root, "train").samples  # 3 (void) and 24001 (a person) in 1x5 px
    (file,) = root.glob("gtFine/train/*/*_instanceIds.png")
    np.testing.assert_array_equal(train.masks((1, 5))[:], [np.array(Image.open(file)) == 24001])
    (val,) = DATASET.list_samples(root, "val").samples  # 3 and 1024: object 24 of class 1, which has no objects
    assert len(val.masks((1, 5))) == 0
    assert len(DATASET.list_samples(root, "val_things").samples[0].masks((1, 5))) == 1
