import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.ndimage import binary_dilation, map_coordinates

from ruac_jax.attacks.attack import clean_scene
from ruac_jax.attacks.combined import RUACAttack
from ruac_jax.config import AttackConfig
from ruac_jax.functional.adain import SlotStatistics, owner_map, slot_statistics
from ruac_jax.functional.resize import resize
from ruac_jax.sam2.layers import Conv
from ruac_jax.sam2.memory_encoder import MemoryEncoder

D_MODEL = 8
SIZE = 64
STRONG = AttackConfig(style_epsilon=1.0, flow_epsilon=0.3)


class PlainMemoryEncoder(MemoryEncoder):
    """Fuses by a projection of embedding and mask: compiles in no time."""

    def __init__(self, rngs):
        self.pix_feat_proj = Conv(9, 8, 1, rngs=rngs)

    def fuse(self, embedding, mask):
        coarse = resize(mask[..., None], embedding.shape[1:3], "area") / 10
        return self.pix_feat_proj(jnp.concatenate([embedding, coarse], axis=-1))


@pytest.fixture(scope="module")
def memory_encoder():
    return PlainMemoryEncoder(nnx.Rngs(0))


def scene(seed=0):
    """Two images; the first has two overlapping objects, the second one; the last slot of each is empty."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((2, 3, SIZE, SIZE), bool)
    masks[0, 0, 8:40, 5:45] = True
    masks[0, 1, 30:60, 30:62] = True
    masks[1, 0, 20:52, 12:36] = True
    masks[1, 1, 0:20, 0:20] = True  # marked as invalid: must not count
    valid = np.array([[True, True, False], [True, False, False]])
    image = np.clip(rng.normal(scale=0.8, size=(2, SIZE, SIZE, 3)), -2, 2)
    image += masks.any(axis=1)[..., None] * 0.5
    embedding = rng.normal(size=(2, SIZE // 16, SIZE // 16, 8))
    return (
        jnp.asarray(embedding, jnp.float32),
        jnp.asarray(image, jnp.float32),
        jnp.asarray(masks),
        jnp.asarray(valid),
    )


@functools.cache
def parts():
    return RUACAttack.create(STRONG, D_MODEL, rngs=nnx.Rngs(0))


def make(settings=STRONG, scale=0.5):
    """An attack with random weights; `scale` None leaves the initial ones."""
    attack = nnx.clone(parts())
    if scale is not None:
        rng = np.random.default_rng(0)
        state = nnx.state(attack, nnx.Param)
        nnx.update(attack, jax.tree.map(lambda x: jnp.asarray(scale * rng.normal(size=x.shape), x.dtype), state))
    return RUACAttack(
        attack.style if settings.style else None,
        attack.graph if settings.graph else None,
        attack.deformation if settings.deformation else None,
        settings,
    )


def run(attack, memory_encoder, inputs, key=None):
    """The attack, compiled."""
    graph, params = nnx.split((attack, memory_encoder))
    return jax.tree.map(np.asarray, _call(graph, params, inputs, key))


@functools.partial(jax.jit, static_argnums=0)
def _call(graph, params, inputs, key):
    attack, memory_encoder = nnx.merge(graph, params)
    return attack(clean_scene(*inputs, memory_encoder), key)


def victim(arrays, graphs, masks, valid):
    """Loss of a fixed linear classifier of colours that looks for the objects where they were.

    `arrays` = (attack, memory encoder, embedding, image), the first two as states.
    """
    *states, embedding, image = arrays
    attack, memory_encoder = (nnx.merge(graph, state) for graph, state in zip(graphs, states, strict=True))
    got = attack(clean_scene(embedding, image, masks, valid, memory_encoder), None)
    logits = got.image @ jnp.asarray([2.0, -1.0, 1.5])
    loss = jnp.where(masks.any(axis=1), jax.nn.softplus(-logits), jax.nn.softplus(logits)).mean()
    # Masks, flow and metrics must not carry gradients either.
    return loss + sum(0.0 * x.astype(jnp.float32).sum() for x in jax.tree.leaves(got[1:]))


gradient_of_victim = jax.jit(jax.value_and_grad(victim), static_argnums=1)


def victim_inputs(attack, memory_encoder):
    """Arguments of `victim`, with smooth images of warm objects: few kinks for finite differences to straddle."""
    embedding, _, masks, valid = scene()
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    image = np.stack([np.sin(5 * x + 3 * y), np.cos(4 * x - y), np.sin(6 * y)], axis=-1)
    image = jnp.asarray(np.stack([image, image[::-1]]), jnp.float32)
    graphs, states = zip(nnx.split(attack), nnx.split(memory_encoder), strict=True)
    return (*states, embedding, image), graphs, masks, valid


def proposed_change(attack, memory_encoder, inputs):
    """The numbers with which the attack recolours the slots, and the slots' statistics."""
    style = attack.propose(clean_scene(*inputs, memory_encoder), None).style
    return np.asarray(style.delta, np.float64), style.slots.statistics


