import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ruac_jax.adapters.lora import LoRALinear, LoRAParam, add_lora, merge_lora, set_dropout_key
from ruac_jax.sam2.layers import Linear
from ruac_jax.sam2.variants import variant
from ruac_jax.weights import abstract_model, create_model, leaves


def make_layer(rng, inputs=12, outputs=20, rank=3, dropout=0.25):
    layer = LoRALinear(Linear(inputs, outputs, rngs=nnx.Rngs(0)), rank, 16.0, dropout, rngs=nnx.Rngs(1))
    layer.b[...] = jnp.asarray(rng.normal(size=(rank, outputs)), jnp.float32)
    return layer


def moved(model, rng):
    """The model with trained-looking adapters."""

    def stir(x):
        return x + jnp.asarray(0.05 * rng.normal(size=x.shape), x.dtype)

    nnx.update(model, jax.tree.map(stir, nnx.state(model, LoRAParam)))
    return model


def encode(model, image):
    return _encode(*nnx.split(model), image)


@functools.partial(jax.jit, static_argnums=0)
def _encode(graph, state, image):
    return nnx.merge(graph, state).backbone(image)


@pytest.fixture
def image(rng):
    return jnp.asarray(rng.normal(size=(1, 64, 64, 3)), jnp.float32)


def test_update_is_the_low_rank_product(rng):
    layer, x = make_layer(rng), rng.normal(size=(2, 3, 12)).astype(np.float32)
    w, a, b = (np.asarray(p[...], np.float64) for p in (layer.base.kernel, layer.a, layer.b))
    expected = x @ w + np.asarray(layer.base.bias[...]) + 16 / 3 * (x @ a @ b)
    np.testing.assert_allclose(layer(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)


def test_fresh_adapters_change_nothing_and_merging_them_gives_the_same_bits(image):
    plain = create_model("nano", "hypernetwork", rngs=nnx.Rngs(0))
    before = leaves(plain)
    expected = encode(plain, image)
    model = add_lora(create_model("nano", "hypernetwork", rngs=nnx.Rngs(0)), 4, rngs=nnx.Rngs(1))
    jax.tree.map(np.testing.assert_array_equal, encode(model, image), expected)
    after = leaves(merge_lora(model))
    assert after.keys() == before.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value, err_msg=str(path))


def test_a_merged_model_computes_what_its_adapters_did(image, rng):
    model = moved(add_lora(create_model("nano", "hypernetwork", rngs=nnx.Rngs(0)), 4, rngs=nnx.Rngs(1)), rng)
    adapted = encode(model, image)
    plain = encode(create_model("nano", "hypernetwork", rngs=nnx.Rngs(0)), image)
    merged = merge_lora(model)
    assert leaves(merged).keys() == leaves(abstract_model("nano", "hypernetwork")).keys()
    for level, exact, other in zip(encode(merged, image), adapted, plain, strict=True):
        scale = float(jnp.sqrt(jnp.mean(jnp.square(exact))))
        assert float(jnp.abs(level - exact).max()) <= 1e-5 * scale
        assert float(jnp.abs(other - exact).max()) > 1e-2 * scale


def test_merged_weight_is_exact(rng):
    model = moved(add_lora(create_model("nano", "hypernetwork", rngs=nnx.Rngs(0)), 2, rngs=nnx.Rngs(1)), rng)
    layer = model.image_encoder.trunk.blocks[1].attn.qkv
    w, a, b = (np.asarray(p[...], np.float64) for p in (layer.base.kernel, layer.a, layer.b))
    merge_lora(model)
    kernel = model.image_encoder.trunk.blocks[1].attn.qkv.kernel[...]
    np.testing.assert_allclose(kernel, w + 8 * a @ b, rtol=1e-6, atol=1e-6)


def test_every_block_has_two_adapters_of_the_paper_s_size():
    model = nnx.eval_shape(
        lambda: add_lora(create_model("base_plus", "hypernetwork", rngs=nnx.Rngs(0)), 4, rngs=nnx.Rngs(1))
    )
    shapes = [x.shape for x in jax.tree.leaves(nnx.state(model, LoRAParam))]
    assert len(shapes) == 2 * 2 * sum(variant("base_plus").stages)
    block = model.image_encoder.trunk.blocks[20].attn  # third stage: width 448
    assert (block.qkv.a.shape, block.qkv.b.shape) == ((448, 4), (4, 1344))
    assert (block.proj.a.shape, block.proj.b.shape) == ((448, 4), (4, 448))
    assert block.qkv.scaling == 4.0


def test_dropout_keeps_the_mean_and_drops_its_share(rng):
    """With a and b of one input and output each entry of the update is one kept or dropped input."""
    layer = LoRALinear(Linear(1, 1, rngs=nnx.Rngs(0)), 1, 1.0, 0.25, rngs=nnx.Rngs(1))
    layer.a[...], layer.b[...] = jnp.ones((1, 1)), jnp.ones((1, 1))
    x, n = jnp.full((100_000, 1), 2.0), 100_000
    base = layer(x) - 2.0
    layer.key = jax.random.key(3)
    update = np.asarray(layer(x) - base)
    dropped = np.isclose(update, 0, atol=1e-5)
    np.testing.assert_allclose(update[~dropped], 2 / 0.75, rtol=1e-5)
    assert abs(dropped.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / n)


def test_dropout_follows_from_its_key_alone(rng, image):
    model = moved(add_lora(create_model("nano", "hypernetwork", rngs=nnx.Rngs(0)), 4, rngs=nnx.Rngs(1)), rng)
    graph, state = nnx.split(model)

    @jax.jit
    def dropped(state, image, key):
        model = nnx.merge(graph, state)
        set_dropout_key(model, key)
        keys = jnp.stack([jax.random.key_data(block.attn.qkv.key) for block in model.image_encoder.trunk.blocks])
        out = model.backbone(image)[2]
        set_dropout_key(model, None)
        return out, model.backbone(image)[2], keys

    first, without, keys = dropped(state, image, jax.random.key(0))
    again, _, _ = dropped(state, image, jax.random.key(0))
    other, _, _ = dropped(state, image, jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert np.any(np.asarray(first) != np.asarray(other))
    assert len(np.unique(keys, axis=0)) == len(keys)
    np.testing.assert_allclose(without, encode(model, image)[2], rtol=1e-5, atol=1e-6)


def test_bfloat16_stays_bfloat16(rng):
    layer = make_layer(rng)
    graph, state = nnx.split(layer)
    half = nnx.merge(graph, jax.tree.map(lambda x: x.astype(jnp.bfloat16), state))
    half.key = jax.random.key(0)
    assert half(jnp.ones((2, 12), jnp.bfloat16)).dtype == jnp.bfloat16
