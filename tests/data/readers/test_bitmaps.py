import base64
import io
import json
import pickle
import zlib

import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.readers.bitmaps import list_bitmaps, read_bitmaps

from ..bitmap_tree import bitmap, write_bitmaps
from ..coco_tree import SIZE, assert_masks, box_mask, write_image

BOX, OTHER, THIRD = (3, 2, 9, 7), (20, 10, 32, 24), (0, 0, 5, 1)


def any_object(entry):
    return True


def is_trash(entry):
    return entry["classTitle"] == "trash"


def test_bitmaps_are_placed_by_their_origin_in_the_order_of_the_file(tmp_path):
    file = write_bitmaps(tmp_path / "a.jpg.json", [bitmap(OTHER), bitmap(BOX), bitmap((0, 0, 32, 24))])
    masks = read_bitmaps(file, any_object, SIZE)
    np.testing.assert_array_equal(masks[:], [box_mask(OTHER), box_mask(BOX), box_mask((0, 0, 32, 24))])


def test_fractions_of_a_pixel_in_the_origin_are_cut_off(tmp_path):
    entry = bitmap(BOX)
    entry["bitmap"]["origin"] = [3.99, 2.5]
    masks = read_bitmaps(write_bitmaps(tmp_path / "a.json", [entry]), any_object, SIZE)
    np.testing.assert_array_equal(masks[:], [box_mask(BOX)])


def test_pixels_of_any_opacity_belong_to_the_object(tmp_path):
    alpha = np.array([[0, 1, 127], [128, 254, 255]], np.uint8)
    entry = bitmap((4, 5, 7, 7), alpha=alpha)
    expected = np.zeros(SIZE, bool)
    expected[5, 5:7] = True
    expected[6, 4:7] = True
    masks = read_bitmaps(write_bitmaps(tmp_path / "a.json", [entry]), any_object, SIZE)
    np.testing.assert_array_equal(masks[:], [expected])


def test_a_palette_with_transparency_is_read_too(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8))
    picture.putpalette([0, 0, 0, 255, 255, 255])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=0)
    entry = bitmap(BOX) | {"bitmap": {"data": _data(buffer.getvalue()), "origin": [10, 20]}}
    masks = read_bitmaps(write_bitmaps(tmp_path / "a.json", [entry]), any_object, SIZE)
    np.testing.assert_array_equal(masks[:], [box_mask((11, 20, 12, 21), (10, 21, 11, 22))])


def test_pieces_of_an_instance_are_one_object_at_the_place_of_the_first(tmp_path):
    entries = [bitmap(BOX, instance="p"), bitmap(THIRD), bitmap(OTHER, instance="p"), bitmap(THIRD, instance="q")]
    masks = read_bitmaps(write_bitmaps(tmp_path / "a.json", entries), any_object, SIZE)
    np.testing.assert_array_equal(masks[:], [box_mask(BOX, OTHER), box_mask(THIRD), box_mask(THIRD)])


def test_what_is_no_object_and_what_has_no_pixel_is_left_out(tmp_path):
    entries = [
        bitmap(BOX, title="rov"),
        bitmap(OTHER),
        bitmap((1, 1, 3, 3), alpha=np.zeros((2, 2), np.uint8)),
        bitmap(THIRD, instance="p"),
        bitmap(BOX, instance="p", title="rov"),  # goes with the piece that counts
    ]
    file = write_bitmaps(tmp_path / "a.json", entries)
    masks = read_bitmaps(file, is_trash, SIZE)
    np.testing.assert_array_equal(masks[:], [box_mask(OTHER), box_mask(THIRD, BOX)])
    assert read_bitmaps(write_bitmaps(tmp_path / "b.json", []), is_trash, SIZE).shape == (0, *SIZE)


def _data(png):
    return base64.b64encode(zlib.compress(png)).decode()


def _opaque():
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def _with(bitmap_entry):
    return json.dumps({"size": {"height": 24, "width": 32}, "objects": [bitmap_entry]})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "not a readable JSON"),
        ("[]", "no Supervisely bitmaps"),
        ('{"size": {"height": 24, "width": 32}}', "objects"),
        ('{"size": {"height": 32, "width": 24}, "objects": []}', "says 24x32 px, its image has 32x24"),
        (_with(bitmap(BOX) | {"geometryType": "polygon"}), "is a polygon, expected a bitmap"),
        (_with(bitmap((30, 2, 33, 7))), "leaves the image"),
        (_with(bitmap((-1, 2, 4, 7))), "leaves the image"),
        (_with(bitmap(BOX) | {"bitmap": {"data": "eJwB", "origin": [0, 0]}}), "no Supervisely bitmaps"),
        (_with(bitmap(BOX) | {"bitmap": {"data": _data(b"no picture"), "origin": [0, 0]}}), "no Supervisely bitmaps"),
        (_with(bitmap(BOX) | {"bitmap": {"data": _data(_opaque()[:40]), "origin": [0, 0]}}), "no Supervisely bitmaps"),
        (
            _with(bitmap(BOX) | {"bitmap": {"data": _data(_opaque()), "origin": [0, 0]}}),
            "mode RGB, expected transparency",
        ),
        (_with(bitmap(BOX) | {"bitmap": bitmap(BOX)["bitmap"] | {"origin": [float("inf"), 0]}}), "infinity"),
        (_with({"geometryType": "bitmap"}), "bitmap"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, content, why):
    file = tmp_path / "a.jpg.json"
    file.write_text(content)
    with pytest.raises(BadFileError, match=why) as error:
        read_bitmaps(file, any_object, SIZE)
    assert str(error.value).startswith(f"{file}: ")


def test_images_and_annotations_are_paired_by_name(tmp_path):
    for name in ("f10.jpg", "f9.jpg", "alone.jpg", "both.jpg", "both.png"):
        write_image(tmp_path / name)
    for name, boxes in {"f10.jpg": [BOX], "f9.jpg": [], "both.jpg": [], "both.png": [], "lost.jpg": [BOX]}.items():
        write_bitmaps(tmp_path / f"{name}.json", [bitmap(box) for box in boxes])
    images = [file for file in tmp_path.iterdir() if file.suffix != ".json"]
    listing = list_bitmaps(images, list(tmp_path.glob("*.json")), any_object)
    assert_masks(pickle.loads(pickle.dumps(listing)), {"f9": [], "f10": [BOX]})
    assert listing.samples[0].files == (tmp_path / "f9.jpg.json",)
    assert sorted(listing.problems) == [
        f"{tmp_path / 'alone.jpg'}: no annotation alone.jpg.json",
        f"{tmp_path / 'both.jpg'}: 2 images have this name but for the ending",
        f"{tmp_path / 'both.png'}: 2 images have this name but for the ending",
        f"{tmp_path / 'lost.jpg.json'}: no image lost.jpg",
    ]
