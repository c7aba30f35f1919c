import pickle

import numpy as np
import pytest

from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.readers.coco import list_coco
from ruac_jax.errors import UserError

from ...real_data import real_data
from ..coco_tree import (
    SIZE,
    annotation,
    assert_masks,
    box_mask,
    entry,
    packed,
    read,
    ring,
    runs,
    write_coco,
    write_image,
    write_split,
)

BOX, OTHER = (3, 2, 9, 7), (20, 10, 32, 24)


def one_image(folder, *segmentations, **more):
    """`image.png` with an annotation per segmentation."""
    write_image(folder / "image.png")
    objects = [annotation(number, 1, segmentation, **more) for number, segmentation in enumerate(segmentations, 1)]
    return list_coco(write_coco(folder / "index.json", [entry(1, "image.png")], objects), folder)


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ([ring(*BOX)], box_mask(BOX)),
        ([ring(*BOX), ring(*OTHER)], box_mask(BOX, OTHER)),
        ([ring(2, 2, 20, 20), ring(6, 6, 12, 12)], box_mask((2, 2, 20, 20))),  # an inner ring is no hole
        ([[3, 2], [9, 2], [9, 7], [3, 7]], box_mask(BOX)),  # one ring of pairs
        ([ring(-5, -5, 40, 4)], box_mask((0, 0, 32, 4))),
        ([[5, 5], ring(*BOX), [1, 1, 30, 20]], box_mask(BOX)),  # rings of one and of two points
        (runs(box_mask(BOX, OTHER)), box_mask(BOX, OTHER)),
        (runs(box_mask((0, 0, 32, 24))), box_mask((0, 0, 32, 24))),
        (packed(box_mask(BOX, OTHER)), box_mask(BOX, OTHER)),
        ([ring(*BOX), [20, 10, 32, 10, 32, 24, 26, 24, 20, 24]], box_mask(BOX, OTHER)),  # of different lengths
    ],
)
def test_every_shape_of_a_segmentation(tmp_path, segmentation, expected):
    listing = one_image(tmp_path, segmentation)
    assert_masks(listing, {"image": [expected]})
    assert listing.problems == []


def test_objects_keep_their_order_and_overlap(tmp_path):
    listing = one_image(tmp_path, [ring(*OTHER)], runs(box_mask(BOX)), [ring(0, 0, 32, 24)], packed(box_mask(BOX)))
    assert_masks(listing, {"image": [OTHER, BOX, (0, 0, 32, 24), BOX]})


def test_objects_without_a_pixel_and_crowds_are_left_out(tmp_path):
    write_image(tmp_path / "image.png")
    objects = [
        annotation(1, 1, [ring(100, 100, 120, 120)]),
        annotation(2, 1, []),
        annotation(3, 1, [ring(*BOX)], iscrowd=0),
        annotation(4, 1, runs(box_mask(OTHER)), iscrowd=1),
        annotation(5, 1, packed(np.zeros(SIZE, bool))),
        {"id": 6, "image_id": 1, "bbox": [1, 2, 3, 4]},
    ]
    listing = list_coco(write_coco(tmp_path / "index.json", [entry(1, "image.png")], objects), tmp_path)
    assert_masks(listing, {"image": [BOX]})
    assert listing.problems == []


def test_images_come_in_natural_order_with_those_that_have_no_object(tmp_path):
    write_split(
        tmp_path / "index.json",
        tmp_path / "images",
        {"f10.png": [BOX], "f9.JPG": [], "b/f1.png": [OTHER, BOX]},
        first_id=0,
    )
    listing = list_coco(tmp_path / "index.json", tmp_path / "images", prefix="val/")
    assert_masks(listing, {"val/b/f1": [OTHER, BOX], "val/f9": [], "val/f10": [BOX]})
    assert [sample.image.name for sample in listing.samples] == ["f1.png", "f9.JPG", "f10.png"]
    assert all(sample.files == (tmp_path / "index.json",) and not sample.clip for sample in listing.samples)


