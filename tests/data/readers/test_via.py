import json
import pickle

import numpy as np
import pytest

from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.readers.via import list_via
from ruac_jax.errors import UserError

from ..coco_tree import SIZE, assert_masks, box_mask, write_image
from ..via_tree import box_points, region, via_entry, write_via

BOX, OTHER, WHOLE = (3, 2, 9, 7), (20, 10, 32, 24), (0, 0, 32, 24)


def list_tree(root, regions, version=2, **options):
    return list_via(write_via(root / "via.json", regions, version, root / "images"), root / "images", **options)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shape", ["polygon", "polyline"])
@pytest.mark.parametrize("ending", [[], [(3, 2)]])  # open, and closed by a last point like the first
def test_outlines_of_both_versions_are_filled(tmp_path, version, shape, ending):
    outlines = [box_points(*BOX) + ending, box_points(*WHOLE), box_points(*OTHER)]
    listing = list_tree(tmp_path, {"a b (1).jpg": [region(points, shape, id=1) for points in outlines]}, version)
    assert_masks(listing, {"a b (1)": [BOX, WHOLE, OTHER]})
    assert listing.problems == []


@pytest.mark.parametrize("version", [1, 2])
def test_more_than_ten_regions_keep_their_order(tmp_path, version):
    boxes = [(x, 1, x + 2, 5) for x in range(0, 24, 2)]
    regions = [region(box_points(*box)) for box in boxes]
    listing = list_tree(tmp_path, {"a.png": regions[:12]}, version)
    assert_masks(listing, {"a": boxes})


def test_an_open_outline_is_closed_by_a_straight_line(tmp_path):
    listing = list_tree(tmp_path, {"a.png": [region([(0, 20), (0, 0), (20, 0)], "polyline")]})
    (mask,) = listing.samples[0].masks(SIZE)[:]
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    off = (rows + columns + 1 - 20) / np.sqrt(2)  # of pixels' centres from the closing line
    assert mask[off < -1].all()
    assert not mask[off > 1].any()


def test_points_beyond_the_image_are_clipped_and_what_has_no_inside_is_left_out(tmp_path):
    regions = [
        region([(5, 5)]),
        region([(5, 5), (20, 20)], "polyline"),
        region([]),
        region([(5, 5), (9, 5), (7, 5)]),
        region(box_points(-7, -4, 9, 7)),
        region(box_points(40, 1, 50, 9)),
        region([(3, 2), (9, None), (9, 7), (3, 7)]),
    ]
    assert_masks(list_tree(tmp_path, {"a.png": regions}, 1), {"a": [(0, 0, 9, 7)]})


def test_images_come_in_natural_order_with_those_that_have_no_region_or_no_entry(tmp_path):
    write_image(tmp_path / "images" / "9.jpg")
    for name in ("._8.jpg", ".DS_Store", "Thumbs.db", "notes.txt"):
        (tmp_path / "images" / name).write_bytes(b"junk")
    listing = list_tree(tmp_path, {"10.jpg": [region(box_points(*BOX))], "2.JPG": []}, prefix="ABOVE/")
    assert_masks(listing, {"ABOVE/2": [], "ABOVE/9": [], "ABOVE/10": [BOX]})
    assert listing.problems == []
    assert [sample.image.name for sample in listing.samples] == ["2.JPG", "9.jpg", "10.jpg"]
    assert {(sample.files, sample.clip) for sample in listing.samples} == {((tmp_path / "via.json",), "")}
    pickle.loads(pickle.dumps(listing.samples))


def test_names_pick_images_and_their_problems(tmp_path):
    regions = {"a.png": [region(box_points(*BOX))], "b.png": [region([], "circle")], "c.png": []}
    listing = list_tree(tmp_path, regions, names=["c.png", "a.png", "d.png"])
    assert_masks(listing, {"a": [BOX], "c": []})
    assert listing.problems == [f"{tmp_path / 'images' / 'd.png'}: no such image"]


def test_what_cannot_be_read_is_a_problem_by_name_and_the_rest_goes_on(tmp_path):
    good = region(box_points(*BOX))
    uneven = region(box_points(*BOX))
    uneven["shape_attributes"]["all_points_y"].pop()
    entries = {
        "a9": via_entry("a.png", [good], 2),
        "b9": via_entry("b.png", [good], 2),
        "b8": via_entry("b.png", [good], 2),
        "c9": via_entry("c.png", [good, {"shape_attributes": {"name": "rect", "x": 1, "y": 2}}], 2),
        "d9": via_entry("d.png", [uneven], 2),
        "e9": via_entry("e.png", [good], 2),
        "f9": via_entry("f.png", ["x"], 2),
        "g9": via_entry("g.png", "x", 2),
        "h9": via_entry("h.png", [good], 2),
    }
    (tmp_path / "via.json").write_text(json.dumps(entries))
    for name in ("a.png", "b.png", "c.png", "d.png", "f.png", "g.png", "h.png", "h.jpg"):
        write_image(tmp_path / "images" / name)
    listing = list_via(tmp_path / "via.json", tmp_path / "images")
    assert_masks(listing, {"a": [BOX]})
    reasons = dict(problem.split(": ", 1) for problem in listing.problems)
    assert [name.rsplit("/", 1)[1] for name in reasons] == [f"{name}.png" for name in "bcdefg"] + ["h.jpg", "h.png"]
    expected = ["2 entries", "'rect'", "as many all_points_x", "no such image", "'x'", "neither a list nor a dict"]
    for reason, text in zip(reasons.values(), [*expected, "another ending", "another ending"], strict=True):
        assert text in reason


def test_a_polygon_that_cannot_be_drawn_names_the_image_and_the_file(tmp_path):
    listing = list_tree(tmp_path, {"a.png": [region([(0, 0), (1e9, 0), (5, 5)])]})
    with pytest.raises(BadFileError, match=r"a\.png: .*via\.json: a polygon that cannot be drawn"):
        listing.samples[0].masks(SIZE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not a readable JSON"),
        ("[]", "expected VIA's entries"),
        ('{"images": [], "annotations": []}', "expected VIA's entries with filename and regions, found \\[\\]"),
        ('{"a": {"filename": "a.png"}}', "expected VIA's entries"),
        ('{"a": {"regions": []}}', "expected VIA's entries"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    (tmp_path / "via.json").write_text(content)
    with pytest.raises(UserError, match=message):
        list_via(tmp_path / "via.json", tmp_path)


def test_a_folder_with_none_of_the_images_is_refused(tmp_path):
    write_via(tmp_path / "via.json", {"a.png": []}, 2)
    write_image(tmp_path / "images" / "b.png")
    for folder in ("images", "nowhere"):
        with pytest.raises(UserError, match=r"none of the 1 images of .*via\.json was found in .*: a\.png"):
            list_via(tmp_path / "via.json", tmp_path / folder)


def test_masks_are_read_anew_and_overlap(tmp_path):
    listing = list_tree(tmp_path, {"a.png": [region(box_points(*BOX)), region(box_points(2, 2, 20, 20))]})
    for _ in range(2):
        masks = listing.samples[0].masks(SIZE)[:]
        np.testing.assert_array_equal(masks, [box_mask(BOX), box_mask((2, 2, 20, 20))])
