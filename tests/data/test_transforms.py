import math

import numpy as np
import pytest
from PIL import Image

from ruac_jax.data.record import Record
from ruac_jax.data.transforms import (
    FILL,
    NO_AUGMENTATION,
    Augmentation,
    Jitter,
    affine,
    affine_matrix,
    augment,
    color_jitter,
    flip,
    greyscale,
    random_affine,
    resize,
)

COLORS = np.array([[250, 20, 30], [20, 240, 40], [30, 40, 230], [240, 230, 20]], np.uint8)
GROUND = np.array([128, 128, 128], np.uint8)


def make_discs(height=90, width=120, overlap=False):
    """Four discs of pure colours; with `overlap` a tenth mask covers everything."""
    y, x = np.mgrid[:height, :width]
    centers = [(30, 25), (85, 30), (35, 62), (88, 65)]
    masks = np.stack([np.hypot(x - cx, y - cy) < 12 for cx, cy in centers])
    image = np.tile(GROUND, (height, width, 1))
    for mask, color in zip(masks, COLORS, strict=True):
        image[mask] = color
    if overlap:
        masks = np.concatenate([masks, masks, np.ones((1, height, width), bool)])
    return Record(image=image, masks=masks, image_id="discs")


class Scripted(np.random.Generator):
    """Returns the given numbers one after another, and a given order."""

    def __init__(self, values, order=(0, 1, 2)):
        super().__init__(np.random.PCG64(0))
        self.values, self.order = list(values), order

    def uniform(self, low, high):
        return self.values.pop(0)

    def permutation(self, count):
        return np.array(self.order)


def hue_share(image, mask, color):
    """Share of the mask whose nearest colour among discs, ground and fill is `color`."""
    palette = np.vstack([COLORS, GROUND, np.array(FILL)]).astype(float)
    nearest = np.abs(image[mask][:, None, :].astype(float) - palette).sum(axis=2).argmin(axis=1)
    return (nearest == color).mean()


@pytest.mark.parametrize("seed", range(8))
def test_objects_stay_under_their_masks(seed):
    record = make_discs()
    settings = Augmentation(greyscale=0.0, jitter=Jitter(), second_jitter=Jitter())
    out = augment(record, settings, 96, np.random.default_rng(seed))
    assert out["image"].shape == (96, 96, 3)
    assert out["masks"].shape == (4, 96, 96)
    for index, mask in enumerate(out["masks"]):
        # Only the blended rim may look like something else.
        assert hue_share(out["image"], mask, index) > 0.85
        assert hue_share(out["image"], ~mask, index) < 0.01


def test_the_same_generator_gives_the_same_sample_and_another_does_not():
    record = make_discs()
    first, again, other = (augment(record, Augmentation(), 64, np.random.default_rng(s)) for s in (3, 3, 4))
    np.testing.assert_array_equal(first["image"], again["image"])
    np.testing.assert_array_equal(first["masks"], again["masks"])
    assert (first["image"] != other["image"]).any()


def test_zero_strength_is_the_identity(rng):
    record = make_discs(64, 64)
    out = augment(record, NO_AUGMENTATION, 64, rng)
    np.testing.assert_array_equal(out["image"], record["image"])
    np.testing.assert_array_equal(out["masks"], record["masks"])
    image, masks = affine(record["image"], record["masks"], 0.0, 0.0)
    np.testing.assert_array_equal(image, record["image"])
    np.testing.assert_array_equal(masks, record["masks"])


def test_input_is_left_alone(rng):
    record = make_discs()
    image, masks = record["image"].copy(), record["masks"].copy()
    augment(record, Augmentation(), 64, rng)
    np.testing.assert_array_equal(record["image"], image)
    np.testing.assert_array_equal(record["masks"], masks)


