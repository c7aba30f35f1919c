import numpy as np
import pytest

from ruac_jax.data.builders.dram import DATASET
from ruac_jax.data.dataset import BadFileError
from ruac_jax.errors import UserError

from ..label_tree import OBJECTS, check_masks, label_map, write_image, write_labels, write_palette

PAINTINGS = ("realism/Jean-François Millet/a (1)", "realism/x/a", "unseen/ukiyo-e/y/b")


def write_dram(root):
    for seed, name in enumerate(PAINTINGS):
        write_image(root / "test" / f"{name}.jpg", seed)
        write_palette(root / "labels" / f"{name}.png", label_map((15, 3, 255, 1)))
    write_image(root / "train/realism/x/a.jpg")
    for name in ("train/realism.txt", "test/dram_with_unseen.txt"):
        (root / name).write_text("realism/x/a\n")
    return root


@pytest.mark.parametrize("place", ["DRAM_processed", "DRAM_500/DRAM_500", "."])
def test_one_mask_per_annotated_class_of_all_movements(tmp_path, place):
    root = write_dram(tmp_path / place)
    samples, problems = DATASET.list_samples(tmp_path, "test")
    assert problems == []
    assert [sample.image_id for sample in samples] == list(PAINTINGS)
    for sample in samples:
        assert sample.image == root / "test" / f"{sample.image_id}.jpg"
        check_masks(sample, [OBJECTS[1], OBJECTS[0]])  # bird, person; not the ignored 255, nor the aeroplane


def test_every_annotated_class_and_no_other(tmp_path):
    file = write_dram(tmp_path) / "labels" / f"{PAINTINGS[2]}.png"
    labels = np.zeros((24, 32), np.uint8)
    labels[0, :21] = range(21)
    labels[1] = 255
    write_labels(file, labels)
    masks = DATASET.list_samples(tmp_path, "test").samples[2].masks((24, 32))
    assert [int(np.flatnonzero(mask[0])[0]) for mask in masks[:]] == [3, 4, 5, 8, 9, 10, 12, 13, 15, 16, 17]
    np.testing.assert_array_equal(masks.areas(), 1)


def test_values_that_are_no_voc_classes_are_refused(tmp_path):
    file = write_dram(tmp_path) / "labels" / f"{PAINTINGS[1]}.png"
    write_labels(file, label_map((38, 75, 113)))  # a palette turned into grey
    with pytest.raises(BadFileError, match=r"a\.png: values \[38, 75, 113\], expected the classes 0 to 20"):
        DATASET.list_samples(tmp_path, "test").samples[1].masks((24, 32))


def test_paintings_without_labels_and_labels_without_paintings_are_problems(tmp_path):
    write_dram(tmp_path)
    (tmp_path / "labels" / f"{PAINTINGS[0]}.png").unlink()
    (tmp_path / "test" / f"{PAINTINGS[2]}.jpg").unlink()
    samples, problems = DATASET.list_samples(tmp_path, "test")
    assert [sample.image_id for sample in samples] == [PAINTINGS[1]]
    assert problems == [
        f"{tmp_path / 'labels' / PAINTINGS[2]}.png: no image of that name",
        f"{tmp_path / 'test' / PAINTINGS[0]}.jpg: no annotation of that name",
    ]


def test_unknown_splits_and_layouts_are_explained(tmp_path):
    (tmp_path / "DRAM_processed.rar").write_bytes(b"Rar!")
    with pytest.raises(UserError, match=r"unpack the \.rar inside DRAM_processed\.zip too\): expected test/"):
        DATASET.list_samples(tmp_path, "test")
    with pytest.raises(UserError, match="no split 'train'; known are test"):
        DATASET.list_samples(tmp_path, "train")
