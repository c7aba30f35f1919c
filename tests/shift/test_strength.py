"""What an attack's strength is measured on."""

import dataclasses

import numpy as np
from PIL import Image

from configs.systems import nano, trained_on
from ruac_jax.config import parse_config
from ruac_jax.data.custom import custom_dataset
from ruac_jax.data.preparation import prepare
from ruac_jax.data.shapes import ShapesSource
from ruac_jax.shift.strength import _batches

SIZE = 64


def prepare_grey(root, name, level):
    """A dataset of four images of one grey with one square each."""
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[10:40, 10:40] = 1
    for number in range(4):
        for kind, pixels in (("images", np.full((SIZE, SIZE, 3), level, np.uint8)), ("labels", labels)):
            (root / name / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / name / kind / f"{number}.png")
    folder = root / name
    prepare(custom_dataset(name, folder / "images", folder / "labels"), folder / "images", root / "data", split="all")


def test_a_prepared_source_is_judged_on_its_unseen_images_as_they_are(tmp_path):
    prepare_grey(tmp_path, "seen", 20)
    prepare_grey(tmp_path, "unseen", 200)
    config = parse_config(trained_on(nano("ours"), "seen", "all", str(tmp_path / "data")))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=4))
    for name in ("unseen", "unseen:all"):
        (batch,) = _batches(config, name, SIZE, 1)
        assert np.all(batch.image == 200)
        assert batch.masks[:, 0].sum() == 4 * 30 * 30


def test_a_generated_source_is_judged_on_its_validation_split():
    config = parse_config(nano("ours"))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=4, num_images=12))
    (batch,) = _batches(config, "shapes/source", SIZE, 1)
    source = ShapesSource("source", "validation", size=SIZE, num_images=12)
    known = {source[number]["image"].tobytes() for number in range(12)}
    assert {image.tobytes() for image in batch.image} <= known
