import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ruac_jax.attacks.style import StyleAttacker, StyleGraph, limit_delta
from ruac_jax.functional.adain import SlotStatistics


def count(module):
    return sum(x.size for x in jax.tree.leaves(nnx.state(module, nnx.Param)))


def statistics(seed=0, shape=(2, 4, 3)):
    rng = np.random.default_rng(seed)
    mean, std = rng.uniform(-2, 2, shape), rng.uniform(0.01, 1.5, shape)
    std[0, 0, 0] = 0.05  # below the floor
    return SlotStatistics(jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32))


def randomise(module, rng, scale=1.0):
    state = nnx.state(module, nnx.Param)
    nnx.update(module, jax.tree.map(lambda x: jnp.asarray(scale * rng.normal(size=x.shape), x.dtype), state))
    return module


def numpy_norm(x, norm):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])


def numpy_linear(x, layer):
    return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def test_sizes_are_the_published_ones():
    assert count(StyleAttacker(256, rngs=nnx.Rngs(0))) == 33_926
    assert count(StyleGraph(256, rngs=nnx.Rngs(0))) == 33_928


def test_initial_weights_are_small_and_biases_zero():
    for module in (StyleAttacker(256, rngs=nnx.Rngs(0)), StyleGraph(256, rngs=nnx.Rngs(1))):
        for path, leaf in nnx.to_flat_state(nnx.state(module, nnx.Param)):
            value = np.asarray(leaf[...])
            if path[-1] == "kernel":
                assert abs(value.std() / 0.01 - 1) < 0.25  # 72 draws in the smallest
            else:
                assert (value == (1.0 if path[-1] == "scale" else 0.0)).all()


@pytest.mark.parametrize("epsilon", [0.3, 1.0])
def test_proposal_follows_the_published_formula(rng, epsilon):
    attacker, nodes, before = (
        randomise(StyleAttacker(8, rngs=nnx.Rngs(0)), rng, 0.3),
        rng.normal(size=(2, 4, 8)),
        statistics(),
    )
    got = attacker(jnp.asarray(nodes, jnp.float32), before, epsilon)
    raw = numpy_linear(np.maximum(numpy_norm(numpy_linear(nodes, attacker.hidden), attacker.norm), 0), attacker.out)
    mean, std = (np.asarray(a, np.float64) for a in before)
    relative = 2 / (1 + np.exp(-raw[..., :3])) - 1
    styled_mean = mean * (1 + 0.2 * relative) + epsilon * np.tanh(raw[..., 3:])
    styled_std = np.maximum(std * (1 + 0.5 * relative), np.minimum(std, 0.1))
    np.testing.assert_allclose(got[..., :3], styled_mean - mean, atol=1e-5)
    np.testing.assert_allclose(got[..., 3:], styled_std - std, atol=1e-5)


def test_networks_with_zero_output_change_nothing(rng):
    attacker, graph = StyleAttacker(8, rngs=nnx.Rngs(0)), StyleGraph(8, rngs=nnx.Rngs(0))
    for last in (attacker.out, graph.second):
        last.kernel[...] = jnp.zeros_like(last.kernel[...])
    nodes = jnp.asarray(rng.normal(size=(2, 4, 8)), jnp.float32)
    delta = attacker(nodes, statistics(), 0.3)
    np.testing.assert_array_equal(delta, np.zeros((2, 4, 6)))
    delta = jnp.asarray(rng.normal(size=(2, 4, 6)), jnp.float32)
    np.testing.assert_array_equal(graph(delta, nodes, jnp.full((2, 4, 4), 0.25), None), delta)


def test_graph_network_equals_numpy(rng):
    graph = randomise(StyleGraph(8, rngs=nnx.Rngs(0)), rng)
    delta, nodes = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 4, 8))
    links = rng.uniform(size=(2, 4, 4))
    links /= links.sum(axis=-1, keepdims=True)
    projected = numpy_linear(np.maximum(numpy_linear(nodes, graph.project_hidden), 0), graph.project_out)
    x = links @ numpy_linear(np.concatenate([delta, projected], axis=-1), graph.first)
    x = np.maximum(numpy_norm(x, graph.norm), 0)
    want = delta + 0.1 * (links @ numpy_linear(x, graph.second))
    got = graph(*(jnp.asarray(a, jnp.float32) for a in (delta, nodes, links)), None)
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)


def test_dropout_is_unbiased_and_follows_its_key(rng):
    graph = randomise(StyleGraph(8, rngs=nnx.Rngs(0)), rng)
    inputs = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((1, 4, 6), (1, 4, 8))]
    inputs.append(jnp.full((1, 4, 4), 0.25))
    draws = jax.vmap(lambda key: graph(*inputs, key))(jax.random.split(jax.random.key(0), 4000))
    plain = graph(*inputs, None)
    spread = draws.std(axis=0)
    assert (spread > 0).all()
    np.testing.assert_array_less(jnp.abs(draws.mean(axis=0) - plain), 5 * spread / np.sqrt(4000))
    np.testing.assert_array_equal(graph(*inputs, jax.random.key(3)), graph(*inputs, jax.random.key(3)))


@pytest.mark.parametrize("bound", ["clip", "straight_through"])
def test_deltas_end_within_their_bounds(rng, bound):
    before = statistics()
    delta = jnp.asarray(rng.normal(size=(2, 4, 6)), jnp.float32)
    got, saturated = (np.asarray(a) for a in limit_delta(delta, before, 0.4, bound, jnp.zeros_like(delta)))
    std = np.asarray(before.std)
    assert np.abs(got).max() <= 0.4 + 1e-6
    assert (std + got[..., 3:] >= np.minimum(std, 0.1) - 1e-6).all()
    wanted = np.clip(delta, -0.4, 0.4)
    wanted[..., 3:] = np.maximum(std + wanted[..., 3:], np.minimum(std, 0.1)) - std
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    np.testing.assert_array_equal(saturated, np.abs(got - np.asarray(delta)) > 1e-6)
    assert 0 < saturated.mean() < 1


def test_only_the_straight_bound_teaches_saturated_entries():
    before = SlotStatistics(jnp.zeros((1, 1, 3)), jnp.full((1, 1, 3), 0.2))
    delta = jnp.asarray([[[0.5, -0.5, 0.1, 0.5, -0.2, 0.1]]])  # the floor leaves -0.1 to the std
    gradient = {
        b: jax.grad(lambda d, b=b: limit_delta(d, before, 0.3, b, jnp.zeros_like(d))[0].sum())(delta)[0, 0]
        for b in ("clip", "straight_through")
    }
    np.testing.assert_array_equal(gradient["clip"], [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(gradient["straight_through"], np.ones(6))
