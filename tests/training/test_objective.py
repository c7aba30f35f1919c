import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ruac_jax.training.objective import PHASES, DeviceBatch, gradients, objective
from ruac_jax.training.system import merge_system

SEGMENTATION, KL, ADVERSARIAL = PHASES
KEY = jax.random.key(3)


def differentiate(parts, batch, config, phase, key=KEY):
    graph, params, frozen = parts
    device_batch = DeviceBatch(*(jnp.asarray(x) for x in batch))
    run = jax.jit(lambda p, f, b: gradients(graph, p, f, b, key, phase, config))
    return jax.device_get(run(params, frozen, device_batch))


def norm(tree) -> float:
    return float(np.sqrt(sum((np.asarray(x, np.float64) ** 2).sum() for x in jax.tree.leaves(tree))))


def with_loss(config, **changes):
    return dataclasses.replace(config, loss=dataclasses.replace(config.loss, **changes))


@pytest.fixture(scope="module")
def adversarial(parts, batch, config):
    return differentiate(parts, batch, config, ADVERSARIAL)


def test_trainable_groups_and_what_stays_frozen(parts):
    _, params, frozen = parts
    assert sorted(params) == ["attack", "decoder", "head"]
    assert set(frozen["model"]) == {"image_encoder", "memory_encoder", "sam_prompt_encoder"}
    assert set(frozen["model"]["sam_prompt_encoder"]) == {"pe_layer"}
    assert set(params["decoder"]["model"]) == {"sam_prompt_encoder", "sam_mask_decoder", "no_mem_embed"}


@pytest.fixture(scope="module")
def segmentation(parts, batch, config):
    return differentiate(parts, batch, config, SEGMENTATION)


def test_phases_add_their_terms(parts, batch, config, segmentation, adversarial):
    """Clean figures are those of the same draws in every phase."""
    _, plain, sums = segmentation
    _, channels, full = adversarial
    np.testing.assert_allclose(plain.main, sums["clean/segmentation"], rtol=1e-6)
    np.testing.assert_allclose(full["clean/segmentation"], sums["clean/segmentation"], rtol=1e-5)
    weight = 0.05 * 1e-3
    calibration = full["adversarial/calibration_error"] + full["adversarial/calibration_uncertainty"]
    harder = full["adversarial/segmentation"] + weight * full["adversarial/kl"] + 0.1 * calibration
    expected = 0.8 * full["clean/segmentation"] + weight * full["clean/kl"] + 0.2 * harder
    np.testing.assert_allclose(channels.main, expected, rtol=1e-5)


def test_the_kl_phase_adds_the_weighted_divergence(parts, batch, config, segmentation):
    _, plain, sums = segmentation
    _, with_kl, _ = differentiate(parts, batch, config, KL)
    np.testing.assert_allclose(with_kl.main, plain.main + 0.05 * 1e-3 * sums["clean/kl"], rtol=1e-5)


def test_empty_slots_count_for_nothing(parts, batch, config, segmentation):
    """What lies in the image data of an empty slot must not matter."""
    masks = batch.masks.copy()
    masks[~batch.valid] = True
    _, other, _ = differentiate(parts, batch._replace(masks=masks), config, SEGMENTATION)
    np.testing.assert_allclose(other.main, segmentation[1].main, rtol=1e-6)


@pytest.mark.slow
def test_the_attack_ascends_and_the_network_descends(parts, batch, config, adversarial, monkeypatch):
    """Against the same objective without gradient reversal: the attack's gradient turns round, nothing else does."""
    from ruac_jax.attacks import composition, deformation

    for module in (composition, deformation):
        monkeypatch.setattr(module, "reverse_gradient", lambda x: x)
    straight, _, _ = differentiate(parts, batch, config, ADVERSARIAL)
    reversed_, _, _ = adversarial
    assert norm(reversed_["attack"]) > 1e-4
    for group, sign in (("attack", -1.0), ("decoder", 1.0), ("head", 1.0)):
        scale = norm(straight[group])
        difference = jax.tree.map(lambda a, b, sign=sign: a - sign * b, reversed_[group], straight[group])
        assert norm(difference) <= 1e-4 * scale, group


def test_every_part_of_the_attack_receives_a_gradient(adversarial):
    grads, _, _ = adversarial
    for part, tree in grads["attack"]["attack"].items():
        assert norm(tree) > 0, part


@pytest.mark.slow
def test_following_the_attacks_gradient_raises_the_adversarial_loss(parts, batch, config, adversarial):
    graph, params, frozen = parts
    grads, _, sums = adversarial
    device_batch = DeviceBatch(*(jnp.asarray(x) for x in batch))
    rate = 0.02 / norm(grads["attack"])
    attacked = dict(params)
    attacked["attack"] = jax.tree.map(lambda p, g: p - rate * g, params["attack"], grads["attack"])
    moved = jax.jit(lambda p, f, b: objective(merge_system(graph, p, f), b, KEY, ADVERSARIAL, config)[1])(
        attacked, frozen, device_batch
    )
    assert float(moved["adversarial/segmentation"]) > float(sums["adversarial/segmentation"])
    np.testing.assert_allclose(moved["clean/segmentation"], sums["clean/segmentation"], rtol=1e-5)


@pytest.mark.slow
def test_split_routing_sends_each_channel_to_its_own(parts, batch, config, adversarial):
    joint, _, _ = adversarial
    split, channels, sums = differentiate(parts, batch, with_loss(config, routing="split"), ADVERSARIAL)
    none, _, _ = differentiate(parts, batch, with_loss(config, calibration=0.0), ADVERSARIAL)
    np.testing.assert_allclose(channels.error, 0.2 * 0.1 * sums["adversarial/calibration_error"], rtol=1e-5)

    def difference(a, b, group):
        return norm(jax.tree.map(lambda x, y: x - y, a[group], b[group])) / norm(none[group])

    assert difference(split, none, "decoder") < 1e-5  # the calibration loss does not reach the decoder
    assert difference(joint, none, "decoder") > 1e-5
    assert difference(split, none, "head") > 1e-5
    assert difference(split, none, "attack") > 1e-6


def test_bfloat16_agrees_with_float32(parts, batch, config, segmentation):
    rough = dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, compute_dtype="bfloat16"))
    grads, channels, _ = differentiate(parts, batch, rough, SEGMENTATION)
    _, exact, _ = segmentation
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(grads))
    np.testing.assert_allclose(channels.main, exact.main, rtol=0.05)


def test_rematerialising_changes_nothing_but_memory(parts, batch, config, segmentation):
    grads, channels, _ = segmentation
    lean = dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, rematerialize=True))
    again, lean_channels, _ = differentiate(parts, batch, lean, SEGMENTATION)
    np.testing.assert_allclose(lean_channels.main, channels.main, rtol=1e-6)
    for group in grads:
        scale = norm(grads[group])
        assert norm(jax.tree.map(lambda a, b: a - b, again[group], grads[group])) <= 1e-4 * scale