def test_a_file_is_found_by_its_path_or_its_bare_name(tmp_path):
    names = {
        "sub dir (1)/a.png": "sub dir (1)/a.png",
        "C:\\work\\set\\b.png": "b.png",
        "/data/set/c.png": "c.png",
        "../set/d.png": "d.png",
        "./e.v2.png": "e.v2.png",
        "set/f": "f",
    }
    for real in names.values():
        write_image(tmp_path / "images" / (real if "." in real else "f.png"))
    (tmp_path / "images" / "f.png").rename(tmp_path / "images" / "f")
    entries = [entry(number, name) for number, name in enumerate(names)]
    index = write_coco(tmp_path / "index.json", entries, [annotation(1, 0, [ring(*BOX)])])
    listing = list_coco(index, tmp_path / "images")
    assert [sample.image_id for sample in listing.samples] == ["b", "c", "d", "e.v2", "f", "sub dir (1)/a"]
    assert listing.problems == []


def test_the_path_of_an_image_can_be_given_by_a_rule(tmp_path):
    write_image(tmp_path / "x" / "7.png")
    index = write_coco(
        tmp_path / "i.json", [entry(7, "wrong.png", url="http://a/x/7.png")], [annotation(1, 7, [ring(*BOX)])]
    )
    listing = list_coco(index, tmp_path, path_of=lambda image: image["url"].removeprefix("http://a/"))
    assert_masks(listing, {"x/7": [BOX]})


def test_everything_that_does_not_fit_together_is_a_problem_and_the_rest_is_read(tmp_path):
    for name in ("good", "twice_a", "twice_b", "same", "ending"):
        write_image(tmp_path / f"{name}.png")
    write_image(tmp_path / "ending.jpg")
    entries = [
        entry(1, "good.png"),
        entry(2, "twice_a.png"),
        entry(2, "twice_b.png"),
        entry(3, "same.png"),
        entry(4, "same.png"),
        entry(5, "gone.png"),
        entry(6, "ending.png"),
        entry(7, "ending.jpg"),
        {"id": 8, "height": 24, "width": 32},
        {"file_name": "good.png"},
    ]
    objects = [
        annotation(1, 1, [ring(*BOX)]),
        annotation(1, 1, [ring(*BOX)]),
        annotation(1, 2, [ring(*BOX)]),  # the same number in another image is nothing to worry about
        annotation(2, 99, [ring(*BOX)]),
        annotation(3, "1", [ring(*BOX)]),
        {"id": 4, "segmentation": [ring(*BOX)]},
        annotation(5, 3, [ring(*BOX)]),
    ]
    index = write_coco(tmp_path / "index.json", entries, objects)
    listing = list_coco(index, tmp_path)
    assert_masks(listing, {"good": [BOX]})
    assert sorted(listing.problems) == sorted(
        [
            f"{tmp_path / 'gone.png'}: no such image, {index} lists it",
            f"{index}: image twice_a.png shares its id 2 with another",
            f"{index}: image twice_b.png shares its id 2 with another",
            f"{tmp_path / 'same.png'}: {index} lists 2 images of this name",
            f"{tmp_path / 'ending.png'}: {index} lists 2 images of this name",
            f"{index}: an image without id or file name, {{'id': 8, 'height': 24, 'width': 32}}",
            f"{index}: an image without id or file name, {{'file_name': 'good.png'}}",
            f"{index}: 3 annotations of images that it does not list, with id 2, 3, 4",
            f"{index}: 1 annotations come twice in an image, with id 1",
        ]
    )


