import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ruac_jax.config import OptimizerConfig
from ruac_jax.training.optimizer import apply_gradients, init_optimizer, learning_rate, update_average

SETTINGS = OptimizerConfig(decoder=1e-2, head=3e-2, attack=5e-2, weight_decay=0.1, clip_norm=0.5)


def tree(rng, scale=1.0):
    def part():
        return {
            "kernel": jnp.asarray(scale * rng.normal(size=(3, 2)), jnp.float32),
            "bias": jnp.asarray(scale * rng.normal(size=2), jnp.float32),
            "scale": jnp.asarray(scale * rng.normal(size=2), jnp.float32),
        }

    return {"decoder": part(), "head": part(), "attack": part()}


def test_cosine_ends_at_its_final_fraction():
    rates = [float(learning_rate(2.0, jnp.asarray(s), 100, OptimizerConfig())) for s in (0, 50, 100)]
    np.testing.assert_allclose(rates, [2.0, 1.1, 0.2], rtol=1e-6)


def test_warmup_rises_linearly():
    settings = OptimizerConfig(warmup_steps=10)
    rates = [float(learning_rate(1.0, jnp.asarray(s), 100, settings)) for s in (0, 5, 10)]
    np.testing.assert_allclose(rates, [0.0, 0.5, 1.0], atol=1e-6)


def test_steps_equal_adamw_written_out(rng):
    params, state = tree(rng), None
    expected = jax.tree.map(np.asarray, params)
    state = init_optimizer(params, SETTINGS)
    moments = jax.tree.map(lambda p: (np.zeros_like(p), np.zeros_like(p)), expected)
    for step in range(4):
        grads = tree(rng)
        norm = np.sqrt(sum((np.asarray(g) ** 2).sum() for g in jax.tree.leaves(grads)))
        shrink = min(1.0, 0.5 / (norm + 1e-6))
        update = apply_gradients(grads, state, params, jnp.asarray(step), list(params), 10, SETTINGS)
        params, state = update.params, update.state
        for group, peak in (("decoder", 1e-2), ("head", 3e-2), ("attack", 5e-2)):
            rate = peak * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * step / 10)))
            for name in ("kernel", "bias", "scale"):
                g = np.asarray(grads[group][name]) * shrink
                m, v = moments[group][name]
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                moments[group][name] = (m, v)
                direction = (m / (1 - 0.9 ** (step + 1))) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
                decay = 0.1 if name == "kernel" else 0.0
                p = expected[group][name]
                expected[group][name] = p - rate * (direction + decay * p)
    for group, names in expected.items():
        for name, value in names.items():
            np.testing.assert_allclose(params[group][name], value, rtol=2e-5, atol=2e-6)


def test_idle_group_neither_moves_nor_ages(rng):
    params = tree(rng)
    state = init_optimizer(params, SETTINGS)
    update = apply_gradients(tree(rng), state, params, jnp.asarray(0), ["decoder", "head"], 10, SETTINGS)
    jax.tree.map(np.testing.assert_array_equal, update.params["attack"], params["attack"])
    jax.tree.map(np.testing.assert_array_equal, update.state["attack"], state["attack"])
    assert "attack" not in update.norms
    assert not np.array_equal(update.params["head"]["kernel"], params["head"]["kernel"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_with_a_nonfinite_gradient_is_not_taken(rng, bad):
    params, grads = tree(rng), tree(rng)
    state = init_optimizer(params, SETTINGS)
    grads["head"]["bias"] = grads["head"]["bias"].at[0].set(bad)
    update = apply_gradients(grads, state, params, jnp.asarray(0), list(params), 10, SETTINGS)
    assert not bool(update.finite)
    jax.tree.map(np.testing.assert_array_equal, update.params, params)
    jax.tree.map(np.testing.assert_array_equal, update.state, state)


def test_attack_can_be_clipped_apart(rng):
    """The direction of Adam hides a common factor, so the moments are compared."""
    params, grads = tree(rng), tree(rng)
    grads["attack"] = jax.tree.map(lambda g: 1e3 * g, grads["attack"])
    together = apply_gradients(
        grads, init_optimizer(params, SETTINGS), params, jnp.asarray(0), list(params), 10, SETTINGS
    )
    apart_settings = OptimizerConfig(**{**vars(SETTINGS), "clip_attack_apart": True})
    apart = apply_gradients(
        grads, init_optimizer(params, SETTINGS), params, jnp.asarray(0), list(params), 10, apart_settings
    )
    rest = jnp.sqrt(optax.tree.norm(grads["decoder"]) ** 2 + optax.tree.norm(grads["head"]) ** 2)
    expected = 0.1 * np.asarray(grads["head"]["kernel"]) * 0.5 / float(rest)
    np.testing.assert_allclose(apart.state["head"][0].mu["kernel"], expected, rtol=1e-5)
    assert float(jnp.abs(together.state["head"][0].mu["kernel"]).max()) < 1e-2 * np.abs(expected).max()


def test_the_average_is_the_mean_until_an_exponential_one_reaches_further(rng):
    course = rng.normal(size=(30, 4)).astype(np.float32)
    average, expected = {"head": {"kernel": jnp.zeros(4)}}, np.zeros(4)
    for step, values in enumerate(course):
        params = {"head": {"kernel": jnp.asarray(values)}, "attack": {"kernel": jnp.ones(4)}}
        average = update_average(average, params, jnp.asarray(step), 0.9)
        expected = course[: step + 1].mean(axis=0, dtype=np.float64) if step < 9 else 0.9 * expected + 0.1 * values
        assert average.keys() == {"head"}
        np.testing.assert_allclose(average["head"]["kernel"], expected, atol=1e-6)