def sample(image, flow):
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    at = [y + flow[..., 1], x + flow[..., 0]]
    return np.stack([map_coordinates(c, at, order=1, mode="nearest") for c in np.moveaxis(image, -1, 0)], axis=-1)


@pytest.mark.parametrize("active", [(True, True, True), (True, False, False), (False, False, True)])
def test_equals_style_then_warp_then_composition_in_numpy(active, memory_encoder):
    settings = dataclasses.replace(STRONG, **dict(zip(("style", "graph", "deformation"), active, strict=True)))
    attack, (embedding, image, masks, valid) = make(settings), scene()
    got = run(attack, memory_encoder, (embedding, image, masks, valid))
    objects = np.asarray(masks & valid[:, :, None, None])
    styled = np.asarray(image, np.float64)
    if active[0]:
        delta, (mean, std) = proposed_change(attack, memory_encoder, (embedding, image, jnp.asarray(objects), valid))
        assert np.abs(delta).max() > 0.5
        for b, s in np.ndindex(2, 4):
            here = np.asarray(owner_map(jnp.asarray(objects)))[b] == s
            m, d = (np.asarray(a[b, s], np.float64) for a in (mean, std))
            normal = (styled[b, here] - m) / (d + 1e-6)
            styled[b, here] = np.clip(normal * (d + delta[b, s, 3:]) + m + delta[b, s, :3], -3, 3)
        assert (np.abs(styled) == 3).any()  # the clip is at work, before the warp
    if not active[2]:
        np.testing.assert_allclose(got.image, styled, atol=5e-5)
        np.testing.assert_array_equal(got.masks, objects)
        assert not got.flow.any()
        return
    assert np.abs(got.flow).max() > 1
    for b in range(2):
        moved = np.stack(
            [sample(objects[b, k, ..., None].astype(float), got.flow[b, k])[..., 0] > 0.5 for k in range(3)]
        )
        assert (moved == got.masks[b]).mean() > 0.999  # rounding may decide ties
        moved = got.masks[b]
        rim, left = (binary_dilation(m, np.ones((1, 3, 3))) for m in (moved, objects[b]))
        cover = np.where(moved.any(axis=0), moved, np.where(rim.any(axis=0), rim, left))
        want = styled[b].copy()
        for y, x in np.argwhere(cover.any(axis=0)):
            want[y, x] = 0
        for k in range(3):
            want += (cover[k] / np.maximum(cover.sum(axis=0), 1))[..., None] * sample(styled[b], got.flow[b, k])
        np.testing.assert_allclose(got.image[b], want, atol=2e-4)
        assert (cover.sum(axis=0) > 1).any() == (b == 0)


def test_initial_attack_is_nearly_the_identity(memory_encoder):
    attack, inputs = make(AttackConfig(), scale=None), scene()
    got = run(attack, memory_encoder, inputs)
    # Style weights of 0.01: 0.1 is a fifth of what they may do at colours of 2.
    np.testing.assert_allclose(got.image, inputs[1], atol=0.1)
    np.testing.assert_array_equal(got.masks, inputs[2] & inputs[3][:, :, None, None])
    assert got.metrics["flow_px"] == 0


def test_zero_weights_change_no_bit(memory_encoder):
    inputs = scene()
    inputs = (*inputs[:1], inputs[1].at[0].multiply(0.05), *inputs[2:])  # slots with a std below the floor of 0.1
    got = run(make(scale=0.0), memory_encoder, inputs)
    np.testing.assert_array_equal(got.image, inputs[1])
    np.testing.assert_array_equal(got.masks, inputs[2] & inputs[3][:, :, None, None])


