import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ruac_jax.attacks.combined import RUACAttack
from ruac_jax.config import AttackConfig, Config, ModelConfig, OptimizerConfig, ScheduleConfig
from ruac_jax.errors import UserError
from ruac_jax.evaluation.studies.perturbations import load_attack, load_config, noise_attack, parts_of, untrained_attack
from ruac_jax.sam2.variants import variant
from ruac_jax.training.checkpoint import RunCheckpoints
from ruac_jax.training.state import init_state

D_MODEL = variant("nano").d_model
CONFIG = Config(model=ModelConfig("nano"), attack=AttackConfig(style_epsilon=0.7), schedule=ScheduleConfig(1, 0, 1))


def parameters(attack):
    return nnx.to_flat_state(nnx.state(attack, nnx.Param))


def save_run(folder, config, steps=()):
    """A run's folder as the training loop leaves it, but for the network; returns the attack of the last step."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    checkpoints = RunCheckpoints((folder / "checkpoints").resolve(), config, "frozen")
    attack = None
    for step in steps:
        attack = untrained_attack(config.attack, D_MODEL, seed=step)
        values = {"attack": nnx.to_pure_dict(nnx.state(attack, nnx.Param))}
        head = {"head": {"kernel": jnp.ones((2, 3))}}
        checkpoints.save(step, init_state({"attack": values, "head": head}, 0, config.optimizer), {"position": step})
    checkpoints.close()
    return attack


def test_noise_has_its_deviation_and_stays_in_range():
    image = jnp.zeros((1, 64, 64, 3)).at[0, 0].set(3.0).at[0, 1].set(-3.0)
    masks = jnp.zeros((1, 2, 64, 64), bool)
    first, again, other = (noise_attack(image, masks, jnp.uint32(number)) for number in (1, 1, 2))
    inner = np.asarray(first.image)[0, 2:]
    assert inner.mean() == pytest.approx(0, abs=4 * 0.03 / inner.size**0.5)
    assert inner.std() == pytest.approx(0.03, rel=0.03)
    assert np.abs(np.asarray(first.image)).max() == 3
    assert (np.asarray(first.image)[0, 0] == 3).mean() == pytest.approx(0.5, abs=0.2)
    np.testing.assert_array_equal(first.image, again.image)
    assert (np.asarray(first.image) != np.asarray(other.image)).any()
    assert not first.flow.any()
    assert first.masks is masks


def test_parts_are_the_halves_and_the_whole():
    attack = untrained_attack(AttackConfig(), D_MODEL)
    parts = parts_of(attack)
    assert list(parts) == ["style", "deformation", "style and deformation"]
    assert (parts["style"].graph, parts["style"].deformation) == (attack.graph, None)
    assert (parts["deformation"].style, parts["deformation"].graph) == (None, None)
    assert parts["style and deformation"] is attack
    only_style = untrained_attack(AttackConfig(graph=False, deformation=False), D_MODEL)
    assert list(parts_of(only_style)) == ["style"]


def test_untrained_kernels_have_unit_gain():
    attack = untrained_attack(AttackConfig(), D_MODEL)
    started = dict(parameters(RUACAttack.create(AttackConfig(), D_MODEL, rngs=nnx.Rngs(0))))
    for path, variable in parameters(attack):
        value, before = np.asarray(variable.get_value()), started[path].get_value()
        assert value.shape == before.shape
        if path[-1] == "kernel":
            inputs = value.size // value.shape[-1]
            assert value.std() == pytest.approx((2 / inputs) ** 0.5, rel=5 / value.size**0.5)
        else:
            np.testing.assert_array_equal(value, before)  # biases 0, scales 1, as in any fresh network
    other = untrained_attack(AttackConfig(), D_MODEL, seed=1)
    assert (np.asarray(other.style.out.kernel[...]) != np.asarray(attack.style.out.kernel[...])).any()


def test_a_run_s_newest_attack_comes_back(tmp_path):
    saved = save_run(tmp_path / "run", CONFIG, steps=(3, 12))
    found = load_attack(tmp_path / "run")
    assert found.settings.style_epsilon == 0.7
    for (path, variable), (other_path, other) in zip(parameters(saved), parameters(found), strict=True):
        assert path == other_path
        np.testing.assert_array_equal(variable.get_value(), other.get_value())
    assert load_config(tmp_path / "run") == CONFIG


def test_a_run_without_a_style_attack(tmp_path):
    config = dataclasses.replace(CONFIG, attack=AttackConfig(style=False, graph=False))
    save_run(tmp_path / "run", config, steps=(1,))
    assert list(parts_of(load_attack(tmp_path / "run"))) == ["deformation"]


def test_what_is_no_run_says_so(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: not the folder of a training run \(expected config.json"):
        load_attack(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not the folder of a training run"):
        load_config(tmp_path)


@pytest.mark.parametrize("change", [{"schedule": ScheduleConfig(1, 0, 0)}, {"optimizer": OptimizerConfig(attack=0.0)}])
def test_a_run_that_trained_no_attack_says_so(tmp_path, change):
    save_run(tmp_path / "run", dataclasses.replace(CONFIG, **change))
    with pytest.raises(UserError, match="trained no attack"):
        load_attack(tmp_path / "run")


def test_a_run_without_checkpoints_says_so(tmp_path):
    save_run(tmp_path / "run", CONFIG)
    with pytest.raises(UserError, match="no checkpoint in checkpoints/"):
        load_attack(tmp_path / "run")
