import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ruac_jax.attacks.deformation import DeformationAttacker, bounded_flow, fuse_objects
from ruac_jax.sam2.memory_encoder import MemoryEncoder
from ruac_jax.sam2.variants import variant

SMALL = dataclasses.replace(variant("nano"), d_model=8)


@pytest.fixture(scope="module")
def memory_encoder():
    return MemoryEncoder(SMALL, rngs=nnx.Rngs(0))


fuse = jax.jit(fuse_objects)


@jax.jit
def flow_of(attacker, embedding, masks, memory_encoder):
    return attacker(embedding, masks, memory_encoder, 0.15)


def scene(rng, size=64):
    """Two images with a large object, a tiny one and an empty slot."""
    masks = np.zeros((2, 3, size, size), bool)
    masks[:, 0, 10:40, 5:50] = True
    masks[:, 1, 50:52, 60:63] = True
    return jnp.asarray(rng.normal(size=(2, size // 16, size // 16, 8)), jnp.float32), jnp.asarray(masks)


def randomise(module, rng, scale):
    state = nnx.state(module, nnx.Param)
    nnx.update(module, jax.tree.map(lambda x: jnp.asarray(scale * rng.normal(size=x.shape), x.dtype), state))
    return module


def test_size_is_the_published_one_and_the_last_layer_is_zero():
    attacker = DeformationAttacker(256, rngs=nnx.Rngs(0))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(attacker, nnx.Param))) == 369_986
    assert not attacker.last.kernel[...].any()
    assert not attacker.last.bias[...].any()


def test_starts_as_the_identity(rng, memory_encoder):
    flow = flow_of(DeformationAttacker(8, rngs=nnx.Rngs(0)), *scene(rng), memory_encoder)
    np.testing.assert_array_equal(flow, np.zeros((2, 3, 64, 64, 2)))


@pytest.mark.parametrize("seed", range(3))
def test_flow_is_bounded_without_mean_and_zero_for_empty_slots(seed, memory_encoder):
    rng = np.random.default_rng(seed)
    embedding, masks = scene(rng)
    attacker = randomise(DeformationAttacker(8, rngs=nnx.Rngs(0)), rng, 0.5)
    flow = np.asarray(flow_of(attacker, embedding, masks, memory_encoder))
    assert np.abs(flow).max() <= 2 * 0.15 * 16
    assert np.abs(flow[:, 0]).max() > 0.5
    np.testing.assert_array_equal(flow[:, 2], np.zeros_like(flow[:, 2]))


def test_the_mean_over_the_object_is_taken_away(rng):
    masks = np.zeros((1, 2, 64, 64), bool)
    masks[0, 0, 16:64, :40] = True  # cells: two whole columns and a half one, three rows
    masks[0, 1, 0, 0] = True
    raw = rng.normal(size=(1, 2, 4, 4, 2))
    got = np.asarray(bounded_flow(jnp.asarray(raw, jnp.float32), jnp.asarray(masks), 2.4), np.float64)
    share = np.zeros((4, 4, 1))
    share[1:, :2], share[1:, 2] = 1, 0.5
    np.testing.assert_allclose((got[0, 0] * share).sum(axis=(0, 1)), 0, atol=1e-5)
    half = 1 / (1 + np.exp(-raw[0, 0])) - 0.5
    want = (half - (half * share).sum(axis=(0, 1)) / share.sum()) * 2 * 2.4
    np.testing.assert_allclose(got[0, 0], want, atol=1e-5)
    np.testing.assert_allclose(got[0, 1, 0, 0], 0, atol=1e-6)  # one cell has no shape to lose


def test_objects_are_fused_with_masks_as_sam2_scales_them(rng, memory_encoder):
    embedding, masks = scene(rng)
    got = fuse(embedding, masks, memory_encoder)
    fuse_one = jax.jit(MemoryEncoder.fuse)
    for b, k in np.ndindex(2, 3):
        one = fuse_one(memory_encoder, embedding[b][None], masks[b, k][None].astype(jnp.float32) * 20 - 10)
        np.testing.assert_allclose(got[3 * b + k], one[0], atol=1e-5)


def test_frozen_weights_may_be_bfloat16(rng):
    small = MemoryEncoder(SMALL, rngs=nnx.Rngs(0))
    exact = fuse(*scene(np.random.default_rng(0)), small)
    nnx.update(small, jax.tree.map(lambda x: x.astype(jnp.bfloat16), nnx.state(small, nnx.Param)))
    rough = fuse(*scene(np.random.default_rng(0)), small)
    assert rough.dtype == jnp.float32
    assert float(jnp.abs(rough - exact).max()) < 0.1 * float(jnp.abs(exact).max())


def test_gradient_is_reversed_and_stops_at_the_frozen_parts(rng, memory_encoder):
    embedding, masks = scene(rng)
    attacker = randomise(DeformationAttacker(8, rngs=nnx.Rngs(0)), rng, 0.3)
    graph, params = nnx.split(attacker)
    frozen_graph, frozen = nnx.split(memory_encoder)
    target = jnp.asarray(rng.normal(size=(2, 3, 64, 64, 2)), jnp.float32)

    def loss(params, embedding, frozen):
        flow = nnx.merge(graph, params)(embedding, masks, nnx.merge(frozen_graph, frozen), 0.15)
        return (flow * target).sum()

    gradient, *none = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(params, embedding, frozen)
    assert not any(x.any() for x in jax.tree.leaves(none[1]))
    # Along any direction the loss falls where the reported gradient says that it rises.
    rise = sum(float(jnp.square(g).sum()) for g in jax.tree.leaves(gradient))
    step = 1e-3 / rise**0.5
    loss = jax.jit(loss)
    there, back = (
        loss(jax.tree.map(lambda p, g, s=s: p + s * g, params, gradient), embedding, frozen) for s in (step, -step)
    )
    np.testing.assert_allclose(float(there - back) / (2 * step), -rise, rtol=0.02)
