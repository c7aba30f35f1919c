import pickle

import numpy as np
import pytest

from ruac_jax.data.readers.folders import list_label_folder, list_pairs, list_tree
from ruac_jax.data.readers.label_map import read_label_map
from ruac_jax.errors import UserError

from ..label_tree import OBJECTS, SIZE, check_masks, label_map, write_image, write_labels, write_palette


def test_pairs_in_natural_order_and_what_is_alone_or_double(tmp_path):
    files = {name: tmp_path / name for name in ("i10", "i2", "i3", "a10", "a2", "a5", "a2 copy")}
    images = [("10", files["i10"]), ("2", files["i2"]), ("3", files["i3"])]
    annotations = [("5", files["a5"]), ("2", files["a2"]), ("2", files["a2 copy"]), ("10", files["a10"])]
    samples, problems = list_pairs(images, annotations, read_label_map)
    assert [(sample.image_id, sample.image, sample.files) for sample in samples] == [
        ("2", files["i2"], (files["a2"],)),
        ("10", files["i10"], (files["a10"],)),
    ]
    assert problems == [
        f"{files['a2 copy']}: a second file for 2, after {files['a2']}",
        f"{files['a5']}: no image of that name",
        f"{files['i3']}: no annotation of that name",
    ]


def test_a_tree_is_listed_at_any_depth_without_junk(tmp_path):
    for name in ("b.png", "x y/(1)/c.PNG", "x y/d.e.png", "x y/._d.png", "__MACOSX/b.png", "x y/f.txt"):
        write_labels(tmp_path / "t" / name.replace(".txt", ".png"), np.zeros(SIZE, np.uint8))
    (tmp_path / "t/x y/f.png").rename(tmp_path / "t/x y/f.txt")
    found = list_tree(tmp_path / "t", (".png",))
    assert {name: file.relative_to(tmp_path / "t").as_posix() for name, file in found} == {
        "b": "b.png",
        "x y/(1)/c": "x y/(1)/c.PNG",
        "x y/d.e": "x y/d.e.png",
    }
    assert len(found) == 3


@pytest.fixture
def own(tmp_path):
    """Images with a label map or a folder of masks."""
    images, labels = tmp_path / "images", tmp_path / "my labels"
    for seed, name in enumerate(("photo 2.jpg", "photo 10.png", "empty.bmp", "none.tif")):
        write_image(images / name, seed)
    write_palette(labels / "photo 2.png", label_map((2, 1, 200)))
    for index in (0, 1, 3):
        write_labels(labels / "photo 10" / f"mask_{9 - index}.png", OBJECTS[index])
    (labels / "photo 10" / "notes.txt").write_text("not a mask")
    (labels / "empty").mkdir()
    write_labels(labels / "none.tif", np.zeros(SIZE, np.int32))
    return images, labels


def test_own_images_with_label_maps_or_folders_of_masks(own):
    images, labels = own
    samples, problems = list_label_folder(images, labels)
    assert problems == []
    assert [sample.image_id for sample in samples] == ["empty", "none", "photo 2", "photo 10"]
    empty, none, maps, folder = pickle.loads(pickle.dumps(samples))
    check_masks(empty, [])
    check_masks(none, [])
    check_masks(maps, [OBJECTS[1], OBJECTS[0], OBJECTS[2]])
    check_masks(folder, [OBJECTS[3], OBJECTS[1], OBJECTS[0]])
    assert maps.files == (labels / "photo 2.png",)
    assert folder.files == tuple(labels / "photo 10" / f"mask_{number}.png" for number in (6, 8, 9))
    assert empty.files == ()


def test_own_files_that_do_not_fit_together_are_problems(own):
    images, labels = own
    write_image(images / "alone.png")
    write_image(images / "empty.png")
    write_labels(labels / "photo 10.png", label_map((1,)))
    (labels / "stray").mkdir()
    samples, problems = list_label_folder(images, labels)
    assert len(samples) == 4
    assert problems == [
        f"{images / 'alone.png'}: no annotation of that name",
        f"{images / 'empty.png'}: a second file for empty, after {images / 'empty.bmp'}",
        f"{labels / 'photo 10'}: a second file for photo 10, after {labels / 'photo 10.png'}",
        f"{labels / 'stray'}: no image of that name",
    ]


def test_own_folders_without_files_are_explained(own, tmp_path):
    images, labels = own
    bare = tmp_path / "bare"
    bare.mkdir()
    for wrong in (bare, tmp_path / "missing"):
        with pytest.raises(UserError, match=r"no image in .*: expected files that end in \.jpg"):
            list_label_folder(wrong, labels)
        with pytest.raises(UserError, match=r"say empty\.bmp, a label map empty\.png, or a folder empty with one PNG"):
            list_label_folder(images, wrong)
    with pytest.raises(UserError, match="put the labels into a folder of their own"):
        list_label_folder(images, images)
