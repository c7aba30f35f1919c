import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ruac_jax.attacks.composition import Proposal, apply_proposal, restyle, style_slots
from ruac_jax.config import AttackConfig
from tests.attacks.test_combined import scene

SETTINGS = AttackConfig(style_epsilon=0.5)


def inputs():
    _, image, masks, valid = scene()
    return image, masks & valid[:, :, None, None]


STYLED = {
    "image": [[True], [True]],
    "objects": [[True, True, False, False], [True, False, False, False]],
    "all": [[True, True, False, True], [True, False, False, True]],
}


@pytest.mark.parametrize("scope", STYLED)
def test_a_scope_says_which_slots_are_styled(scope):
    slots = style_slots(*inputs(), scope, None)
    np.testing.assert_array_equal(slots.styled, STYLED[scope])


def test_single_styles_one_object_drawn_evenly():
    image, masks = inputs()
    drawn = np.stack(
        [style_slots(image, masks, "single", key).styled for key in jax.random.split(jax.random.key(0), 200)]
    )
    assert (drawn.sum(axis=2) == 1).all()
    np.testing.assert_array_equal(drawn[:, 1].mean(axis=0), [1, 0, 0, 0])
    assert abs(drawn[:, 0, 0].mean() - 0.5) < 0.12  # 3.4 standard deviations of 200 fair draws
    assert drawn[:, 0, :2].any(axis=1).all()
    first = style_slots(image, masks, "single", None).styled
    np.testing.assert_array_equal(first, [[True, False, False, False]] * 2)


@pytest.mark.parametrize("scope", ["image", "single", "objects", "all"])
def test_pixels_outside_the_scope_keep_their_colours(scope):
    image, masks = inputs()
    slots = style_slots(image, masks, scope, None)
    delta = jnp.full((2, slots.masks.shape[1], 6), 0.3)
    got = apply_proposal(image, masks, Proposal(restyle(delta, slots, SETTINGS), None))
    styled = np.take_along_axis(np.asarray(slots.styled)[:, :, None, None], np.asarray(slots.owner)[:, None], axis=1)[
        :, 0
    ]
    np.testing.assert_array_equal(np.asarray(got.image)[~styled], np.asarray(image)[~styled])
    assert (np.asarray(got.image != image).any(axis=-1)[styled]).mean() > 0.99
    assert got.metrics["style_shift"] == pytest.approx(0.3, abs=1e-6)


def test_a_whole_image_gets_the_mean_and_deviation_asked_for():
    image, masks = inputs()
    image = np.asarray(image) / 3  # far from the clip
    slots = style_slots(jnp.asarray(image), masks, "image", None)
    delta = jnp.tile(jnp.asarray([0.1, -0.2, 0.3, 0.05, -0.1, 0.15]), (2, 1, 1))
    got = np.asarray(apply_proposal(jnp.asarray(image), masks, Proposal(restyle(delta, slots, SETTINGS), None)).image)
    np.testing.assert_allclose(got.mean(axis=(1, 2)), image.mean(axis=(1, 2)) + np.float32([0.1, -0.2, 0.3]), atol=1e-5)
    np.testing.assert_allclose(got.std(axis=(1, 2)), image.std(axis=(1, 2)) + np.float32([0.05, -0.1, 0.15]), atol=1e-5)


def test_the_budget_bounds_a_shift():
    image, masks = inputs()
    slots = style_slots(image, masks, "all", None)
    style = restyle(jnp.full((2, 4, 6), 9.0), slots, dataclasses.replace(SETTINGS, style_epsilon=0.2))
    assert float(jnp.abs(style.delta).max()) == pytest.approx(0.2)
    np.testing.assert_array_equal(style.saturated.all(axis=-1), slots.styled)