def test_invalid_slots_have_no_influence(memory_encoder):
    attack, (embedding, image, masks, valid) = make(), scene()
    first = run(attack, memory_encoder, (embedding, image, masks, valid))
    other = run(attack, memory_encoder, (embedding, image, masks & valid[:, :, None, None], valid))
    np.testing.assert_array_equal(first.image, other.image)
    np.testing.assert_array_equal(first.masks[1, 1], np.zeros((SIZE, SIZE), bool))


def test_a_batch_without_objects_stays_finite(memory_encoder):
    embedding, image, masks, valid = scene()
    got = run(make(), memory_encoder, (embedding, image, masks, jnp.zeros_like(valid)))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(got))
    assert not got.masks.any()
    assert not got.flow.any()


def test_bfloat16_embeddings_are_lifted(memory_encoder):
    embedding, *rest = scene()
    attack = make()
    rounded = embedding.astype(jnp.bfloat16)
    low = run(attack, memory_encoder, (rounded, *rest))
    high = run(attack, memory_encoder, (rounded.astype(jnp.float32), *rest))
    assert low.image.dtype == np.float32
    np.testing.assert_array_equal(low.image, high.image)


def test_gradient_is_minus_the_plain_one(memory_encoder, monkeypatch):
    arguments = victim_inputs(make(scale=0.1), memory_encoder)
    reverse = gradient_of_victim(*arguments)[1][0]
    monkeypatch.setattr("ruac_jax.attacks.composition.reverse_gradient", lambda x: x)
    monkeypatch.setattr("ruac_jax.attacks.deformation.reverse_gradient", lambda x: x)
    plain = jax.jit(jax.grad(lambda *a: victim(*a)), static_argnums=1)(*arguments)[0]
    for part in ("style", "graph", "deformation"):
        for p, r in zip(jax.tree.leaves(plain[part]), jax.tree.leaves(reverse[part]), strict=True):
            np.testing.assert_allclose(p, -r, rtol=1e-5, atol=1e-8)
        assert any(jnp.abs(p).max() > 1e-6 for p in jax.tree.leaves(plain[part]))


def test_gradient_equals_minus_finite_differences(memory_encoder):
    (params, *rest), *others = victim_inputs(make(scale=0.1), memory_encoder)
    _, (gradient, *_) = gradient_of_victim((params, *rest), *others)
    for part in ("style", "graph", "deformation"):
        size = sum(float(jnp.square(g).sum()) for g in jax.tree.leaves(gradient[part])) ** 0.5
        values = []
        for step in (1e-3, -1e-3):  # small: a moved mask changes what covers a pixel, which is a jump
            moved = nnx.State(dict(params))
            moved[part] = jax.tree.map(lambda p, g, s=step / size: p + s * g, params[part], gradient[part])
            values.append(float(gradient_of_victim((moved, *rest), *others)[0]))
        np.testing.assert_allclose((values[0] - values[1]) / 2e-3, -size, rtol=0.03, err_msg=part)


def test_descent_on_the_reversed_gradient_raises_the_victims_loss(memory_encoder):
    (params, *rest), *others = victim_inputs(make(scale=0.1), memory_encoder)
    losses = []
    for _ in range(10):
        value, (gradient, *_) = gradient_of_victim((params, *rest), *others)
        losses.append(float(value))
        params = jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient)
    assert losses[-1] > losses[0] + 0.05
    assert losses == sorted(losses)


def test_zero_initialised_flow_learns_from_its_last_layer_on(memory_encoder):
    (params, *_), *_ = arguments = victim_inputs(make(scale=None), memory_encoder)
    gradient = gradient_of_victim(*arguments)[1][0]["deformation"]
    assert not params["deformation"]["last"]["kernel"][...].any()
    assert jnp.abs(gradient["last"]["kernel"][...]).max() > 1e-5
    assert not gradient["first"]["kernel"][...].any()


