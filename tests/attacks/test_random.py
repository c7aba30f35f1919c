import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ruac_jax.attacks.attack import clean_scene
from ruac_jax.attacks.random import RandomAttack, random_flow, random_shift
from ruac_jax.config import AttackConfig
from tests.attacks.test_combined import SIZE, memory_encoder, scene

__all__ = ["memory_encoder"]  # a fixture
SETTINGS = AttackConfig(kind="random", style_epsilon=0.5, flow_epsilon=0.15, random_style=0.8, random_flow=0.5)
KEY = jax.random.key(3)


@pytest.mark.parametrize("size", [0.2, 0.5, 0.85])
def test_shifts_have_the_mean_size_and_a_beta_density(size):
    shift = np.asarray(random_shift(KEY, (40000,), 0.5, size))
    assert np.abs(shift).mean() == pytest.approx(0.5 * size, abs=0.004)
    assert shift.mean() == pytest.approx(0, abs=0.008)
    a = size / (1 - size)  # Beta(a, 1) has the mean a / (a + 1)
    assert stats.kstest(np.abs(shift) / 0.5, stats.beta(a, 1).cdf).pvalue > 1e-3


def test_flow_has_its_length_stays_in_bounds_and_moves_no_object_as_a_whole():
    _, _, masks, valid = scene()
    masks = masks & valid[:, :, None, None]
    flow = np.asarray(random_flow(KEY, masks, (SIZE // 16, SIZE // 16), 4.0, 1.5))
    assert np.abs(flow).max() <= 8.0
    for b, k in np.ndindex(2, 3):
        own = flow[b, k][np.asarray(masks[b, k])]
        if not len(own):
            assert not flow[b, k].any()
            continue
        assert np.linalg.norm(own, axis=1).mean() == pytest.approx(1.5, rel=1e-4)
        assert np.linalg.norm(own.mean(axis=0)) < 0.5  # centred on the coarse grid, where the objects have soft edges


def test_an_attack_follows_from_its_key_and_needs_one(memory_encoder):
    inputs = scene()
    attack = RandomAttack(SETTINGS)
    one, again, other = (attack(clean_scene(*inputs, memory_encoder), key) for key in (KEY, KEY, jax.random.key(4)))
    np.testing.assert_array_equal(one.image, again.image)
    assert np.abs(one.image - other.image).max() > 0.1
    assert np.abs(one.flow).max() > 0.1
    assert 0.7 < float(one.metrics["style_shift"]) / (0.5 * 0.8) < 1.2
    with pytest.raises(ValueError, match="key"):
        attack(clean_scene(*inputs, memory_encoder), None)


def test_halves_can_be_left_out(memory_encoder):
    inputs = scene()
    still = RandomAttack(dataclasses.replace(SETTINGS, deformation=False))(clean_scene(*inputs, memory_encoder), KEY)
    assert not still.flow.any()
    np.testing.assert_array_equal(still.masks, inputs[2] & inputs[3][:, :, None, None])
    plain = RandomAttack(dataclasses.replace(SETTINGS, style=False))(clean_scene(*inputs, memory_encoder), KEY)
    assert plain.metrics.keys() == {"flow_px", "flow_px_max"}
    outside = ~jnp.any(plain.flow != 0, axis=(1, 4))
    np.testing.assert_array_equal(np.asarray(plain.image)[outside], np.asarray(inputs[1])[outside])