def test_latin_1_is_read(tmp_path):
    write_image(tmp_path / "h\u00e4user.png")
    index = write_coco(
        tmp_path / "index.json", [entry(1, "h\u00e4user.png")], [annotation(1, 1, [ring(*BOX)])], encoding="latin-1"
    )
    assert_masks(list_coco(index, tmp_path), {"h\u00e4user": [BOX]})


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ("3 2 9 7", "a segmentation is a list"),
        ([[1, 2, "x", 4, 5, 6]], "cannot be drawn"),
        ({"size": [24, 32]}, "need size and counts"),
        (runs(box_mask(BOX, size=(32, 24))), r"height and width \[32, 24\], the image has \[24, 32\]"),
        ({"size": [24, 32], "counts": [0, 700]}, "do not fill 32x24 px"),
        ({"size": [24, 32], "counts": packed(box_mask(BOX))["counts"][:-2]}, "do not fill 32x24 px"),
    ],
)
def test_a_segmentation_that_cannot_be_read_names_file_and_image(tmp_path, segmentation, why):
    (sample,) = one_image(tmp_path, [ring(*BOX)], segmentation).samples
    with pytest.raises(BadFileError, match=why) as error:
        sample.masks(SIZE)
    assert str(error.value).startswith(f"{tmp_path / 'image.png'}: {tmp_path / 'index.json'}: ")


@pytest.mark.parametrize("listed", [(24, 32), (0, 0), (None, None)])
def test_sizes_are_compared_where_the_file_gives_them(tmp_path, listed):
    write_image(tmp_path / "image.png")
    index = write_coco(tmp_path / "i.json", [entry(1, "image.png", listed)], [annotation(1, 1, [ring(*BOX)])])
    (sample,) = list_coco(index, tmp_path).samples
    np.testing.assert_array_equal(sample.masks(SIZE)[:], [box_mask(BOX)])
    if all(listed):
        with pytest.raises(BadFileError, match=r"image.png: 24x32 px, .*i.json says 32x24"):
            sample.masks((32, 24))
    else:
        assert sample.masks((32, 24)).shape == (1, 32, 24)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[]", "found a list"),
        ('{"images": []}', "found an object with images"),
        ('{"images": [], "annotations": [3]}', "expected COCO's lists"),
        ('{"images": [{"id": [1]}], "annotations": []}', "expected COCO's lists"),
        ('{"images": [], "annotations": []}', "none of its 0 annotations has a segmentation"),
        (
            '{"images": [], "annotations": [{"id": 1, "bbox": [1, 2, 3, 4]}]}',
            "none of its 1 annotations has a segmentation",
        ),
        ('{"images": [', "not a readable JSON"),
        (None, "not a readable JSON"),
    ],
)
def test_other_files_are_refused(tmp_path, content, why):
    if content is not None:
        (tmp_path / "index.json").write_text(content)
    with pytest.raises(UserError, match=why) as error:
        list_coco(tmp_path / "index.json", tmp_path)
    assert str(tmp_path / "index.json") in str(error.value)


@pytest.mark.parametrize("folder", ["empty", "nowhere"])
def test_a_folder_with_none_of_the_images_is_refused(tmp_path, folder):
    write_split(tmp_path / "index.json", tmp_path / "images", {"a.png": [BOX]})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=rf"none of its images was found in .*{folder}, e.g. .*a.png"):
        list_coco(tmp_path / "index.json", tmp_path / folder)


def test_samples_travel_to_other_processes(tmp_path):
    listing = one_image(tmp_path, [ring(*BOX)], runs(box_mask(OTHER)))
    again = pickle.loads(pickle.dumps(listing))
    assert_masks(again, {"image": [BOX, OTHER]})


def test_listing_opens_no_image(tmp_path):
    write_split(tmp_path / "index.json", tmp_path, {"a.png": [BOX]})
    (tmp_path / "a.png").write_bytes(b"")
    assert_masks(list_coco(tmp_path / "index.json", tmp_path), {"a": [BOX]})


def test_a_published_fixture_with_a_crowd():
    folder = real_data("format_fixtures") / "datumaro" / "coco_dataset" / "coco_instances"
    listing = list_coco(folder / "annotations" / "instances_val.json", folder / "images" / "val")
    assert listing.problems == []
    expected = np.zeros((10, 5), bool)
    expected[:2, :1] = True  # the polygon's corners are (0, 0) and (1, 2); the other annotation is a crowd
    found = read(listing, (10, 5))
    np.testing.assert_array_equal(found["b"], [expected])
    with pytest.raises(UserError, match="none of its 1 annotations has a segmentation"):
        list_coco(folder / "annotations" / "instances_train.json", folder / "images" / "train")
