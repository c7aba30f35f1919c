import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ruac_jax.attacks.attack import clean_scene
from ruac_jax.attacks.pixel import GradientAttack, NoiseAttack, add_noise, ascend, attack_by_patch, paste
from tests.attacks.test_combined import memory_encoder, scene

__all__ = ["memory_encoder"]  # a fixture
KEY = jax.random.key(0)
SHAPE = (2, 40, 30, 3)


def image():
    return jnp.asarray(np.random.default_rng(0).uniform(-2, 2, SHAPE), jnp.float32)


def test_noise_has_its_deviation_and_stays_in_range():
    shift = np.asarray(add_noise(jnp.zeros((4, 64, 64, 3)), KEY))
    assert shift.std() == pytest.approx(0.03, rel=0.01)
    assert np.asarray(add_noise(jnp.full((1, 64, 64, 3), 3.0), KEY)).max() == 3


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_pgd_reaches_the_corner_of_its_ball_on_a_linear_loss(sign):
    slope = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    # From the start at most 0.03 away from the centre, five steps of 0.01 reach at least 0.02 in the right direction.
    shift = np.asarray(ascend(image(), lambda x: sign * (x * slope).sum(), KEY) - image())
    assert np.abs(shift).max() <= 0.03 + 1e-6
    assert (sign * np.sign(slope) * shift).min() >= 0.02 - 1e-6


def test_pgd_stays_in_the_colour_range():
    assert np.asarray(ascend(jnp.full(SHAPE, 2.99), jnp.sum, KEY)).max() == 3


def test_paste_puts_a_patch_at_its_corner():
    patch = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 5, 3)), jnp.float32)
    corner = np.array([[0, 25], [35, 3]])
    want = np.array(image())
    for b, (row, column) in enumerate(corner):
        want[b, row : row + 5, column : column + 5] = patch[b]
    np.testing.assert_allclose(paste(image(), patch, jnp.asarray(corner, jnp.float32)), want, atol=1e-6)


def test_the_patch_climbs_and_covers_a_square_only():
    slope = np.random.default_rng(1).normal(size=(1, 1, 1, 3)).astype(np.float32)
    got = np.asarray(attack_by_patch(image(), lambda x: (x * slope).sum(), KEY))
    changed = (got != np.asarray(image())).any(axis=-1)
    for b in range(2):
        rows, columns = np.flatnonzero(changed[b].any(axis=1)), np.flatnonzero(changed[b].any(axis=0))
        assert len(rows) == len(columns) == 3
        inside = got[b, rows[0] : rows[0] + 3, columns[0] : columns[0] + 3]
        # Five steps of 0.5 along the sign of the slope.
        np.testing.assert_allclose(inside, np.broadcast_to(2.5 * np.sign(slope[0]), inside.shape), atol=1e-6)


def test_places_of_the_patch_reach_every_border():
    blank = jnp.zeros((200, 5, 5, 3))  # patches of one pixel
    got = np.asarray(attack_by_patch(blank, jnp.sum, KEY)).any(axis=-1)
    np.testing.assert_array_equal(got.sum(axis=(1, 2)), 1)
    counts = got.sum(axis=0)
    assert counts.min() > 0  # 8 on average: one in 25 * exp(-8) seeds would miss a place
    assert counts.max() < 24


@pytest.mark.parametrize("attack", [NoiseAttack(), GradientAttack(patch=False), GradientAttack(patch=True)])
def test_no_gradient_comes_back_and_objects_stay(attack, memory_encoder):
    embedding, picture, masks, valid = scene()

    def total(x):
        return attack(clean_scene(embedding, x, masks, valid, memory_encoder, lambda y: (y**2).sum()), KEY).image.sum()

    assert not np.asarray(jax.grad(total)(picture)).any()
    got = attack(clean_scene(embedding, picture, masks, valid, memory_encoder, lambda y: (y**2).sum()), KEY)
    np.testing.assert_array_equal(got.masks, masks & valid[:, :, None, None])
    assert not got.flow.any()


def test_what_is_needed_must_be_given(memory_encoder):
    embedding, picture, masks, valid = scene()
    with pytest.raises(ValueError, match="needs a key"):
        NoiseAttack()(clean_scene(embedding, picture, masks, valid, memory_encoder), None)
    with pytest.raises(ValueError, match="needs a victim"):
        GradientAttack(patch=False)(clean_scene(embedding, picture, masks, valid, memory_encoder), KEY)
