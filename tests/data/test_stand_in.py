import numpy as np
import pytest

from ruac_jax.data.shapes import ShapesSource
from ruac_jax.data.stand_in import stand_in_stylisation, style_of
from ruac_jax.data.style_prompts import GENERIC, TARGETED

PROMPTS = [*GENERIC.values(), *TARGETED.values()]


def mean_color(image):
    return image.reshape(-1, 3).astype(float).mean(axis=0)


def test_the_same_arguments_give_the_same_pixels_and_others_do_not():
    image = ShapesSource("source")[0]["image"]
    one = stand_in_stylisation(image, "rain", 5, 0.5)
    assert one.shape == image.shape
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, stand_in_stylisation(image.copy(), "rain", 5, 0.5))
    for other in (("rain", 6, 0.5), ("snow", 5, 0.5), ("rain", 5, 0.8)):
        assert (stand_in_stylisation(image, *other) != one).any()


def test_a_style_follows_from_the_text_alone():
    assert style_of("rain") == style_of("rain")
    assert len({style_of(prompt) for prompt in PROMPTS}) == len(PROMPTS)


@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (17, 16), (300, 200)])
def test_any_size(rng, shape):
    for image in (rng.integers(0, 256, (*shape, 3), dtype=np.uint8), np.full((*shape, 3), 7, np.uint8)):
        for prompt in PROMPTS[:6]:
            assert stand_in_stylisation(image, prompt, 0, 1.0).shape == image.shape


def test_styles_differ_more_than_the_copies_within_one():
    source = ShapesSource("source", num_images=6)
    colors = np.array(
        [[mean_color(stand_in_stylisation(source[i]["image"], p, i, 0.5)) for i in range(6)] for p in PROMPTS]
    )
    shift = colors - np.array([mean_color(source[i]["image"]) for i in range(6)])
    between = shift.mean(axis=1).std(axis=0).mean()
    within = shift.std(axis=1).mean()
    assert between > 0.5 * within
    assert np.abs(shift.mean(axis=1)).max(axis=1).min() > 4  # every style moves the colours


def test_strength_is_how_far_a_copy_goes():
    image = ShapesSource("source")[1]["image"].astype(int)
    for prompt in PROMPTS:
        near, far = (
            np.abs(stand_in_stylisation(image.astype(np.uint8), prompt, 0, s) - image).mean() for s in (0.1, 1.0)
        )
        assert 0 < near < 0.6 * far


def test_objects_keep_their_place_and_stand_out():
    """Across an object's edge the copy still changes: objects stay recognisable, and fit their masks."""
    source = ShapesSource("source", num_images=8)
    for prompt in PROMPTS:
        kept = []
        for index in range(8):
            record = source[index]
            copy = stand_in_stylisation(record["image"], prompt, index, 0.5)
            objects = record["masks"].any(axis=0)
            contrast = [
                np.linalg.norm(mean_color(x[objects][None]) - mean_color(x[~objects][None]))
                for x in (record["image"], copy)
            ]
            kept.append(contrast[1] / contrast[0])
        assert np.min(kept) > 0.3
        assert np.median(kept) > 0.5
