import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.readers.instance_files import read_instance_files

from ..label_tree import OBJECTS, SIZE, box, truncate, write_labels, write_palette


@pytest.fixture
def files(tmp_path):
    """One coding each, in an order of names that is not that of the objects."""
    names = [tmp_path / f"{name}.png" for name in "dbca"]
    write_labels(names[0], OBJECTS[0].astype(np.uint8) * 255)
    write_palette(names[1], OBJECTS[1].astype(np.uint8))
    write_labels(names[2], OBJECTS[2])
    pixels = np.zeros((*SIZE, 4), np.uint8)
    pixels[...] = (0, 0, 90, 0)  # transparent ground
    pixels[OBJECTS[3], 3] = 255
    write_labels(names[3], pixels)
    return names


def test_one_mask_per_file_in_the_order_given(files):
    np.testing.assert_array_equal(read_instance_files(files, SIZE)[:], OBJECTS)
    np.testing.assert_array_equal(read_instance_files(files[::-1], SIZE)[:], OBJECTS[::-1])


def test_masks_may_overlap_and_empty_ones_are_left_out(files):
    write_labels(files[1], OBJECTS[0] | OBJECTS[1])
    write_labels(files[2], np.zeros(SIZE, bool))
    np.testing.assert_array_equal(read_instance_files(files[:3], SIZE)[:], [OBJECTS[0], OBJECTS[0] | OBJECTS[1]])
    assert read_instance_files(files[2:3], SIZE).shape == (0, *SIZE)
    assert read_instance_files([], SIZE).shape == (0, *SIZE)


def test_a_rule_names_the_foreground(files):
    labels = np.zeros(SIZE, np.uint8)
    labels[box(0, 0, 20, 20)] = 128
    labels[box(0, 0, 10, 10)] = 255
    write_labels(files[0], labels)
    masks = read_instance_files(files[:1], SIZE, lambda pixels: pixels == 255)
    np.testing.assert_array_equal(masks[:], [box(0, 0, 10, 10)])


def refuse(pixels):
    raise ValueError("no such values")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, "not a readable mask"),
        (lambda file: file.unlink(), "not a readable mask"),
        (lambda file: Image.open(file).crop((0, 0, 20, 24)).save(file), "20x24 px, its image is 32x24"),
    ],
)
def test_bad_files_are_told_by_name_and_reason(files, spoil, message):
    spoil(files[1])
    with pytest.raises(BadFileError, match=message) as error:
        read_instance_files(files, SIZE)
    assert str(error.value).startswith(f"{files[1]}: ")


def test_a_rule_may_refuse_a_file(files):
    with pytest.raises(BadFileError, match=r"d\.png: no such values"):
        read_instance_files(files, SIZE, refuse)
