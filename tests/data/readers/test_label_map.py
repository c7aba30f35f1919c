import pickle
from functools import partial

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.readers.label_map import encode_labels, pack_colours, read_colour_map, read_label_map

from ..label_tree import OBJECTS, SIZE, label_map, truncate, write_labels, write_palette


def one_by_one(labels, values):
    """The definition, with the COCO tools' own encoder."""
    return [coco.encode(np.asfortranarray(labels == value).view(np.uint8))["counts"] for value in values]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.int64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1), (13, 10)])
def test_runs_are_those_of_comparing_with_each_value(dtype, shape):
    rng = np.random.default_rng(sum(shape))
    for levels in (1, 2, 5):  # long runs, and runs across column ends
        labels = rng.integers(0, levels, shape).astype(dtype)
        values = [value for value in range(1, levels) if (labels == value).any()]
        masks = encode_labels(labels)
        assert masks.counts == one_by_one(labels, values)
        assert masks.size == shape


def test_more_than_255_objects_and_negative_ground():
    labels = np.arange(-1, 1999, dtype=np.int16).reshape(40, 50)
    masks = encode_labels(labels, lambda values: values >= 0)
    assert masks.counts == one_by_one(labels, range(1999))
    np.testing.assert_array_equal(masks.areas(), 1)


def test_a_rule_picks_the_objects_among_rising_values():
    labels = label_map((40, 7, 9, 300), np.uint16)
    seen = []

    def rule(values):
        seen.append(values.tolist())
        return np.isin(values, (300, 7, 1000))

    np.testing.assert_array_equal(encode_labels(labels, rule)[:], [OBJECTS[1], OBJECTS[3]])
    assert seen == [[0, 7, 9, 40, 300]]


def test_a_map_of_ground_alone_has_no_masks():
    assert encode_labels(np.zeros((3, 4), np.uint8)).shape == (0, 3, 4)


VALUES = (3, 1, 200, 2)
ORDER = (1, 3, 0, 2)  # objects by rising value


@pytest.mark.parametrize("read", [read_label_map, read_colour_map])
@pytest.mark.parametrize(
    ("ending", "write", "values"),
    [
        (".png", write_palette, VALUES),
        (".png", write_labels, VALUES),
        (".bmp", write_labels, VALUES),
        (".png", write_labels, (700, 256, 65535, 512)),
        (".tif", write_labels, (700, 256, 65535, 512)),
        (".tif", write_labels, (70000, 65536, 2**31 - 1, 65537)),
    ],
)
def test_numbers_of_any_width_are_read_as_stored(tmp_path, read, ending, write, values):
    file = tmp_path / f"labels{ending}"
    dtype = np.uint8 if max(values) < 256 else np.uint16 if max(values) < 65536 else np.int32
    write(file, label_map(values, dtype))
    np.testing.assert_array_equal(read(file, SIZE)[:], [OBJECTS[index] for index in ORDER])


def test_a_map_of_one_bit_holds_one_object(tmp_path):
    file = tmp_path / "labels.png"
    Image.fromarray(OBJECTS[2]).save(file)
    with Image.open(file) as image:
        assert image.mode == "1"
    np.testing.assert_array_equal(read_label_map(file, SIZE)[:], [OBJECTS[2]])


COLOURS = [(0, 0, 5), (0, 1, 0), (0, 1, 5), (255, 0, 0)]  # rising in red, green, blue; two share a channel each


def colour_map(channels):
    pixels = np.zeros((*SIZE, channels), np.uint8)
    for colour, mask in zip(COLOURS, OBJECTS, strict=True):
        pixels[mask, :3] = colour
    return pixels


def test_each_colour_is_an_object(tmp_path):
    file = tmp_path / "labels.png"
    write_labels(file, colour_map(3))
    np.testing.assert_array_equal(read_colour_map(file, SIZE)[:], OBJECTS)


def test_transparent_pixels_are_ground(tmp_path):
    file = tmp_path / "labels.png"
    pixels = colour_map(4)
    pixels[..., 3] = 255
    write_labels(file, pixels)
    np.testing.assert_array_equal(read_colour_map(file, SIZE)[:], OBJECTS)
    pixels[OBJECTS[1], 3] = 0
    write_labels(file, pixels)
    np.testing.assert_array_equal(read_colour_map(file, SIZE)[:], [OBJECTS[0], OBJECTS[2], OBJECTS[3]])
    write_labels(file, np.stack([label_map(VALUES), np.where(OBJECTS[0], 0, 255).astype(np.uint8)], axis=-1))
    with Image.open(file) as image:
        assert image.mode == "LA"
    np.testing.assert_array_equal(read_colour_map(file, SIZE)[:], [OBJECTS[1], OBJECTS[3], OBJECTS[2]])


def test_packed_colours():
    pixels = np.array([[[1, 2, 3], [255, 255, 255]]], np.uint8)
    assert pack_colours(pixels).tolist() == [[0x010203, 0xFFFFFF]]


def test_numbers_are_in_the_first_of_several_channels(tmp_path):
    file = tmp_path / "labels.png"
    pixels = np.stack([label_map(VALUES), label_map((9, 9, 9)), np.full(SIZE, 77, np.uint8)], axis=-1)
    write_labels(file, pixels)
    np.testing.assert_array_equal(read_label_map(file, SIZE)[:], [OBJECTS[index] for index in ORDER])


def test_readers_travel_to_worker_processes(tmp_path):
    file = tmp_path / "labels.png"
    write_labels(file, label_map(VALUES))
    read = pickle.loads(pickle.dumps(partial(read_label_map, file)))
    assert read(SIZE).counts == read_label_map(file, SIZE).counts


def refuse(values):
    raise ValueError("value 3 of all things")


BAD = {
    "truncated": (truncate, "not a readable mask"),
    "missing": (lambda file: file.unlink(), "not a readable mask"),
    "text": (lambda file: file.write_text("404 not found"), "not a readable mask"),
    "another size": (lambda file: Image.open(file).crop((0, 0, 20, 24)).save(file), "20x24 px, its image is 32x24"),
    "fractions": (lambda file: Image.fromarray(np.ones(SIZE, np.float32)).save(file, "TIFF"), "expected whole numbers"),
}


@pytest.mark.parametrize("read", [read_label_map, read_colour_map])
@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_told_by_name_and_reason(tmp_path, read, kind):
    file = tmp_path / "labels.png"
    write_labels(file, label_map(VALUES))
    spoil, message = BAD[kind]
    spoil(file)
    with pytest.raises(BadFileError, match=message) as error:
        read(file, SIZE)
    assert str(error.value).startswith(f"{file}: ")


def test_a_rule_may_refuse_a_file(tmp_path):
    file = tmp_path / "labels.png"
    write_labels(file, label_map(VALUES))
    with pytest.raises(BadFileError, match=r"labels\.png: value 3 of all things"):
        read_label_map(file, SIZE, refuse)


def test_a_photo_is_not_taken_for_a_label_map(tmp_path):
    file = tmp_path / "labels.png"
    write_labels(file, np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8))
    with pytest.raises(BadFileError, match="distinct values, a label map has one per object"):
        read_colour_map(file, (120, 120))
