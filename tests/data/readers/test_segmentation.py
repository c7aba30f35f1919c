import pickle
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.readers.segmentation import (
    encode_segmentation,
    read_listed_segmentations,
    read_segmentations,
)

from ..coco_tree import SIZE, box_mask, packed, ring, runs

BOX, OTHER = (3, 2, 9, 7), (20, 10, 32, 24)
PAIRS = [[3, 2], [9, 2], [9, 7], [3, 7]]


def mask_of(segmentation, size=SIZE):
    counts = encode_segmentation(segmentation, size)
    return None if counts is None else RunLengthMasks(size, [counts])[:][0]


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ([ring(*BOX)], [BOX]),
        ([[float(value) for value in ring(*BOX)] + [3.0, 2.0]], [BOX]),  # closed by itself
        ([ring(*BOX), ring(*OTHER)], [BOX, OTHER]),
        ([PAIRS], [BOX]),
        (PAIRS, [BOX]),
        ([PAIRS, [[20, 10], [32, 10], [32, 24], [20, 24]]], [BOX, OTHER]),
        ([ring(-50, -3, 9, 7), [1, 1, 5, 5], []], [(0, 0, 9, 7)]),
        (runs(box_mask(BOX, OTHER)), [BOX, OTHER]),
        (packed(box_mask(BOX, OTHER)), [BOX, OTHER]),
        (packed(box_mask(BOX)) | {"counts": packed(box_mask(BOX))["counts"].encode()}, [BOX]),
    ],
)
def test_every_shape_gives_its_pixels(segmentation, expected):
    np.testing.assert_array_equal(mask_of(segmentation), box_mask(*expected))


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        [[]],
        [[4, 4]],
        [[4, 4, 9, 9]],
        [ring(100, 100, 120, 120)],
        [ring(-20, -20, 0, 0)],
        [[3, 2, 3, 2, 3, 2]],
        runs(np.zeros(SIZE, bool)),
        packed(np.zeros(SIZE, bool)),
    ],
)
def test_no_pixel_in_the_image_is_none(segmentation):
    assert encode_segmentation(segmentation, SIZE) is None


@pytest.mark.parametrize("density", [0.0, 0.001, 0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (37, 53), (700, 900)])
def test_run_lengths_of_any_mask_come_back_packed_or_not(rng, size, density):
    mask = rng.random(size) < density
    expected = mask if mask.any() else None
    for segmentation in (packed(mask), {"size": list(size), "counts": _runs_of(mask)}):
        found = mask_of(segmentation, size)
        assert (found is None) == (expected is None)
        if expected is not None:
            np.testing.assert_array_equal(found, expected)
    if expected is not None:  # both are the same bytes as those of the COCO tools
        assert (
            encode_segmentation({"size": list(size), "counts": _runs_of(mask)}, size)
            == (coco.encode(np.asfortranarray(mask.view(np.uint8)))["counts"])
        )


def _runs_of(mask):
    """Run lengths of columns, from 0s on, by the places where the value changes."""
    values = np.concatenate([[False], mask.T.ravel()])
    places = np.flatnonzero(values[1:] != values[:-1])
    return np.diff(np.concatenate([[0], places, [mask.size]])).tolist()


GOOD = packed(box_mask(BOX))["counts"]


PACKED = [
    "",
    "5",
    GOOD[:-1],
    GOOD[1:],
    GOOD + "5",
    GOOD + "P",
    "T",
    "zzz~~~",
    "\xff",
    "\u2713",
    "o" * 16 + "0",
    "0" * 9,
]
NUMBERS = [[5, 2], [], [-1, 769], [768.0], [True], ["768"], [[768]], [700, 69], [2**70], [2**63, 2**63], None, 768]


@pytest.mark.parametrize("counts", PACKED + NUMBERS)
def test_broken_run_lengths_are_refused_before_the_coco_tools_see_them(counts):
    """They read past the end of such runs, or hand out pixels that nobody drew."""
    with pytest.raises(ValueError, match="run lengths"):
        encode_segmentation({"size": list(SIZE), "counts": counts}, SIZE)


@pytest.mark.parametrize("shape", [runs, packed])
def test_run_lengths_of_another_size_are_refused(shape):
    mask = box_mask(BOX)
    with pytest.raises(ValueError, match=re.escape("height and width [24, 32], the image has [32, 24]")):
        encode_segmentation(shape(mask), SIZE[::-1])
    with pytest.raises(ValueError, match="need size and counts"):
        encode_segmentation({"counts": shape(mask)["counts"]}, SIZE)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "list of polygons"),
        ("5", "list of polygons"),
        (ring(*BOX), "list of polygons"),  # a ring that is not in a list
        ([ring(*BOX), "x"], "list of polygons"),
        ([["a", "b", "c", "d", "e", "f"]], "cannot be drawn"),
        ([[[1, 2], [3]]], "cannot be drawn"),
        ([[[1, 2, 3], [4, 5, 6]]], "points are pairs"),
        ([[[[1, 2], [3, 4], [5, 6]]]], "points are pairs"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "1e\\+09 px in an image of 32x24"),
    ],
)
def test_what_is_no_segmentation_is_refused_with_a_reason(segmentation, message):
    with pytest.raises(ValueError, match=message):
        encode_segmentation(segmentation, SIZE)


def test_a_long_segmentation_is_not_quoted_in_full():
    with pytest.raises(ValueError, match="cannot be drawn") as caught:
        encode_segmentation([["x"] * 5000], SIZE)
    assert len(str(caught.value)) < 300


def test_an_images_objects_keep_order_and_those_without_pixels_are_left_out():
    segmentations = [packed(box_mask(OTHER)), [ring(100, 0, 110, 9)], [ring(*BOX)], runs(box_mask(BOX, OTHER)), []]
    masks = read_segmentations(Path("index.json"), segmentations, SIZE)
    np.testing.assert_array_equal(masks[:], [box_mask(OTHER), box_mask(BOX), box_mask(BOX, OTHER)])
    assert read_segmentations(Path("index.json"), [], SIZE).shape == (0, *SIZE)


def test_errors_name_the_files():
    with pytest.raises(BadFileError, match=r"^index\.json: a segmentation is a list"):
        read_segmentations(Path("index.json"), [[ring(*BOX)], "x"], SIZE)
    reader = partial(read_listed_segmentations, Path("a.png"), Path("index.json"), [[ring(*BOX)]])
    with pytest.raises(BadFileError, match=r"^a\.png: 32x24 px, index\.json says 32x25"):
        reader(SIZE, listed=(25, 32))
    with pytest.raises(BadFileError, match=r"^a\.png: index\.json: a segmentation is a list"):
        read_listed_segmentations(Path("a.png"), Path("index.json"), ["x"], SIZE)
    for listed in (SIZE, (None, None), (0, 0)):
        np.testing.assert_array_equal(reader(SIZE, listed=listed)[:], [box_mask(BOX)])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader))(SIZE)[:], [box_mask(BOX)])
