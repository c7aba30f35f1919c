import numpy as np
import pytest

from ruac_jax.data.builders.doors import DATASET
from ruac_jax.data.dataset import BadFileError
from ruac_jax.errors import UserError

from ..label_tree import OBJECTS, SIZE, box, check_masks, label_map, write_image, write_labels

LISTS = {"T": ("000003", "000010"), "V": ("000001",), "Te1": ("000002", "000004"), "Te2": ("000005",)}
FOLDERS = {
    "T_30000_b_2022-08-02 11.14.22": ("0", "1"),
    "V_5000_b_2022-08-02 11.15.52": ("0",),
    "Te1_5000_b_2022-08-02 11.16.00": ("10", "9"),
    "Te2_5000_ub_2022-08-02 11.16.11": ("10",),
}


WHITE = label_map((255,))


def write_pair(image, mask, coding):
    write_image(image, seed=sum(image.name.encode()))
    write_labels(mask, coding)


def write_segmentation(root, coding=WHITE):
    for name, names in LISTS.items():
        for stem in names:
            write_pair(root / "DS1/DS/img" / f"{stem}.png", root / "DS1/DS/mask" / f"{stem}.png", coding)
        (root / "DS1/DS" / f"{name}.txt").write_text("".join(f"{stem}.png \r\n" for stem in names) + "\n")
        (root / "DS1" / f"{name}_5000_b_2022-08-02 11.16.00.txt").write_text("0 1 2\n")
        write_pair(root / "DS2/DS/img/000001.png", root / "DS2/DS/mask/000001.png", coding)
        (root / "DS2/DS" / f"{name}.txt").write_text("000001.png\n")


def write_regression(root, coding=WHITE):
    for folder, names in FOLDERS.items():
        for stem in names:
            write_pair(root / folder / "img" / f"{stem}.png", root / folder / "Rock_all" / f"{stem}.png", coding)
            write_labels(root / folder / "Rock" / f"{stem}.png", label_map((0, 255)))


def ids(root, split):
    samples, problems = DATASET.list_samples(root, split)
    assert problems == []
    for sample in samples:
        check_masks(sample, [OBJECTS[0]])
    return [sample.image_id for sample in samples]


@pytest.mark.parametrize("place", ["DOORS/Segmentation", "DOORS/DOORS/Segmentation", "."])
def test_lists_tell_the_splits_of_the_segmentation_part(tmp_path, place):
    write_segmentation(tmp_path / place)
    assert ids(tmp_path, "train") == ["train/000003", "train/000010"]
    assert ids(tmp_path, "val") == ["val/000001"]
    assert ids(tmp_path, "test2") == ["test2/000005"]
    assert ids(tmp_path, "test") == ["test1/000002", "test1/000004", "test2/000005"]
    (sample,) = DATASET.list_samples(tmp_path, "val").samples
    assert sample.image == tmp_path / place / "DS1/DS/img/000001.png"
    assert sample.files == (tmp_path / place / "DS1/DS/mask/000001.png",)


@pytest.mark.parametrize("place", ["DOORS/Regression", "."])
def test_folders_tell_the_splits_of_the_regression_part(tmp_path, place):
    write_regression(tmp_path / place)
    assert ids(tmp_path, "train") == ["train/0", "train/1"]
    assert ids(tmp_path, "val") == ["val/0"]
    assert ids(tmp_path, "test1") == ["test1/9", "test1/10"]
    assert ids(tmp_path, "test") == ["test1/9", "test1/10", "test2/10"]


def test_segmentation_comes_before_regression(tmp_path):
    write_segmentation(tmp_path / "Segmentation")
    write_regression(tmp_path / "Regression")
    assert ids(tmp_path, "test") == ["test1/000002", "test1/000004", "test2/000005"]
    assert ids(tmp_path / "Regression", "test") == ["test1/9", "test1/10", "test2/10"]


CODINGS = {
    "grey": (label_map((255,)), [OBJECTS[0]]),
    "colours": (np.repeat(label_map((255,))[..., None], 3, axis=-1), [OBJECTS[0]]),
    "0 and 1": (label_map((1,)), [OBJECTS[0]]),
    "one bit": (OBJECTS[0], [OBJECTS[0]]),
    "something else in grey": (label_map((255, 128)), [OBJECTS[0]]),
    "no boulder": (np.zeros(SIZE, np.uint8), []),
    "all boulder": (np.full(SIZE, 255, np.uint8), [box(0, 0, *SIZE)]),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_the_boulder_is_white(tmp_path, coding):
    pixels, expected = CODINGS[coding]
    write_segmentation(tmp_path, pixels)
    check_masks(DATASET.list_samples(tmp_path, "val").samples[0], expected)


def test_other_codings_are_refused(tmp_path):
    write_segmentation(tmp_path, label_map((128,)))
    with pytest.raises(BadFileError, match=r"000001\.png: values up to 128, expected 255 or 1 for the boulder"):
        DATASET.list_samples(tmp_path, "val").samples[0].masks(SIZE)


def test_missing_files_are_problems(tmp_path):
    write_segmentation(tmp_path / "s")
    (tmp_path / "s/DS1/DS/img/000004.png").unlink()
    (tmp_path / "s/DS1/DS/mask/000002.png").unlink()
    samples, problems = DATASET.list_samples(tmp_path / "s", "test1")
    assert problems == [
        f"{tmp_path / 's/DS1/DS/img/000002.png'}: no annotation of that name",
        f"{tmp_path / 's/DS1/DS/mask/000004.png'}: no image of that name",
    ]
    assert samples == []
    (tmp_path / "s/DS1/DS/mask/000004.png").unlink()  # neither image nor mask
    assert DATASET.list_samples(tmp_path / "s", "test1").problems == problems
    write_regression(tmp_path / "r")
    lost = tmp_path / "r/V_5000_b_2022-08-02 11.15.52/Rock_all/0.png"
    lost.rename(lost.with_name("1.png"))
    assert DATASET.list_samples(tmp_path / "r", "val").problems == [
        f"{lost.with_name('1.png')}: no image of that name",
        f"{lost.parents[1] / 'img/0.png'}: no annotation of that name",
    ]


def test_unknown_splits_and_layouts_are_explained(tmp_path):
    with pytest.raises(UserError, match="no split 'all'; known are train, val, test1, test2, test"):
        DATASET.list_samples(tmp_path, "all")
    with pytest.raises(
        UserError, match=r"expected DS1/DS/img/\*\.png, .*DS1/DS/V\.txt, or V_\*/img/\*\.png, V_\*/Rock_all"
    ):
        DATASET.list_samples(tmp_path, "val")
    write_regression(tmp_path)
    write_pair(tmp_path / "V_5000_b (1)/img/0.png", tmp_path / "V_5000_b (1)/Rock_all/0.png", label_map((255,)))
    with pytest.raises(UserError, match=r"has several folders V_\*, keep one"):
        DATASET.list_samples(tmp_path, "val")
