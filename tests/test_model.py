"""The whole network without PyTorch: stored answers of PyTorch's sam2, absent slots, precision, gradients."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ruac_jax.model import SAM2, Prompts, normalize_image, stable_token, suppress_absent
from ruac_jax.sam2.prompt_encoder import ABSENT
from ruac_jax.sam2.variants import VARIANTS, variant
from ruac_jax.weights import create_model
from tests.parity import scenes
from tests.parity.weights import REDUCED, abstract_model, cast, jax_model

GOLDEN = Path(__file__).parent / "data" / "sam2_reduced.npz"
SIZE = REDUCED.image_size


def repeat(features, n):
    return jax.tree.map(lambda a: jnp.repeat(a[:1], n, axis=0), features)


@jax.jit(static_argnums=0)
def run(graphdef, state, image, prompts):
    model = nnx.merge(graphdef, state)
    features = model.project(model.backbone(image))
    decoded = model.decode(repeat(features, prompts.labels.shape[0]), prompts)
    return features, decoded, model.head(decoded).mean_logits()


@pytest.fixture(scope="module")
def model():
    return nnx.split(jax_model(REDUCED))


@pytest.fixture(scope="module")
def scene():
    image = jnp.asarray(scenes.images(SIZE))
    return image, Prompts(*(jnp.asarray(part) for part in scenes.prompts(SIZE)))


def test_answers_of_pytorch(model, scene):
    golden = np.load(GOLDEN)
    features, decoded, logits = run(*model, *scene)
    deviation = np.asarray(features.embedding) - golden["embedding"]
    assert np.sqrt(np.mean(deviation**2) / np.mean(golden["embedding"] ** 2)) <= 1e-5
    np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(logits) > 0, golden["logits"] > 0)
    np.testing.assert_allclose(decoded.iou[:, 1:], golden["iou"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(decoded.object_score, golden["object_score"], rtol=0, atol=1e-4)


def absent_slots(prompts, extra, rng):
    """`extra` absent slots with arbitrary coordinates, shuffled in."""
    n, p = prompts.labels.shape
    points = np.concatenate([prompts.points, rng.uniform(-50, 500, (n, extra, 2))], axis=1).astype(np.float32)
    labels = np.concatenate([prompts.labels, np.full((n, extra), ABSENT, np.int32)], axis=1)
    order = np.sort(rng.permutation(p + extra)[:p])
    place = np.concatenate([order, np.setdiff1d(np.arange(p + extra), order)])
    back = np.argsort(place)
    return prompts._replace(points=jnp.asarray(points[:, back]), labels=jnp.asarray(labels[:, back]))


@pytest.mark.parametrize("extra", [1, 7])
def test_absent_slots_change_nothing(model, scene, extra, rng):
    image, prompts = scene
    _, decoded, logits = run(*model, image, prompts)
    _, decoded_more, logits_more = run(*model, image, absent_slots(prompts, extra, rng))
    np.testing.assert_allclose(logits_more, logits, rtol=0, atol=2e-5)
    np.testing.assert_allclose(decoded_more.iou, decoded.iou, rtol=0, atol=1e-6)
    np.testing.assert_allclose(decoded_more.object_score, decoded.object_score, rtol=0, atol=1e-6)
    np.testing.assert_allclose(decoded_more.tokens, decoded.tokens, rtol=0, atol=1e-5)


def test_box_with_and_without_absent_slots(model, scene):
    """A row of two slots holding a box, alone, against the same row among five slots."""
    image, prompts = scene
    row = list(scenes.KINDS).index("box")
    alone = Prompts(
        prompts.points[row : row + 1, :2], prompts.labels[row : row + 1, :2], *(a[row : row + 1] for a in prompts[2:])
    )
    _, decoded, logits = run(*model, image, alone)
    _, decoded_all, logits_all = run(*model, image, prompts)
    np.testing.assert_allclose(logits_all[row], logits[0], rtol=0, atol=2e-5)
    np.testing.assert_allclose(decoded_all.iou[row], decoded.iou[0], rtol=0, atol=1e-6)


def test_every_prompt_matters(model, scene):
    image, prompts = scene
    _, _, logits = run(*model, image, prompts)
    moved = prompts._replace(points=prompts.points + 20.0)
    flipped = prompts._replace(
        labels=jnp.where(prompts.labels >= 0, 1 - prompts.labels % 2 + prompts.labels // 2 * 2, prompts.labels)
    )
    has_points = np.asarray((prompts.labels >= 0).any(axis=1))
    for other in (moved, flipped):
        change = np.abs(np.asarray(run(*model, image, other)[2] - logits)).max(axis=(1, 2, 3))
        assert (change[has_points] > 1e-3).all()
        assert (change[~has_points] < 1e-6).all()
    louder = prompts._replace(mask=prompts.mask + 1.0)
    change = np.abs(np.asarray(run(*model, image, louder)[2] - logits)).max(axis=(1, 2, 3))
    assert (change[np.asarray(prompts.has_mask)] > 1e-3).all()
    assert (change[~np.asarray(prompts.has_mask)] == 0).all()


def test_bfloat16_under_strict_promotion(model, scene):
    image, prompts = scene
    features, decoded, logits = run(*model, image, prompts)
    half = nnx.split(cast(nnx.merge(*model), jnp.bfloat16))
    features16, decoded16, logits16 = run(*half, image.astype(jnp.bfloat16), prompts)
    for ours, reference in zip((*features16, *decoded16), (*features, *decoded), strict=True):
        assert ours.dtype == jnp.bfloat16
        error = np.asarray(ours.astype(jnp.float32) - reference)
        assert np.sqrt(np.mean(error**2) / np.mean(np.square(reference))) < 0.04
    assert np.mean((logits16 > 0) == (logits > 0)) > 0.98


def test_gradient_reaches_the_image_without_scatter(model, scene):
    image, prompts = scene
    graphdef, state = model

    @jax.jit
    def gradient(state, image, prompts):
        return jax.grad(
            lambda state, image: jnp.square(run(graphdef, state, image, prompts)[2]).mean(), argnums=(0, 1)
        )(state, image)

    compiled = gradient.lower(state, image, prompts).compile()
    text = compiled.as_text()
    assert " scatter(" not in text
    assert "scatter-add" not in text
    by_state, by_image = compiled(state, image, prompts)
    assert np.isfinite(by_image).all()
    # Every pixel has a say, and every parameter of the path from image to masks.
    assert (np.abs(by_image).max(axis=-1) > 0).all()
    silent = {"memory_encoder", "iou_prediction_head", "pred_obj_score_head", "pe_layer"}
    for path, leaf in nnx.to_flat_state(by_state):
        if not silent & set(path):
            # Attention does not see a bias that all keys share.
            assert np.abs(leaf[...]).max() > 0 or path[-2:] == ("k_proj", "bias"), path


def test_gradient_equals_finite_difference(model, scene, rng):
    image, prompts = scene
    direction = jnp.asarray(rng.standard_normal(image.shape), jnp.float32)
    weight = jnp.asarray(rng.standard_normal((9, 4, SIZE // 4, SIZE // 4)), jnp.float32)

    def objective(step):
        return jnp.sum(weight * run(*model, image + step * direction, prompts)[2])

    slope = jax.grad(objective)(jnp.float32(0))
    difference = (objective(jnp.float32(2e-3)) - objective(jnp.float32(-2e-3))) / 4e-3
    np.testing.assert_allclose(slope, difference, rtol=0.01)


def test_images_of_another_size(model):
    """The resolution is the input's; a click means the same place of the scene in both."""
    graphdef, state = model
    image = jnp.asarray(scenes.images(192)[:, :96])
    prompts = Prompts(jnp.array([[[20.0, 30.0]]]), jnp.array([[1]]), jnp.zeros((1, 24, 48)), jnp.zeros((1,), bool))
    features, decoded, logits = run(graphdef, state, image, prompts)
    assert features.embedding.shape == (1, 6, 12, REDUCED.d_model)
    assert decoded.pixels.shape == (1, 24, 48, REDUCED.d_model // 8)
    assert logits.shape == (1, 4, 24, 48)


def test_batch_rows_are_independent(model, scene):
    image, _ = scene
    other = jnp.asarray(scenes.images(SIZE, seed=9))
    graphdef, state = model
    backbone = jax.jit(lambda state, image: nnx.merge(graphdef, state).backbone(image))
    for alone, among in zip(backbone(state, image), backbone(state, jnp.concatenate([other, image])), strict=True):
        np.testing.assert_allclose(among[1:], alone, atol=2e-5)


def test_nano_is_small_and_alive():
    from ruac_jax.heads.hypernetwork import HypernetworkHead

    nano = variant("nano")
    network = SAM2(nano, HypernetworkHead(nano.d_model, rngs=nnx.Rngs(1)), rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(network)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) < 2e6
    image, prompts = jnp.asarray(scenes.images(128)), Prompts(*(jnp.asarray(a) for a in scenes.prompts(128)))
    features, decoded, logits = run(graphdef, state, image, prompts)
    for array in (*features, decoded.pixels, decoded.tokens, logits):
        assert 0.05 < float(jnp.std(array)) < 10
    # Clicks tell objects apart from the first step on.
    assert float(jnp.std(logits[0] - logits[1])) > 0.01


SIZES = [pytest.param(name, marks=[pytest.mark.slow] if name in ("base_plus", "large") else []) for name in VARIANTS]


@pytest.mark.parametrize("name", SIZES)
def test_abstract_model_has_the_published_size(name):
    """Parameters outside the video part, from the published networks; nano is ours."""
    published = {"tiny": 32_825_585, "small": 39_923_441, "base_plus": 74_713_265, "large": 218_309_729}
    state = nnx.state(abstract_model(variant(name)))
    total = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state))
    assert total == published.get(name, total)