def test_flip_twice_is_the_identity(rng):
    image, masks = rng.integers(0, 256, (5, 7, 3), np.uint8), rng.random((2, 5, 7)) < 0.5
    mirrored, mirrored_masks = flip(image, masks)
    np.testing.assert_array_equal(mirrored[:, 0], image[:, 6])
    np.testing.assert_array_equal(mirrored_masks[:, :, 0], masks[:, :, 6])
    np.testing.assert_array_equal(flip(mirrored, mirrored_masks)[0], image)


@pytest.mark.parametrize("rotation", [90.0, 180.0, -90.0])
def test_right_angles_are_exact(rng, rotation):
    image, masks = rng.integers(0, 256, (16, 16, 3), np.uint8), rng.random((3, 16, 16)) < 0.5
    turned, turned_masks = affine(image, masks, rotation, 0.0)
    quarters = -int(rotation // 90)  # rot90 turns counterclockwise, we turn clockwise
    # Pillow truncates where the map is exact but for rounding.
    np.testing.assert_allclose(turned.astype(int), np.rot90(image, quarters).astype(int), atol=1)
    np.testing.assert_array_equal(turned_masks, np.rot90(masks, quarters, axes=(1, 2)))


@pytest.mark.parametrize(("rotation", "shear"), [(20.0, 0.0), (0.0, 15.0), (-25.0, 20.0)])
def test_a_disc_moves_where_the_matrix_says(rotation, shear):
    y, x = np.mgrid[:200, :240]
    mask = np.hypot(x - 150, y - 70) < 15
    image = np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)
    _, moved = affine(image, mask[None], rotation, shear)
    rows, columns = np.nonzero(moved[0])
    center = np.array([120, 100])
    expected = center + affine_matrix(rotation, shear) @ (np.array([150.5, 70.5]) - center)
    # The centroid of some 700 pixels is known to a small fraction of a pixel.
    np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], expected, atol=0.15)
    # A shear keeps areas, and so does a rotation.
    assert abs(moved.sum() / mask.sum() - 1) < 0.03


def test_affine_matrix_has_torchvisions_closed_form():
    rotation, shear = 17.0, -11.0
    turn, slant = math.radians(rotation), math.radians(shear)
    expected = [
        [math.cos(turn), -math.cos(turn) * math.tan(slant) - math.sin(turn)],
        [math.sin(turn), -math.sin(turn) * math.tan(slant) + math.cos(turn)],
    ]
    np.testing.assert_allclose(affine_matrix(rotation, shear), expected, atol=1e-12)


def test_uncovered_pixels_get_the_fill_colour_and_no_object():
    image, masks = np.full((40, 40, 3), 255, np.uint8), np.ones((1, 40, 40), bool)
    turned, turned_masks = affine(image, masks, 25.0, 0.0)
    assert turned[0, 0].tolist() == list(FILL)
    assert not turned_masks[0, 0, 0]
    assert turned_masks[0, 20, 20]


def test_an_object_that_always_vanishes_keeps_the_image_unturned(rng):
    masks = np.zeros((2, 64, 256), bool)
    masks[0, 0, 0] = True  # a corner pixel leaves the image under every sizeable rotation
    masks[1, 20:40, 100:150] = True
    image = rng.integers(0, 256, (64, 256, 3), np.uint8)

    out, out_masks = random_affine(image, masks, 25.0, 0.0, Scripted([25.0, 0.0] * 8))
    np.testing.assert_array_equal(out, image)
    np.testing.assert_array_equal(out_masks, masks)


def test_a_lost_object_is_drawn_again(rng):
    masks = np.zeros((1, 64, 64), bool)
    masks[0, 0, 0] = True
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)

    script = Scripted([25.0, 0.0, 0.0, 0.0])
    _, out_masks = random_affine(image, masks, 25.0, 20.0, script)
    assert out_masks[0, 0, 0]
    assert script.values == []


