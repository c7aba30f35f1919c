import json

import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.builders.ade20k import DATASET
from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.files import image_size
from ruac_jax.errors import UserError

from ...real_data import real_data
from ..label_tree import OBJECTS, SIZE, box, check_masks, truncate, write_image, write_labels

HIDDEN = box(2, 8, 9, 12)  # of the first object, beyond what is seen of it
PART = box(4, 3, 7, 6)  # in the first object
PART_OF_PART = box(5, 4, 6, 5)
SEEN = (*OBJECTS[:3], PART, PART_OF_PART)


def instance_masks():
    masks = [np.where(mask, 255, 0).astype(np.uint8) for mask in SEEN]
    masks[0][HIDDEN] = 128
    return [*masks, np.where(OBJECTS[3], 128, 0).astype(np.uint8)]  # the last one is hidden entirely


def write_2021(folder, stem, encoding="utf-8"):
    write_image(folder / f"{stem}.jpg")
    entries = []
    for number, mask in enumerate(instance_masks()):
        name = f"{stem}/instance_{number:03d}_{stem}.png"
        write_labels(folder / name, mask)
        entries.append({"id": number, "name": "caf\u00e9", "parts": {"part_level": 0}, "instance_mask": name})
    annotation = {"annotation": {"filename": f"{stem}.jpg", "imsize": [*SIZE, 3], "object": entries}}
    (folder / f"{stem}.json").write_bytes(json.dumps(annotation, ensure_ascii=False).encode(encoding))
    write_colours(folder, stem)


def write_colours(folder, stem):
    """Two objects of one class and one of another, told apart by blue; blue without a class is not labelled."""
    for name, marks in (
        ("seg", {(10, 145, 5): OBJECTS[0], (10, 145, 255): OBJECTS[1], (0, 64, 5): OBJECTS[2], (0, 0, 7): OBJECTS[3]}),
        ("parts_1", {(10, 234, 128): PART}),
        ("parts_2", {(110, 0, 255): PART_OF_PART}),
    ):
        pixels = np.zeros((*SIZE, 3), np.uint8)
        for colour, mask in marks.items():
            pixels[mask] = colour
        write_labels(folder / f"{stem}_{name}.png", pixels)


@pytest.mark.parametrize("place", ["ADE20K_2021_17_01/images/ADE", "ADE/ADE20K_2021_17_01 (1)/images/ADE", "."])
def test_release_of_2021_has_objects_and_parts_as_far_as_they_are_seen(tmp_path, place):
    root = tmp_path / place
    write_2021(root / "validation/urban/street", "ADE_val_00000010")
    write_2021(root / "validation/home/room/bed room", "ADE_val_00000009", "cp1252")
    write_2021(root / "training/urban/street", "ADE_train_00000001", "latin-1")
    (tmp_path / "index_ade20k.pkl").write_bytes(b"")
    samples, problems = DATASET.list_samples(tmp_path, "val")
    assert problems == []
    assert [sample.image_id for sample in samples] == ["ADE_val_00000009", "ADE_val_00000010"]
    for sample in samples:
        check_masks(sample, SEEN)
        index, *masks = sample.files
        assert index == sample.image.with_suffix(".json")
        assert [file.name for file in masks] == [f"instance_{i:03d}_{sample.image_id}.png" for i in range(6)]
    (train,) = DATASET.list_samples(tmp_path, "train").samples
    assert train.image_id == "ADE_train_00000001"
    check_masks(train, SEEN)


@pytest.mark.parametrize("place", ["ADE20K_2016_07_26/images", "."])
def test_release_of_2016_has_a_colour_per_object_and_maps_of_parts(tmp_path, place):
    root = tmp_path / place
    for name in ("a/abbey/ADE_val_00000010", "a/art/outdoor/ADE_val_00000002", "misc/ADE_val_00000001"):
        folder, stem = (root / "validation" / name).parent, name.split("/")[-1]
        write_image(folder / f"{stem}.jpg")
        write_colours(folder, stem)
        (folder / f"{stem}_atr.txt").write_text('001 # 0 # 0 # sky # sky # ""\n')
    (root / "validation/misc/ADE_val_00000001_parts_1.png").unlink()  # parts_2 alone does not count
    samples, problems = DATASET.list_samples(tmp_path, "val")
    assert problems == []
    assert [sample.image_id for sample in samples] == [f"ADE_val_0000000{i}"[:16] for i in (1, 2)] + [
        "ADE_val_00000010"
    ]
    without_parts, *others = samples
    by_colour = [OBJECTS[2], OBJECTS[0], OBJECTS[1]]
    check_masks(without_parts, by_colour)
    assert [file.name for file in without_parts.files] == ["ADE_val_00000001_seg.png"]
    for sample in others:
        check_masks(sample, [*by_colour, PART, PART_OF_PART])
        assert [file.name.split("_", 3)[3] for file in sample.files] == ["seg.png", "parts_1.png", "parts_2.png"]


