import shutil

import pytest

from ruac_jax.data.builders.ndd20 import DATASET
from ruac_jax.errors import UserError

from ..coco_tree import assert_masks
from ..via_tree import box_points, region, write_via

BOX, OTHER = (3, 2, 9, 7), (20, 10, 32, 24)


def outline(box):
    return region(box_points(*box), "polyline", object="dolphin")


def write_ndd20(root):
    """Both folders have images 1 and 10, ABOVE 2 as well."""
    above = {
        "10.jpg": [outline(OTHER), region([(4, 4), (20, 20)], "polyline")],
        "1.jpg": [outline(BOX), outline(OTHER)],
        "2.jpg": [],
    }
    below = {"1.jpg": [outline(OTHER)], "10.jpg": [outline(BOX)]}
    write_via(root / "ABOVE_LABELS.json", above, 2, root / "ABOVE")
    write_via(root / "BELOW_LABELS.json", below, 2, root / "BELOW")
    return root


EXPECTED = {"ABOVE/1": [BOX, OTHER], "ABOVE/2": [], "ABOVE/10": [OTHER], "BELOW/1": [OTHER], "BELOW/10": [BOX]}


@pytest.mark.parametrize("place", [".", "NDD20", "NDD20/NDD20"])
def test_both_folders_are_pooled(tmp_path, place):
    write_ndd20(tmp_path / place)
    shutil.copytree(tmp_path / place, tmp_path / "__MACOSX" / "NDD20") if place == "NDD20" else None
    listing = DATASET.list_samples(tmp_path, DATASET.evaluation_split)
    assert_masks(listing, EXPECTED)
    assert listing.problems == []
    assert [sample.image.parent.name for sample in listing.samples] == ["ABOVE"] * 3 + ["BELOW"] * 2


def test_problems_of_both_folders_are_told(tmp_path):
    write_ndd20(tmp_path)
    (tmp_path / "ABOVE" / "1.jpg").unlink()
    (tmp_path / "BELOW" / "10.jpg").unlink()
    listing = DATASET.list_samples(tmp_path, "all")
    assert [sample.image_id for sample in listing.samples] == ["ABOVE/2", "ABOVE/10", "BELOW/1"]
    assert [problem.split(": ")[0] for problem in listing.problems] == [
        str(tmp_path / name) for name in ("ABOVE/1.jpg", "BELOW/10.jpg")
    ]


@pytest.mark.parametrize("missing", ["ABOVE", "BELOW", "ABOVE_LABELS.json", "BELOW_LABELS.json"])
def test_a_part_that_is_missing_is_told(tmp_path, missing):
    part = write_ndd20(tmp_path) / missing
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    with pytest.raises(UserError, match=f"does not look like NDD20: expected .*{missing}"):
        DATASET.list_samples(tmp_path, "all")


def test_there_is_one_split(tmp_path):
    with pytest.raises(UserError, match="no split 'train'; known are all"):
        DATASET.list_samples(write_ndd20(tmp_path), "train")
