import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from ruac_jax.training import step as step_module
from ruac_jax.training.objective import PHASES, DeviceBatch, gradients
from ruac_jax.training.state import init_state
from ruac_jax.training.step import make_step, replicated, shard_batch

SEGMENTATION, KL, ADVERSARIAL = PHASES


def mesh_of(devices: int) -> jax.sharding.Mesh:
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def take_step(parts, batch, config, phase, devices, accumulation=1, steps=1):
    graph, params, frozen = parts
    mesh = mesh_of(devices)
    state = jax.device_put(init_state(jax.tree.map(jnp.copy, params), 0, config.optimizer), replicated(mesh))
    frozen = jax.device_put(frozen, replicated(mesh))
    step = make_step(graph, phase, config, 10, mesh)
    for _ in range(steps):
        state, metrics = step(state, frozen, shard_batch(batch, accumulation, mesh))
    return jax.device_get(state), jax.device_get(metrics)


# What rounding alone does to this step: parameters changed by one part in ten million move the losses by 2e-6, the
# gradient's norm by up to 5e-4 and the first moments by 6e-4 (decoder), 5e-4 (head) and 4e-3 (attack, whose gradient
# comes through clips and kinks).
LOSSES, NORMS = 1e-5, 1e-3
MOMENTS = {"decoder": 1e-3, "head": 1e-3, "attack": 5e-3}


def assert_same_course(a, b):
    """Losses, norms and first moments (the update itself is a sign where a gradient is tiny) of two steps."""
    (state_a, metrics_a), (state_b, metrics_b) = a, b
    for name, value in metrics_a.items():
        rtol = NORMS if name.startswith("gradient_norm") else LOSSES
        np.testing.assert_allclose(metrics_b[name], value, rtol=rtol, atol=1e-6, err_msg=name)
    for group in state_a.optimizer:
        mu_a, mu_b = (jax.tree.leaves(s.optimizer[group][0].mu) for s in (state_a, state_b))
        scale = np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in mu_a))
        difference = np.sqrt(sum(((x - y).astype(np.float64) ** 2).sum() for x, y in zip(mu_a, mu_b, strict=True)))
        assert difference <= MOMENTS[group] * scale, group


@pytest.mark.slow
def test_eight_devices_take_the_step_of_one(parts, batch, config):
    one = take_step(parts, batch, config, ADVERSARIAL, devices=1)
    eight = take_step(parts, batch, config, ADVERSARIAL, devices=8)
    assert_same_course(one, eight)


def test_metrics_say_how_the_loss_is_made_up(parts, batch, config):
    state, metrics = take_step(parts, batch, config, KL, devices=8)
    weighted = sum(value for name, value in metrics.items() if name.startswith("weighted/"))
    np.testing.assert_allclose(weighted, metrics["loss"], rtol=1e-5)
    assert metrics["objects"] == batch.valid.sum()
    assert metrics["learning_rate/head"] == pytest.approx(1e-3)
    assert {"gradient_norm/decoder", "gradient_norm/head"} <= metrics.keys()
    assert "gradient_norm/attack" not in metrics
    assert state.step == 1


def test_each_phase_is_compiled_once(parts, batch, config, monkeypatch):
    traces = []
    original = gradients

    def counted(*args):
        traces.append(1)
        return original(*args)

    monkeypatch.setattr(step_module, "gradients", counted)
    take_step(parts, batch, config, SEGMENTATION, devices=1, steps=3)
    assert len(traces) == 1


def test_micro_batches_share_one_normaliser(parts, batch, config):
    """Objects are spread unevenly over micro-batches; the loss is still the mean over all of them."""
    graph, params, frozen = parts
    sums = []
    for index in range(2):
        half = DeviceBatch(*(jnp.asarray(x[4 * index : 4 * index + 4]) for x in batch))
        key = jax.random.fold_in(jax.random.fold_in(jax.random.PRNGKey(0), 0), index)
        _, channels, _ = gradients(graph, params, frozen, half, key, SEGMENTATION, config)
        sums.append(float(channels.main))
    assert batch.valid[:4].sum() != batch.valid[4:].sum()
    _, metrics = take_step(parts, batch, config, SEGMENTATION, devices=1, accumulation=2)
    np.testing.assert_allclose(metrics["loss"], sum(sums) / batch.valid.sum(), rtol=1e-5)


def test_a_nonfinite_step_is_skipped_and_counted(parts, batch, config):
    graph, params, frozen = parts
    broken = jax.tree.map(jnp.copy, params)
    broken["head"] = jax.tree.map(lambda x: x * jnp.nan, broken["head"])
    state, metrics = take_step((graph, broken, frozen), batch, config, SEGMENTATION, devices=1, steps=2)
    assert (state.skipped, state.first_skipped, state.last_skipped, state.step) == (2, 0, 1, 2)
    assert metrics["finite"] == 0
    jax.tree.map(np.testing.assert_array_equal, state.params["decoder"], jax.device_get(params["decoder"]))


@pytest.mark.slow
def test_the_compiled_step_scatters_no_floats(parts, batch, config):
    graph, params, frozen = parts
    mesh = mesh_of(1)
    state = init_state(params, 0, config.optimizer)
    config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, routing="split"))
    step = make_step(graph, ADVERSARIAL, config, 10, mesh)
    lowered = step.lower(state, frozen, shard_batch(batch, 1, mesh))
    found = re.findall(r"stablehlo\.scatter[^\n]*", lowered.as_text())
    assert found == []
    compiled = re.findall(r"= (f\d+|bf16)\[[^\n]* scatter\(", lowered.compile().as_text())
    assert compiled == []


@pytest.mark.slow
def test_the_average_follows_all_groups_but_the_attack(parts, batch, config):
    config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, average_decay=0.6))
    states = [take_step(parts, batch, config, SEGMENTATION, devices=1, steps=n)[0] for n in (1, 2, 3)]
    assert states[2].average.keys() == {"decoder", "head"}
    for group, average in states[2].average.items():
        first, second, third = (state.params[group] for state in states)
        expected = jax.tree.map(lambda a, b, c: 0.6 * (a + b) / 2 + 0.4 * c, first, second, third)
        jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-7), average, expected)