def test_more_than_eight_overlapping_masks_survive():
    record = make_discs(64, 64, overlap=True)
    _, masks = resize(record["image"], record["masks"], 32)
    for before, after in zip(record["masks"], masks, strict=True):
        np.testing.assert_array_equal(after, np.asarray(Image.fromarray(before).resize((32, 32), 0)))


def test_no_masks_are_no_trouble(rng):
    record = Record(image=rng.integers(0, 256, (20, 30, 3), np.uint8), masks=np.zeros((0, 20, 30), bool), image_id="")
    assert augment(record, Augmentation(), 16, rng)["masks"].shape == (0, 16, 16)


def test_shrinking_is_antialiased_and_stretching_is_not_cropped():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    image, _ = resize(stripes, np.zeros((0, 64, 64), bool), 16)
    assert np.abs(image[:, 2:-2].astype(int) - 100).max() <= 2
    ramp = np.repeat(np.linspace(0, 255, 100, dtype=np.uint8)[None, :, None], 20, axis=0).repeat(3, axis=2)
    image, _ = resize(ramp, np.zeros((0, 20, 100), bool), 50)
    assert image[0, 0, 0] < 5
    assert image[0, -1, 0] > 250


def test_brightness_multiplies_and_clips():
    image = np.array([[[100, 200, 250]]], np.uint8)
    out = color_jitter(image, Jitter(brightness=0.1), Scripted([1.1, 1.0, 1.0]))
    np.testing.assert_allclose(out[0, 0].astype(int), [110, 220, 255], atol=1)


def test_contrast_pulls_from_the_mean_luminance():
    image = np.array([[[100] * 3, [200] * 3]], np.uint8)
    out = color_jitter(image, Jitter(contrast=0.2), Scripted([1.0, 1.2, 1.0]))
    np.testing.assert_allclose(out[0, :, 0].astype(int), [90, 210], atol=1)


def test_saturation_pulls_from_the_pixels_own_luminance():
    image = np.array([[[200, 100, 50]]], np.uint8)
    luminance = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    out = color_jitter(image, Jitter(saturation=0.2), Scripted([1.0, 1.0, 1.2]))
    np.testing.assert_allclose(out[0, 0], luminance + 1.2 * (image[0, 0] - luminance), atol=1.5)


def test_the_order_of_the_jitter_matters_and_is_random():
    image = np.random.default_rng(5).integers(0, 256, (16, 16, 3), np.uint8)
    jitter = Jitter(0.5, 0.5, 0.5)
    there, back = (color_jitter(image, jitter, Scripted([1.5] * 3, order)) for order in ([0, 1, 2], [2, 1, 0]))
    assert (there != back).any()
    drawn = {color_jitter(image, jitter, np.random.default_rng(seed)).tobytes() for seed in range(5)}
    assert len(drawn) == 5


def test_greyscale_has_equal_channels_and_the_right_luminance(rng):
    image = rng.integers(0, 256, (8, 8, 3), np.uint8)
    grey = greyscale(image)
    assert (grey == grey[..., :1]).all()
    np.testing.assert_allclose(grey[..., 0], image @ np.array([0.299, 0.587, 0.114]), atol=1)


@pytest.mark.parametrize(("setting", "probability"), [("flip", 0.5), ("greyscale", 0.05)])
def test_probabilities(setting, probability):
    image = np.array([[[250, 10, 10], [10, 10, 250]], [[250, 10, 10], [10, 10, 250]]], np.uint8)
    record = Record(image=image, masks=np.ones((1, 2, 2), bool), image_id="")
    off = {"flip": 0.0, "greyscale": 0.0, setting: probability}
    settings = Augmentation(rotation=0.0, shear=0.0, jitter=Jitter(), second_jitter=Jitter(), **off)
    rng = np.random.default_rng(1)
    draws = 2000
    changed = sum((augment(record, settings, 2, rng)["image"] != image).any() for _ in range(draws))
    assert abs(changed / draws - probability) < 5 * math.sqrt(probability * (1 - probability) / draws)