def test_no_scatter_and_no_gradient_to_what_is_constant(memory_encoder):
    arguments = victim_inputs(make(scale=0.1), memory_encoder)
    lowered = gradient_of_victim.lower(*arguments)
    # In the program as given to the compiler: on a CPU that one turns scatters into loops.
    assert "stablehlo.scatter" not in lowered.as_text()
    assert "stablehlo.gather" in lowered.as_text()
    constants = gradient_of_victim(*arguments)[1][1:]
    assert not any(x.any() for x in jax.tree.leaves(constants))


def test_key_drives_the_graphs_dropout_alone(memory_encoder):
    attack, inputs = make(), scene()
    plain, one, other = (run(attack, memory_encoder, inputs, k) for k in (None, jax.random.key(0), jax.random.key(1)))
    assert not np.array_equal(one.image, other.image)
    assert not np.array_equal(one.image, plain.image)
    np.testing.assert_array_equal(one.flow, plain.flow)


def test_metrics_by_their_definition(memory_encoder):
    attack, inputs = make(), scene()
    got = run(attack, memory_encoder, inputs)
    objects = np.asarray(inputs[2] & inputs[3][:, :, None, None])
    delta, statistics = proposed_change(attack, memory_encoder, inputs)
    assert isinstance(statistics, SlotStatistics)
    present = np.array([[True, True, False, True], [True, False, False, True]])
    np.testing.assert_allclose(got.metrics["style_shift"], np.abs(delta)[present].mean(), rtol=1e-4)
    std = np.asarray(slot_statistics(inputs[1], owner_map(jnp.asarray(objects)), 4).std)
    at_floor = np.isclose(delta[..., 3:] + std, np.minimum(std, 0.1), atol=1e-6)
    at_bound = np.isclose(np.abs(delta), 1.0, atol=1e-6)
    at_bound[..., 3:] |= at_floor
    np.testing.assert_allclose(got.metrics["style_saturated"], at_bound[present].mean(), atol=1e-6)
    length = np.linalg.norm(got.flow, axis=-1)[objects]
    np.testing.assert_allclose(got.metrics["flow_px"], length.mean(), rtol=1e-5)
    np.testing.assert_allclose(got.metrics["flow_px_max"], length.max(), rtol=1e-6)


def test_learned_shifts_come_on_top_of_a_random_start_within_a_budget_of_their_own(memory_encoder):
    settings = dataclasses.replace(STRONG, style_epsilon=0.3, deformation=False, random_start=0.5)
    attack, clean = make(settings), clean_scene(*scene(), memory_encoder)
    propose = jax.jit(lambda key: attack.propose(clean, key).style)
    drawn = [propose(key) for key in jax.random.split(jax.random.key(0), 200)]
    start = np.stack([style.start[0, 0] for style in drawn])
    assert np.abs(start).max() <= 0.5 + 1e-6
    np.testing.assert_allclose(start[:, :3].mean(axis=0), 0, atol=0.08)  # four standard errors
    np.testing.assert_allclose(start[:, :3].std(axis=0), 0.5 / np.sqrt(3), atol=0.04)
    learned = np.stack([style.delta[0, 0] for style in drawn])
    assert 0.1 < np.abs(learned).max() <= 0.3 + 1e-6
    slots = drawn[0].slots
    lowest = np.minimum(slots.statistics.std, 0.1) - 1e-6
    for style in drawn[:20]:
        total = np.asarray(style.start + style.delta)
        assert (total[..., 3:] + np.asarray(slots.statistics.std) >= lowest)[np.asarray(slots.styled)].all()
        assert not total[~np.asarray(slots.styled)].any()
    expected = np.abs(np.asarray(drawn[0].start + drawn[0].delta))[np.asarray(slots.styled)].mean()
    output = attack(clean, jax.random.split(jax.random.key(0), 200)[0])
    np.testing.assert_allclose(output.metrics["style_shift"], expected, rtol=1e-4)
    still = attack.propose(clean, None).style
    assert not np.asarray(still.start).any()


def test_parts_must_fit_together():
    with pytest.raises(ValueError, match="style"):
        RUACAttack(None, None, None, STRONG)
    whole = make()
    with pytest.raises(ValueError, match="graph"):
        RUACAttack(None, whole.graph, whole.deformation, STRONG)
