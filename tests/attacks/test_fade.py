import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from ruac_jax.attacks.attack import clean_scene
from ruac_jax.attacks.combined import RUACAttack
from ruac_jax.attacks.composition import apply_proposal
from ruac_jax.attacks.controls import ControlAttack
from ruac_jax.attacks.fade import Fade, apply_fade, random_fade
from ruac_jax.attacks.random import RandomAttack
from ruac_jax.config import AttackConfig
from tests.attacks.test_combined import D_MODEL, make, memory_encoder, scene

__all__ = ["memory_encoder"]  # a fixture
FADING = AttackConfig(lowest_contrast=0.2)
KEY = jax.random.key(4)


def test_contrast_and_level_are_drawn_evenly():
    drawn = random_fade(KEY, 20000, 0.2)
    assert stats.kstest(np.asarray(drawn.contrast), stats.uniform(0.2, 0.8).cdf).pvalue > 1e-3
    assert stats.kstest(np.asarray(drawn.level), stats.uniform(-2, 4).cdf).pvalue > 1e-3
    assert abs(stats.pearsonr(drawn.contrast, drawn.level).statistic) < 0.03


def test_an_image_keeps_its_share_of_contrast_about_its_level():
    image = jax.random.uniform(KEY, (3, 5, 4, 3), minval=-3, maxval=3)
    fade = Fade(jnp.asarray([0.1, 0.5, 1.0]), jnp.asarray([-2.0, 1.5, 0.7]))
    faded = np.asarray(apply_fade(image, fade))
    for i, (contrast, level) in enumerate(zip([0.1, 0.5, 1.0], [-2.0, 1.5, 0.7], strict=True)):
        np.testing.assert_allclose(faded[i], contrast * np.asarray(image[i]) + (1 - contrast) * level, atol=1e-6)
    assert np.abs(faded).max() <= 3


@pytest.mark.parametrize("kind", ["learned", "random"])
def test_an_attack_ends_with_fading_and_is_otherwise_the_same(kind, memory_encoder):
    clean = clean_scene(*scene(), memory_encoder)

    def attack(settings):
        if kind == "random":
            return RandomAttack(settings)(clean, KEY)
        return make(dataclasses.replace(settings, random_start=0.5))(clean, KEY)

    plain, faded = attack(dataclasses.replace(FADING, lowest_contrast=1.0)), attack(FADING)
    fade = random_fade(KEY, 2, 0.2)
    np.testing.assert_allclose(faded.image, apply_fade(plain.image, fade), atol=1e-6)
    np.testing.assert_array_equal(faded.masks, plain.masks)
    np.testing.assert_array_equal(faded.flow, plain.flow)
    np.testing.assert_allclose(faded.metrics["contrast"], np.mean(fade.contrast), rtol=1e-6)
    assert faded.metrics.keys() - plain.metrics.keys() == {"contrast"}


def test_a_learned_attack_without_a_key_does_not_fade(memory_encoder):
    assert make(FADING).propose(clean_scene(*scene(), memory_encoder), None).fade is None


def test_controls_fade_as_the_attack_does(memory_encoder):
    clean, attack = clean_scene(*scene(), memory_encoder), make(FADING)
    contrasts = [ControlAttack(attack, control)(clean, KEY).metrics["contrast"] for control in ("signs", "uniform")]
    key = jax.random.split(KEY, 3)[0]  # what the control hands to the learned attack
    np.testing.assert_allclose(contrasts, np.mean(random_fade(key, 2, 0.2).contrast), rtol=1e-6)


def test_a_deformation_alone_and_nothing_at_all_can_be_faded(memory_encoder):
    clean = clean_scene(*scene(), memory_encoder)
    alone = dataclasses.replace(FADING, style=False, graph=False)
    attack = RUACAttack.create(alone, D_MODEL, rngs=nnx.Rngs(0))
    assert "contrast" in attack(clean, KEY).metrics
    nothing = RandomAttack(dataclasses.replace(alone, deformation=False))(clean, KEY)
    fade = random_fade(KEY, 2, 0.2)
    np.testing.assert_allclose(nothing.image, apply_fade(clean.image, fade), atol=1e-6)
    np.testing.assert_array_equal(nothing.masks, clean.masks)


def test_the_gradient_to_the_style_is_scaled_by_the_contrast(memory_encoder):
    clean, attack = clean_scene(*scene(), memory_encoder), make(dataclasses.replace(FADING, deformation=False))
    proposal = attack.propose(clean, None)

    def gradient(fade):
        def loss(delta):
            style = proposal.style._replace(delta=delta)
            return apply_proposal(clean.image, clean.masks, proposal._replace(style=style, fade=fade)).image[0].sum()

        return np.asarray(jax.grad(loss)(proposal.style.delta))

    whole, quarter = gradient(None), gradient(Fade(jnp.asarray([0.25, 1.0]), jnp.zeros(2)))
    assert np.abs(whole).max() > 1
    np.testing.assert_allclose(quarter, 0.25 * whole, rtol=1e-5, atol=1e-5)
