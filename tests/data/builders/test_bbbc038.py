import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.builders.bbbc038 import DATASET
from ruac_jax.data.files import image_size
from ruac_jax.errors import UserError

from ...real_data import real_data
from ..label_tree import OBJECTS, SIZE, check_masks, write_labels


def write_nuclei(root, name, objects=OBJECTS):
    pixels = np.full((*SIZE, 4), 255, np.uint8)
    write_labels(root / name / "images" / f"{name}.png", pixels)
    for index, mask in enumerate(objects):
        write_labels(root / name / "masks" / f"{9 - index:x}f.png", mask.astype(np.uint8) * 255)


@pytest.mark.parametrize("place", ["stage1_train", "stage1_train/stage1_train", "."])
def test_one_nucleus_per_file(tmp_path, place):
    root = tmp_path / place
    write_nuclei(root, "b2")
    write_nuclei(root, "a1", OBJECTS[:1])
    (root / "b2/masks/._0f.png").write_bytes(b"junk")
    write_nuclei(root / "__MACOSX", "c3")
    (root / "stage1_train_labels.csv").write_text("ImageId,EncodedPixels\n")
    samples, problems = DATASET.list_samples(tmp_path, "train")
    assert problems == []
    assert [(sample.image_id, sample.image) for sample in samples] == [
        (name, root / name / "images" / f"{name}.png") for name in ("a1", "b2")
    ]
    check_masks(samples[0], OBJECTS[:1])
    check_masks(samples[1], OBJECTS[::-1])  # by file name
    assert samples[1].files == tuple(root / "b2/masks" / f"{digit}f.png" for digit in "6789")


def test_images_without_masks_and_masks_without_image_are_problems(tmp_path):
    for name in "abc":
        write_nuclei(tmp_path, name)
    (tmp_path / "a/images/a.png").unlink()
    write_nuclei(tmp_path, "d", ())
    samples, problems = DATASET.list_samples(tmp_path, "train")
    assert [sample.image_id for sample in samples] == ["b", "c"]
    assert problems == [
        f"{tmp_path / 'a'}: 0 images and 4 masks, expected one image and its masks",
        f"{tmp_path / 'd'}: 1 images and 0 masks, expected one image and its masks",
    ]


def test_unknown_splits_and_layouts_are_explained(tmp_path):
    write_nuclei(tmp_path, "a", ())  # as in stage1_test
    with pytest.raises(UserError, match="does not look like BBBC038v1, stage1_train: expected"):
        DATASET.list_samples(tmp_path, "train")
    with pytest.raises(UserError, match="no split 'test'; known are train"):
        DATASET.list_samples(tmp_path, "test")


def test_real_nuclei():
    root = real_data("bbbc038_stage1")
    samples, problems = DATASET.list_samples(root, "train")
    assert problems == []
    assert len(samples) == 16
    nuclei = 0
    for sample in samples:
        masks = sample.masks(image_size(sample.image))
        files = sorted((root / "stage1_train" / sample.image_id / "masks").iterdir())
        assert len(masks) == len(files)
        union = np.sum([np.array(Image.open(file)) == 255 for file in files], axis=0)
        np.testing.assert_array_equal(np.sum(masks[:], axis=0), union)
        nuclei += len(masks)
    assert nuclei == 715