def one_sample(tmp_path):
    write_2021(tmp_path / "validation", "ADE_val_00000001")
    (sample,) = DATASET.list_samples(tmp_path, "val").samples
    return sample, sample.files[0], sample.files[2]


BAD = {
    "truncated mask": (lambda index, mask: truncate(mask), "instance_001.*not a readable mask"),
    "missing mask": (lambda index, mask: mask.unlink(), "instance_001.*not a readable mask"),
    "mask of another size": (
        lambda index, mask: write_labels(mask, np.zeros((24, 20), np.uint8)),
        "instance_001.*20x24 px, its image is 32x24",
    ),
    "other coding": (
        lambda index, mask: write_labels(mask, OBJECTS[1].astype(np.uint8)),
        r"instance_001.*values up to 1, expected 0, 128 \(hidden\) and 255",
    ),
    "truncated index": (lambda index, mask: truncate(index), r"00001\.json: not a readable JSON file"),
    "index without objects": (lambda index, mask: index.write_text("{}"), r"00001\.json: expected annotation\.object"),
    "index of lists": (lambda index, mask: index.write_text("[1]"), r"00001\.json: expected annotation\.object"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_told_by_name_and_reason(tmp_path, kind):
    sample, index, mask = one_sample(tmp_path)
    spoil, message = BAD[kind]
    spoil(index, mask)
    with pytest.raises(BadFileError, match=message):
        sample.masks(SIZE)


def test_images_without_a_counterpart_are_problems(tmp_path):
    for number in (1, 2, 3):
        write_2021(tmp_path / "validation/a/b", f"ADE_val_{number}")
    folder = tmp_path / "validation/a/b"
    (folder / "ADE_val_1.jpg").unlink()
    (folder / "ADE_val_2.json").unlink()  # its colours are not taken instead
    samples, problems = DATASET.list_samples(tmp_path, "val")
    assert [sample.image_id for sample in samples] == ["ADE_val_3"]
    assert problems == [
        f"{folder / 'ADE_val_1.json'}: no image of that name",
        f"{folder / 'ADE_val_2.jpg'}: no annotation of that name",
    ]


def test_unknown_splits_and_layouts_are_explained(tmp_path):
    write_image(tmp_path / "ADEChallengeData2016/images/validation/ADE_val_00000001.jpg")
    write_labels(
        tmp_path / "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png", np.zeros(SIZE, np.uint8)
    )
    with pytest.raises(UserError, match=r"ADEChallengeData2016, has classes only\): expected validation/"):
        DATASET.list_samples(tmp_path, "val")
    with pytest.raises(UserError, match="no split 'validation'; known are train, val"):
        DATASET.list_samples(tmp_path, "validation")


def test_a_real_image(tmp_path):
    root = real_data("ade20k_official_sample")
    (sample,) = DATASET.list_samples(root, "train").samples
    index = json.loads(sample.image.with_suffix(".json").read_bytes().decode("latin-1"))
    entries = index["annotation"]["object"]
    assert sample.image_id == "ADE_train_00016869"
    masks = sample.masks(image_size(sample.image))
    assert len(masks) == len(entries) == len(list(root.rglob("instance_*.png"))) == 70
    for number in range(0, 70, 10):
        with Image.open(sample.image.parent / entries[number]["instance_mask"]) as mask:
            np.testing.assert_array_equal(masks[number : number + 1][0], np.array(mask) == 255)

    # The colours of the older release, which this one has as well, give the same objects.
    folder = tmp_path / "training/u/street"
    folder.mkdir(parents=True)
    for file in sample.image.parent.iterdir():
        if file.is_file() and file.suffix != ".json":
            (folder / file.name).symlink_to(file)
    (older,) = DATASET.list_samples(tmp_path, "train").samples
    coloured = older.masks(masks.size)
    assert len(coloured) == 70
    areas = masks.areas()
    assert len(set(areas) & set(coloured.areas())) >= 67  # all but three to the pixel
