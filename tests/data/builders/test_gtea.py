import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.builders.gtea import DATASET
from ruac_jax.data.dataset import BadFileError
from ruac_jax.errors import UserError

from ..label_tree import OBJECTS, SIZE, check_masks, label_map, truncate, write_image, write_labels

COLOURS = np.array([(0, 0, 0), (0, 255, 0), (255, 0, 0), (0, 0, 255), (20, 20, 20), (20, 255, 0)], np.uint8)


def write_gtea(root, names=("s1_coffee_0000000010", "s1_coffee_0000000002")):
    for seed, name in enumerate(names):
        write_image(root / "Images" / f"{name}.jpg", seed)
        write_labels(root / "Masks" / f"{name}.png", COLOURS[label_map((1, 2))])
        annotation = root / "Annotations" / f"{name}.xml"
        annotation.parent.mkdir(parents=True, exist_ok=True)
        annotation.write_text("<annotation/>")
    write_image(root / "oldImages/x.jpg")
    write_labels(root / "oldMasks/x.png", label_map((255,)))
    return root


@pytest.mark.parametrize("place", ["hand2K_dataset/GTEA", "hand2K_dataset/hand2K_dataset/GTEA", "GTEA"])
def test_one_mask_per_label_of_hands(tmp_path, place):
    root = write_gtea(tmp_path / place)
    write_gtea(root.parent / "GTEA_GAZE_PLUS", ("Ahmad_American/1",))
    samples, problems = DATASET.list_samples(tmp_path, "train")
    assert problems == []
    assert [sample.image_id for sample in samples] == ["s1_coffee_0000000002", "s1_coffee_0000000010"]
    for sample in samples:
        assert sample.image == root / "Images" / f"{sample.image_id}.jpg"
        check_masks(sample, [OBJECTS[0], OBJECTS[1]])


def as_palette(file, numbers):
    image = Image.fromarray(numbers)
    image.putpalette(COLOURS.ravel().tolist())
    image.save(file)


CODINGS = {
    "colours": lambda file, numbers: write_labels(file, COLOURS[numbers]),
    "palette": as_palette,
    "grey": lambda file, numbers: write_labels(file, np.array([0, 200, 90, 255, 25], np.uint8)[numbers]),
}
# Objects by rising colour, where colours rise as red, green, blue, for left, right and intersecting hands.
ORDERS = {"colours": (2, 0, 1), "palette": (2, 0, 1), "grey": (1, 0, 2)}


@pytest.mark.parametrize("coding", CODINGS)
def test_left_right_and_intersecting_hands_in_any_coding_and_dark_ground(tmp_path, coding):
    write_gtea(tmp_path / "GTEA", ("a",))
    CODINGS[coding](tmp_path / "GTEA/Masks/a.png", label_map((1, 2, 3, 4)))
    (sample,) = DATASET.list_samples(tmp_path, "train").samples
    check_masks(sample, [OBJECTS[index] for index in ORDERS[coding]])


def test_frames_without_hands(tmp_path):
    write_gtea(tmp_path / "GTEA", ("a",))
    write_labels(tmp_path / "GTEA/Masks/a.png", np.zeros(SIZE, np.uint8))
    check_masks(DATASET.list_samples(tmp_path, "train").samples[0], [])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: write_labels(file, COLOURS[label_map((1, 2, 3, 5))]), "4 colours, expected at most 3: left"),
        (lambda file: write_labels(file, np.zeros((24, 20), np.uint8)), "20x24 px, its image is 32x24"),
        (truncate, "not a readable image"),
    ],
)
def test_masks_that_cannot_be_hands_are_refused(tmp_path, spoil, message):
    write_gtea(tmp_path / "GTEA", ("a",))
    spoil(tmp_path / "GTEA/Masks/a.png")
    with pytest.raises(BadFileError, match=message) as error:
        DATASET.list_samples(tmp_path, "train").samples[0].masks(SIZE)
    assert str(error.value).startswith(f"{tmp_path / 'GTEA/Masks/a.png'}: ")


def test_unknown_splits_and_layouts_are_explained(tmp_path):
    write_gtea(tmp_path / "GTEA_GAZE_PLUS")
    with pytest.raises(UserError, match=r"does not look like GTEA's hands: expected GTEA/Images/\*\.jpg"):
        DATASET.list_samples(tmp_path, "train")
    with pytest.raises(UserError, match="no split 'test'; known are train"):
        DATASET.list_samples(tmp_path, "test")
