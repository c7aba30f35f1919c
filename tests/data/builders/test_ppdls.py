import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.builders.ppdls import DATASET
from ruac_jax.errors import UserError

from ...real_data import real_data
from ..label_tree import OBJECTS, check_masks, label_map, write_image, write_labels, write_palette


def write_plant(folder, name, write=write_palette):
    write_image(folder / f"{name}_rgb.png")
    write(folder / f"{name}_label.png", label_map((2, 1, 3)))
    write_palette(folder / f"{name}_fg.png", label_map((1, 1, 1)))
    (folder / f"{name}_bbox.csv").write_text("0,0\n")


@pytest.mark.parametrize("place", ["Plant_Phenotyping_Datasets/Plant_Phenotyping_Datasets/Plant", "Plant", "."])
def test_both_species_are_pooled(tmp_path, place):
    root = tmp_path / place
    for folder, prefix in (("Ara2012", "ara2012"), ("Ara2013-Canon", "ara2013"), ("Tobacco", "tobacco")):
        for number in (1, 120):
            write_plant(root / folder, f"{prefix}_plant{number:03d}")
    write_plant(tmp_path / "Tray/Ara2012", "ara2012_tray01")
    write_plant(tmp_path / "Tray/Tobacco", "tobacco_tray01")
    samples, problems = DATASET.list_samples(tmp_path, "all")
    assert problems == []
    assert [sample.image_id for sample in samples] == [
        *("Ara2012/ara2012_plant001", "Ara2012/ara2012_plant120"),
        *("Tobacco/tobacco_plant001", "Tobacco/tobacco_plant120"),
    ]
    for sample in samples:
        assert sample.image == root / f"{sample.image_id}_rgb.png"
        check_masks(sample, [OBJECTS[1], OBJECTS[0], OBJECTS[2]])


def as_colours(file, labels):
    palette = np.array([(0, 0, 0), (0, 0, 9), (0, 0, 8), (40, 0, 0)], np.uint8)
    write_labels(file, palette[labels])


def test_the_challenge_packaging_and_palettes_turned_into_colours(tmp_path):
    for name in ("training/A1", "training/A2", "training/A3"):
        write_plant(tmp_path / name, "plant007", as_colours)
    write_image(tmp_path / "testing/A1/plant001_rgb.png")
    samples, problems = DATASET.list_samples(tmp_path, "all")
    assert problems == []
    assert [sample.image_id for sample in samples] == ["A1/plant007", "A3/plant007"]
    for sample in samples:
        check_masks(sample, [OBJECTS[0], OBJECTS[1], OBJECTS[2]])


def test_plants_without_label_are_problems(tmp_path):
    for number in (1, 2):
        write_plant(tmp_path / "A1", f"plant{number:03d}")
    (tmp_path / "A1/plant002_label.png").unlink()
    samples, problems = DATASET.list_samples(tmp_path, "all")
    assert [sample.image_id for sample in samples] == ["A1/plant001"]
    assert problems == [f"{tmp_path / 'A1/plant002_rgb.png'}: no annotation of that name"]


def test_unknown_splits_and_layouts_are_explained(tmp_path):
    write_plant(tmp_path / "Ara2012", "ara2012_plant001")  # without Tobacco
    with pytest.raises(
        UserError, match=r"expected Ara2012/\*_plant\*_label\.png and Tobacco/.*A\[13\]/plant\*_label\.png"
    ):
        DATASET.list_samples(tmp_path, "all")
    with pytest.raises(UserError, match="no split 'train'; known are all"):
        DATASET.list_samples(tmp_path, "train")


def test_real_plants():
    root = real_data("ppdls_cvppp_a1")
    samples, problems = DATASET.list_samples(root, "all")
    assert problems == []
    assert len(samples) == 6
    leaves = 0
    for sample in samples:
        with Image.open(root / "training" / f"{sample.image_id}_label.png") as label:
            assert label.mode == "P"
            labels = np.array(label)
        masks = sample.masks(labels.shape)
        np.testing.assert_array_equal(masks[:], [labels == leaf for leaf in range(1, labels.max() + 1)])
        leaves += len(masks)
    assert leaves == 95
