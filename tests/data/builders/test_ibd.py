import pytest

from ruac_jax.data.builders.ibd import DATASET
from ruac_jax.errors import UserError

from ..coco_tree import assert_masks, write_coco, write_split

BOX, OTHER = (3, 2, 9, 7), (20, 10, 32, 24)


@pytest.mark.parametrize(
    ("place", "file"), [(".", "train.json"), ("2D", "instances_train2022.json"), ("IBD/2D", "train.json")]
)
def test_coco_beside_a_folder_of_images(tmp_path, place, file):
    root = tmp_path / place
    write_split(root / file, root / "train", {"b10.JPG": [BOX], "b9.JPG": [OTHER, BOX]})
    write_split(root / "val.json", root / "val", {"c.png": [OTHER]})
    (root / f"._{file}").write_bytes(b"junk")
    train = DATASET.list_samples(tmp_path, "train")
    assert_masks(train, {"b9": [OTHER, BOX], "b10": [BOX]})
    assert train.problems == []
    assert_masks(DATASET.list_samples(tmp_path, "val"), {"c": [OTHER]})


def test_any_other_layout_is_refused_with_what_is_expected(tmp_path):
    expected = r"not documented; expected one COCO file \*train\*.json beside a folder train of images, in .*, found "
    with pytest.raises(UserError, match=expected + "none"):
        DATASET.list_samples(tmp_path, "train")
    write_split(tmp_path / "train.json", tmp_path / "train", {"a.png": [BOX]})
    write_coco(tmp_path / "train_roofs.json", [], [])
    with pytest.raises(UserError, match=expected + r".*train.json, .*train_roofs.json"):
        DATASET.list_samples(tmp_path, "train")
    with pytest.raises(UserError, match="no split 'all'; known are train, val, test"):
        DATASET.list_samples(tmp_path, "all")
