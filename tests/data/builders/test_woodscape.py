import json
import shutil

import pytest

from ruac_jax.data.builders.woodscape import DATASET
from ruac_jax.data.dataset import BadFileError
from ruac_jax.errors import UserError

from ...real_data import real_data
from ..coco_tree import SIZE, assert_masks, box_mask, write_image
from ..via_tree import box_points

BOX, OTHER, EDGE, WHOLE = (3, 2, 9, 7), (20, 10, 28, 20), (28, 20, 32, 24), (0, 0, 32, 24)


def piece(box, *tags, group=None, z_order=0):
    """An entry of `annotation`."""
    entry = {
        "id": f"{box}",
        "tags": list(tags),
        "segmentation": [[float(x), float(y)] for x, y in box_points(*box)],
        "z_order": z_order,
    }
    return entry if group is None else {**entry, "group_id": group}


def write_annotation(folder, name, pieces, size=SIZE):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"image_width": size[1], "image_height": size[0], "image_channels": 3, "annotation": pieces}
    (folder / f"{name}.json").write_text(json.dumps({f"{name}.png": content}))


PIECES = {
    "00002_MVL": [],
    "00000_FV": [
        piece(BOX, "car", z_order=9),  # in front of the road, which stays whole
        piece(WHOLE, "road_surface", z_order=1),
        piece((20, 10, 90, 80), "ego_vehicle"),
        piece(BOX, "void"),
    ],
    "00001_RV": [
        piece(BOX, "car", group="7"),
        piece(OTHER, "pole"),
        piece(EDGE, "car", group="7"),
        piece(EDGE, "rider", group="7"),  # of the group, but another object
        piece(OTHER, "car", group=""),
        piece(EDGE, "car", group=""),
        piece(BOX, "car", "depiction"),
        piece(BOX),
        piece((40, 2, 60, 9), "pole"),  # outside
        piece((3, 2, 3, 2), "pole"),
        {**piece(BOX, "pole"), "segmentation": [[3.0, 2.0], [9.0, 7.0]]},
    ],
}
EXPECTED = {
    "00000_FV": [BOX, WHOLE, (20, 10, 32, 24), BOX],
    "00001_RV": [box_mask(BOX, EDGE), OTHER, EDGE, OTHER, EDGE],
    "00002_MVL": [],
}


def write_woodscape(root, inner="", pieces=PIECES):
    """Images and annotations, a folder deeper where `inner` says so, beside folders with PNGs of the same names."""
    for name, entries in pieces.items():
        write_image(root / "rgb_images" / inner.format("rgb_images") / f"{name}.png")
        write_image(root / "previous_images" / f"{name}_prev.png")
        write_image(root / "semantic_annotations" / "gtLabels" / f"{name}.png")
        write_annotation(root / "instance_annotations" / inner.format("instance_annotations"), name, entries)
    (root / "instance_annotations" / "class_info.json").write_text("{}")
    return root


@pytest.mark.parametrize("inner", ["", "{}"])
@pytest.mark.parametrize("place", [".", "WoodScape_ICCV19", "WoodScape (1)/WoodScape_ICCV19"])
def test_all_tags_are_objects_and_pieces_of_a_group_are_one(tmp_path, inner, place):
    write_woodscape(tmp_path / place, inner)
    listing = DATASET.list_samples(tmp_path, DATASET.evaluation_split)
    assert_masks(listing, EXPECTED)
    assert listing.problems == []
    assert {sample.clip for sample in listing.samples} == {""}
    assert [sample.files[0].name for sample in listing.samples] == [f"{name}.json" for name in EXPECTED]


def test_images_and_annotations_without_each_other_are_problems(tmp_path):
    write_woodscape(tmp_path)
    (tmp_path / "rgb_images" / "00000_FV.png").unlink()
    (tmp_path / "instance_annotations" / "00001_RV.json").unlink()
    (tmp_path / "instance_annotations" / "._00002_MVL.json").write_bytes(b"junk")
    listing = DATASET.list_samples(tmp_path, "all")
    assert_masks(listing, {"00002_MVL": []})
    assert listing.problems == [
        f"{tmp_path / 'instance_annotations/00000_FV.json'}: no image 00000_FV.png in rgb_images",
        f"{tmp_path / 'rgb_images/00001_RV.png'}: no annotation 00001_RV.json in instance_annotations",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not an instance annotation of WoodScape"),
        ("[]", "not an instance annotation of WoodScape"),
        ("{}", "not an instance annotation of WoodScape"),
        ('{"a": {"annotation": []}}', "not an instance annotation .*image_height"),
        ('{"a": {"image_width": 32, "image_height": 24, "annotation": ["x"]}}', "not an instance annotation"),
        ('{"a": {"image_width": 32, "image_height": 24, "annotation": [{"tags": ["a"]}]}}', "segmentation"),
        ('{"a": {"image_width": 99, "image_height": 24, "annotation": []}}', "32x24 px, .* says 99x24"),
        (
            '{"a": {"image_width": 32, "image_height": 24, "annotation": [{"tags": ["a"], "segmentation": 5}]}}',
            "a segmentation is a list of polygons",
        ),
    ],
)
def test_annotations_that_cannot_be_read_are_bad_files(tmp_path, content, message):
    write_woodscape(tmp_path)
    (tmp_path / "instance_annotations" / "00000_FV.json").write_text(content)
    sample = DATASET.list_samples(tmp_path, "all").samples[0]
    with pytest.raises(BadFileError, match=f"00000_FV.*{message}"):
        sample.masks(SIZE)


def test_other_layouts_are_explained(tmp_path):
    write_woodscape(tmp_path)
    with pytest.raises(UserError, match="no split 'val'; known are all"):
        DATASET.list_samples(tmp_path, "val")
    for file in (tmp_path / "rgb_images").iterdir():
        file.unlink()
    (tmp_path / "rgb_images" / "rgb_images.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="rgb_images does not look like WoodScape with the zips inside it unpacked"):
        DATASET.list_samples(tmp_path, "all")
    shutil.rmtree(tmp_path / "rgb_images")
    with pytest.raises(UserError, match="does not look like WoodScape: expected rgb_images and instance_annotations"):
        DATASET.list_samples(tmp_path, "all")


def test_every_published_tag_is_an_object(tmp_path):
    file = real_data("format_fixtures/woodscape") / "scripts" / "mappers" / "class_names.json"
    tags = list(json.loads(file.read_text()))
    boxes = [(index % 16, index // 16, index % 16 + 3, index // 16 + 2) for index in range(len(tags))]
    pieces = [piece(box, tag) for box, tag in zip(boxes, tags, strict=True)]
    listing = DATASET.list_samples(write_woodscape(tmp_path, pieces={"00000_FV": pieces}), "all")
    assert len(tags) > 40
    assert_masks(listing, {"00000_FV": boxes})
