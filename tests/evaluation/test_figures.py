import numpy as np
import pytest
from PIL import Image

from ruac_jax.evaluation import figures
from ruac_jax.evaluation.protocol import Example


def read(path):
    image = np.asarray(Image.open(path).convert("RGB"))
    assert image.std() > 5  # something is drawn
    return image


def has_color(image, code, pixels=20):
    color = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.abs(image.astype(int) - color).max(axis=2) <= 2).sum() >= pixels


def test_curves_show_every_dataset(tmp_path):
    names = [f"domain {i}" for i in range(5)]
    curves = {name: {"coverage": [0.2, 0.6, 1.0], "risk": [0.1, 0.1 * i, 0.3]} for i, name in enumerate(names)}
    figures.draw_risk_coverage(curves, tmp_path / "a" / "risk.png")
    diagram = {
        "low": [7 / 15],
        "high": [8 / 15],
        "pixels": [10, 0, 5],
        "confidence": [0.5, None, 0.9],
        "accuracy": [0.6, None, 0.8],
    }
    figures.draw_reliability(dict.fromkeys(names[:1], diagram), tmp_path / "reliability.png")
    image = read(tmp_path / "a" / "risk.png")
    assert all(has_color(image, code) for code in ("#222222", *figures.PALETTE[:4]))
    assert has_color(read(tmp_path / "reliability.png"), "#222222")


@pytest.mark.parametrize("groups", [None, {"one": "source", "two": "shape"}])
def test_bars_cope_with_missing_values_and_groups(tmp_path, groups):
    data = {
        "one": {"j_and_f": 0.5, "pavpu": 0.7, "aurc": None, "ece": 0.0},
        "two": {"j_and_f": 0.4, "pavpu": None, "aurc": None, "ece": 0.01},
    }
    figures.draw_domain_bars(data, tmp_path / "bars.png", groups=groups)
    assert has_color(read(tmp_path / "bars.png"), figures.PALETTE[0], 500)


def test_examples_of_different_sizes(tmp_path, rng):
    examples = []
    for objects, size in ((1, (40, 60)), (9, (50, 30))):
        truth, prediction = rng.random((2, objects, *size)) < 0.3
        uncertainty = rng.random((objects, *size)).astype(np.float32)
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        examples.append(Example(image, truth, prediction, uncertainty, f"image {objects}"))
    figures.draw_examples(examples, tmp_path / "examples.png")
    read(tmp_path / "examples.png")
    figures.draw_examples([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_overlay_paints_masks_only(rng):
    image = np.full((4, 4, 3), 100, np.uint8)
    masks = np.zeros((2, 4, 4), bool)
    masks[0, 0], masks[1, 3] = True, True
    painted = figures.overlay(image, masks, colors=("#FF0000", "#0000FF"), strength=1.0)
    np.testing.assert_array_equal(painted[0], [[255, 0, 0]] * 4)
    np.testing.assert_array_equal(painted[3], [[0, 0, 255]] * 4)
    np.testing.assert_array_equal(painted[1:3], np.full((2, 4, 3), 115))
