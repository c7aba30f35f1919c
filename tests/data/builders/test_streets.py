import json
import shutil

import pytest

from ruac_jax.data.builders.streets import DATASET
from ruac_jax.errors import UserError

from ...real_data import real_data
from ..coco_tree import assert_masks
from ..via_tree import box_points, region, write_via

BOX, OTHER = (3, 2, 9, 7), (20, 10, 32, 24)
TWO, TEN, PAREN = "IL 60 at IL 83 North-2", "IL 60 at IL 83 North-10", "Arlington Heights at Checker (Wireless) West-4"


def write_streets(root, names=(TWO, TEN, PAREN)):
    regions = {
        f"{TEN}.jpg": [region(box_points(*BOX), vehicle_type="car"), region(box_points(20, 10, 50, 40))],
        f"{TWO}.jpg": [region(box_points(-6, -9, 9, 7)), region([(4, 4), (8, 8)])],
        f"{PAREN}.jpg": [],
    }
    chosen = {f"{name}.jpg": regions[f"{name}.jpg"] for name in names}
    write_via(root / "annotations" / "vehicle-annotations.json", chosen, 1, root / "images")
    return root


EXPECTED = {PAREN: [], TWO: [(0, 0, 9, 7)], TEN: [BOX, OTHER]}


@pytest.mark.parametrize("place", [".", "vehicleannotations", "data/vehicleannotations/vehicleannotations"])
def test_all_images_without_a_split_file(tmp_path, place):
    write_streets(tmp_path / place)
    listing = DATASET.list_samples(tmp_path, DATASET.evaluation_split)
    assert_masks(listing, EXPECTED)
    assert listing.problems == []


@pytest.mark.parametrize("place", [".", "vehicleannotations"])
def test_the_authors_split_file_is_used_where_it_lies(tmp_path, place):
    write_streets(tmp_path / "vehicleannotations")
    split = {"train": [f"{TEN}.jpg", f"{PAREN}.jpg"], "val": [f"{TWO}.jpg", "gone-1.jpg"]}
    (tmp_path / place / "train-val-split.json").write_text(json.dumps(split))
    train, val = (DATASET.list_samples(tmp_path, name) for name in ("train", "val"))
    assert_masks(train, {name: EXPECTED[name] for name in (PAREN, TEN)})
    assert_masks(val, {TWO: EXPECTED[TWO]})
    assert train.problems == []
    assert val.problems == [f"{tmp_path / 'vehicleannotations/images/gone-1.jpg'}: no such image"]
    assert_masks(DATASET.list_samples(tmp_path, "all"), EXPECTED)


def test_a_split_without_its_file_is_refused_with_a_way_out(tmp_path):
    write_streets(tmp_path)
    with pytest.raises(UserError, match=r"no train-val-split\.json, which says what val is: copy it there"):
        DATASET.list_samples(tmp_path, "val")
    for content in ("[]", '{"train": ["a.jpg"]}', '{"val": [1]}'):
        (tmp_path / "train-val-split.json").write_text(content)
        with pytest.raises(UserError, match="expected a list of file names under 'val'"):
            DATASET.list_samples(tmp_path, "val")
    with pytest.raises(UserError, match="no split 'test'; known are all, train, val"):
        DATASET.list_samples(tmp_path, "test")


def test_another_layout_is_refused(tmp_path):
    write_streets(tmp_path)
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(UserError, match=r"does not look like STREETS: expected annotations/vehicle-annotations\.json"):
        DATASET.list_samples(tmp_path, "all")


def test_the_published_split_file(tmp_path):
    published = real_data("format_fixtures/streets") / "data" / "train-val-split.json"
    names = json.loads(published.read_text())
    here = [f"{name}.jpg" for name in (TWO, TEN, PAREN)]
    write_streets(tmp_path)
    shutil.copy(published, tmp_path)
    for split in ("train", "val"):
        listing = DATASET.list_samples(tmp_path, split)
        assert len(names[split]) == DATASET.splits[split].images
        assert {sample.image.name for sample in listing.samples} == set(here) & set(names[split])
        assert len(listing.samples) + len(listing.problems) == DATASET.splits[split].images
    assert sum(DATASET.splits[split].images for split in ("train", "val")) == DATASET.splits["all"].images
