import numpy as np
import pytest

from ruac_jax.data.builders.egohos import DATASET
from ruac_jax.data.dataset import BadFileError
from ruac_jax.errors import UserError

from ..label_tree import OBJECTS, SIZE, check_masks, label_map, write_image, write_labels

NAMES = ("ego4d_a_10", "ego4d_a_9", "epic_b_1", "escape_c_1", "thu_d_1", "youtube_e_1")


def write_split(root, split, names=NAMES):
    for seed, name in enumerate(names):
        write_image(root / split / "image" / f"{name}.jpg", seed)
        write_labels(root / split / "label" / f"{name}.png", label_map((2, 1, 8, 5)))
        for other in ("contact", "label_contact_first"):
            write_labels(root / split / other / f"{name}.png", label_map((1,)))


@pytest.mark.parametrize("place", ["data", "egohos_dataset/data", "."])
def test_one_mask_per_class(tmp_path, place):
    write_split(tmp_path / place, "train")
    write_split(tmp_path / place, "test_outdomain", ("youtube_f_3",))
    samples, problems = DATASET.list_samples(tmp_path, "train")
    assert problems == []
    assert [sample.image_id for sample in samples] == ["ego4d_a_9", "ego4d_a_10", *NAMES[2:]]
    for sample in samples:
        assert sample.image == tmp_path / place / "train/image" / f"{sample.image_id}.jpg"
        check_masks(sample, [OBJECTS[1], OBJECTS[0], OBJECTS[3], OBJECTS[2]])
    assert [sample.image_id for sample in DATASET.list_samples(tmp_path, "test_outdomain").samples] == ["youtube_f_3"]


def test_the_part_that_sam_used_is_told_by_the_names(tmp_path):
    write_split(tmp_path, "train")
    samples, problems = DATASET.list_samples(tmp_path, "train_ego4d_thu")
    assert problems == []
    assert [sample.image_id for sample in samples] == ["ego4d_a_9", "ego4d_a_10", "thu_d_1"]


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_several_channels_hold_the_classes_in_the_first(tmp_path, channels):
    write_split(tmp_path, "val", ("ego4d_a_1",))
    pixels = np.full((*SIZE, channels), 99, np.uint8)
    pixels[..., 0] = label_map((4, 6))
    write_labels(tmp_path / "val/label/ego4d_a_1.png", pixels)
    check_masks(DATASET.list_samples(tmp_path, "val").samples[0], [OBJECTS[0], OBJECTS[1]])


def test_other_values_are_refused(tmp_path):
    write_split(tmp_path, "val", ("ego4d_a_1",))
    write_labels(tmp_path / "val/label/ego4d_a_1.png", label_map((1, 9)))
    with pytest.raises(BadFileError, match=r"ego4d_a_1\.png: values 0 to 9, expected the classes 0 to 8"):
        DATASET.list_samples(tmp_path, "val").samples[0].masks(SIZE)


def test_files_without_a_counterpart_are_problems(tmp_path):
    write_split(tmp_path, "train")
    (tmp_path / "train/image/thu_d_1.jpg").unlink()
    (tmp_path / "train/label/epic_b_1.png").unlink()
    label = f"{tmp_path / 'train/label/thu_d_1.png'}: no image of that name"
    assert DATASET.list_samples(tmp_path, "train").problems == [
        f"{tmp_path / 'train/image/epic_b_1.jpg'}: no annotation of that name",
        label,
    ]
    assert DATASET.list_samples(tmp_path, "train_ego4d_thu").problems == [label]


def test_unknown_splits_and_layouts_are_explained(tmp_path):
    write_split(tmp_path, "train")
    with pytest.raises(UserError, match="no split 'test'; known are train_ego4d_thu, train, val, test_indomain"):
        DATASET.list_samples(tmp_path, "test")
    with pytest.raises(UserError, match=r"does not look like EgoHOS: expected val/image/\*\.jpg and val/label"):
        DATASET.list_samples(tmp_path, "val")
