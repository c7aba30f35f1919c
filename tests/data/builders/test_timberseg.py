import pytest

from ruac_jax.data.builders.timberseg import DATASET
from ruac_jax.errors import UserError

from ..coco_tree import annotation, assert_masks, entry, ring, write_coco, write_split

BOX, OTHER = (3, 2, 9, 7), (20, 10, 32, 24)


def write_timberseg(root):
    """File names are relative to `prescaled`; rotated boxes and unscaled photos lie beside it."""
    folder = root / "prescaled"
    write_split(
        folder / "coco_annotation.json",
        folder / "images",
        {"pile 10 (a).png": [BOX, OTHER], "pile 9.png": [OTHER]},
        in_file="images/",
    )
    rotated = [annotation(1, 1, [ring(0, 0, 30, 20)], bbox=[1, 2, 3, 4, 0.5])]
    write_coco(folder / "coco_annotation_rotated.json", [entry(1, "images/pile 9.png")], rotated)
    write_split(
        root / "original" / "coco_annotation.json", root / "original" / "images", {"pile 9.png": [(0, 0, 2, 2)]}
    )


@pytest.mark.parametrize("place", [".", "y5npsm3gkj-2", "y5npsm3gkj-2/y5npsm3gkj-2"])
def test_the_prescaled_photos_are_read(tmp_path, place):
    write_timberseg(tmp_path / place)
    (tmp_path / place / "prescaled" / "images" / "._pile 9.png").write_bytes(b"junk")
    listing = DATASET.list_samples(tmp_path, "all")
    assert_masks(listing, {"pile 9": [OTHER], "pile 10 (a)": [BOX, OTHER]})
    assert all("prescaled" in sample.image.parts for sample in listing.samples)
    assert listing.problems == []


def test_what_is_missing_is_said(tmp_path):
    write_timberseg(tmp_path)
    with pytest.raises(UserError, match="no split 'train'; known are all"):
        DATASET.list_samples(tmp_path, "train")
    (tmp_path / "prescaled" / "coco_annotation.json").unlink()
    with pytest.raises(UserError, match=r"does not look like TimberSeg 1.0: expected prescaled/coco_annotation.json"):
        DATASET.list_samples(tmp_path, "all")