def test_normalize_image():
    white = normalize_image(jnp.full((2, 4, 5, 3), 255, jnp.uint8))
    assert white.dtype == jnp.float32
    np.testing.assert_allclose(white[0, 0, 0], [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225], rtol=1e-6)
    mean = jnp.array([0.485, 0.456, 0.406]) * 255
    np.testing.assert_allclose(normalize_image(mean.reshape(1, 1, 3)), 0, atol=1e-6)


def test_suppress_absent():
    logits = jnp.arange(12.0).reshape(3, 1, 2, 2)
    shown = suppress_absent(logits, jnp.array([0.1, 0.0, -3.0]))
    np.testing.assert_array_equal(shown[0], logits[0])
    np.testing.assert_array_equal(shown[1:], -1024.0)


def test_stable_token():
    """Worked by hand: of 100 pixels, how many lie within 0.05 of zero."""
    steep = np.where(np.arange(100) < 50, 3.0, -3.0)
    shaky = steep.copy()
    shaky[:2] = 0.01  # inner 48, outer 50: 0.96
    nearly = steep.copy()
    nearly[0] = -0.01  # inner 49, outer 50: 0.98, just stable
    empty = np.full(100, -1.0)
    logits = jnp.asarray(np.stack([steep, shaky, nearly, empty]).reshape(4, 1, 10, 10).repeat(4, axis=1), jnp.float32)
    iou = jnp.array([[0.9, 0.1, 0.2, 0.3]] * 4)
    np.testing.assert_array_equal(stable_token(logits, iou), [0, 3, 0, 0])


def test_a_fresh_network_hears_the_click(rng):
    """Without it a network trained from scratch learns to ignore its prompts (sam2/transformer.py, sam2/neck.py)."""
    graph, state = nnx.split(create_model("nano", "hypernetwork", rngs=nnx.Rngs(0)))
    image = normalize_image(jnp.asarray(rng.integers(0, 256, (1, 128, 128, 3), np.uint8)))
    points = jnp.asarray([[[30.0, 30.0]], [[90.0, 70.0]]])
    prompts = Prompts(points, jnp.ones((2, 1), jnp.int32), jnp.zeros((2, 32, 32)), jnp.zeros(2, bool))
    _, decoded, _ = run(graph, state, image, prompts)
    pixels = np.asarray(decoded.pixels)
    # 0.20 as it is, 0.04 with queries, keys and features drawn in the usual way.
    assert np.sqrt(np.mean((pixels[0] - pixels[1]) ** 2)) > 0.1 * np.std(pixels)
    assert (np.asarray(decoded.object_score) > 0).all()
