import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from ruac_jax.data.shapes import SOURCE
from ruac_jax.data.sources import GENERATED, load_source
from ruac_jax.errors import UserError
from ruac_jax.evaluation import adaptation
from ruac_jax.evaluation.adaptation import (
    AdaptationSettings,
    AdaptedPredictor,
    adapts,
    distinct_prompts,
    match_entropy,
    reliable_pixels,
)
from ruac_jax.evaluation.prediction import Predictor
from ruac_jax.evaluation.predictor import ModelPredictor
from ruac_jax.evaluation.protocol import evaluate_source
from ruac_jax.evaluation.run import EvaluationSettings, evaluate_model
from ruac_jax.evaluation.trivial import DiskPredictor
from ruac_jax.functional.uncertainty import entropy_of_logits
from ruac_jax.sam2.layers import LayerNorm
from ruac_jax.weights import ModelMetadata, create_model, leaves, save_model

SIZE = 64
POINTS = np.float32([[[20, 30]], [[40, 18]]])
LABELS = np.ones((2, 1), np.int32)


@pytest.fixture(scope="module")
def model():
    return create_model("nano", "hypernetwork", rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8) for _ in range(3)]


def answer(predictor, image, points=POINTS, labels=LABELS):
    return jax.device_get(predictor.decode(predictor.encode(image), points, labels))


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def parameters(predictor):
    return leaves(nnx.merge(predictor._graph, predictor._state))


@pytest.fixture(scope="module")
def predictor(model):
    return AdaptedPredictor(model, SIZE)


@pytest.fixture(scope="module")
def answers(predictor, images):
    """Of three images in a row, and the parameters after each."""
    predictor.reset()
    return [(answer(predictor, image), parameters(predictor)) for image in images]


def test_is_a_predictor(predictor):
    assert isinstance(predictor, Predictor)


def test_scales_and_biases_of_encoder_and_decoder_norms_adapt(model):
    found = nnx.state(model, adapts(model))
    chosen = {tuple(path) for path, _ in nnx.to_flat_state(found)}
    norms = [tuple(path) for path, module in nnx.iter_graph(model) if isinstance(module, LayerNorm)]
    of_network = [path for path in norms if path[0] in ("image_encoder", "sam_mask_decoder")]
    assert len(of_network) < len(norms)  # the memory encoder has some, too
    assert chosen == {(*path, part) for path in of_network for part in ("scale", "bias")}


def test_nothing_else_moves_and_every_image_moves_them_on(model, answers):
    before, chosen = leaves(model), {tuple(path) for path, _ in nnx.to_flat_state(nnx.state(model, adapts(model)))}
    for _, after in answers:
        assert after.keys() == before.keys()
        moved = {path for path in after if np.any(np.asarray(after[path]) != np.asarray(before[path]))}
        assert moved
        assert moved <= chosen
        before = after


def test_resetting_gives_the_same_answers_again(predictor, images, answers):
    predictor.reset()
    for image, (expected, _) in zip(images, answers, strict=True):
        assert_equal(answer(predictor, image), expected)


def test_the_order_of_images_matters_and_so_it_is_continual(predictor, images, answers):
    predictor.reset()
    first = answer(predictor, images[2])
    assert np.any(first.logits != answers[2][0].logits)


class Done(NamedTuple):
    affine: Any
    adam: Any
    report: adaptation.StepReport


def step(model, image, rows, before=None, max_entropy=0.4):
    """One step on an image, without a penalty."""
    fresh = AdaptedPredictor(model, SIZE)
    original, (_, adam, zeros, _) = fresh._affine, fresh._memory
    affine, adam = (original, adam) if before is None else before[:2]
    settings, prompts = AdaptationSettings(max_entropy=max_entropy), (POINTS[rows], LABELS[rows])
    return Done(*adaptation._step(fresh._graph, settings, affine, fresh._rest, adam, original, zeros, image, *prompts))


def test_entropy_of_reliable_pixels_falls(model, images):
    done, entropies = None, []
    for _ in range(4):
        done = step(model, images[0], [0, 1], done)
        assert done.report.pixels > 0
        entropies.append(float(done.report.entropy))
    assert np.all(np.diff(entropies) < 0)


def test_without_a_rate_it_is_the_network_itself(model, images):
    still = AdaptedPredictor(model, SIZE, settings=AdaptationSettings(learning_rate=0.0))
    plain = ModelPredictor(model, SIZE)
    for image in images[:2]:
        assert_equal(answer(still, image), answer(plain, image))


def test_without_reliable_pixels_nothing_moves(model, images):
    still = AdaptedPredictor(model, SIZE, settings=AdaptationSettings(max_entropy=0.0))
    assert_equal(answer(still, images[0]), answer(ModelPredictor(model, SIZE), images[0]))
    assert float(still._memory.adam.count) == 0


def test_the_penalty_holds_parameters_near_their_start(model, images, answers):
    """A hundred thousand times the weight: less movement, in the Fisher norm, after three images."""
    held = AdaptedPredictor(model, SIZE, settings=AdaptationSettings(fisher_weight=2e8))
    for image in images:
        answer(held, image)
    fisher = {tuple(path): np.asarray(v.get_value()) for path, v in nnx.to_flat_state(held._memory.fisher)}

    def distance(after):
        start = leaves(model)
        return sum((f * (np.asarray(after[p]) - np.asarray(start[p])) ** 2).sum() for p, f in fisher.items())

    assert held._memory.images == 3
    assert all(np.all(f >= 0) for f in fisher.values())
    assert 0 < distance(parameters(held)) < 0.5 * distance(answers[-1][1])


def test_fisher_is_the_mean_squared_gradient_at_the_original_parameters(model, images):
    """Against gradients written out: cross-entropy of each pixel to the sign of its own logit."""
    predictor = AdaptedPredictor(model, SIZE)
    graph, affine, rest = predictor._graph, predictor._affine, predictor._rest

    def surprise(affine, image):
        logits, _ = adaptation._decode(graph, affine, rest, image, jnp.asarray(POINTS), jnp.asarray(LABELS))
        p = jax.nn.sigmoid(logits)
        return -jnp.log(jnp.where(jax.lax.stop_gradient(logits) > 0, p, 1 - p)).mean()

    gradient = jax.jit(jax.grad(surprise))
    squares = [jax.tree.map(jnp.square, gradient(affine, image)) for image in images[:2]]
    for image in images[:2]:
        answer(predictor, image)
    flat = zip(*(jax.tree.leaves(tree) for tree in (predictor._memory.fisher, *squares)), strict=True)
    for found, first, second in flat:
        expected = (np.asarray(first) + np.asarray(second)) / 2
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-4 * expected.max() + 1e-20)


def test_later_prompts_of_an_image_do_not_adapt_again(predictor, images):
    predictor.reset()
    features = predictor.encode(images[0])
    first = predictor.decode(features, POINTS, LABELS)
    before = parameters(predictor)
    again = predictor.decode(features, POINTS, LABELS)
    assert_equal(parameters(predictor), before)
    np.testing.assert_allclose(again.logits, first.logits, rtol=1e-6)
    corrected = predictor.decode(features, POINTS, LABELS, first.logits)
    assert np.any(np.asarray(corrected.logits) != np.asarray(first.logits))


def test_repeated_rows_that_fill_a_bucket_count_once(model, images):
    """A tenth of an object's 256 pixels are reliable: of one object where the second row is padding."""
    done = [step(model, images[0], rows, max_entropy=1.0) for rows in ([0, 1], [0, 0])]
    assert [int(each.report.pixels) for each in done] == [50, 25]


def test_it_is_compiled_once_per_number_of_objects(model, images):
    predictor = AdaptedPredictor(model, SIZE)
    answer(predictor, images[0])
    sizes = adaptation._step._cache_size(), adaptation._observe._cache_size()
    for image in images:
        answer(predictor, image)
    assert (adaptation._step._cache_size(), adaptation._observe._cache_size()) == sizes


def test_reliable_pixels_are_few_and_certain():
    entropy = jnp.asarray(np.linspace(0, 0.7, 100).reshape(1, 10, 10), jnp.float32)
    both = jnp.concatenate([entropy, entropy + 0.39, entropy])
    found = reliable_pixels(both, jnp.array([True, True, False]), 0.4, 0.1)
    assert found.sum(axis=(1, 2)).tolist() == [10, 2, 0]  # the share, the bound, not counted
    assert found[0, 0].all()


def test_distinct_prompts():
    points = jnp.asarray([[[1, 2]], [[1, 2]], [[3, 2]], [[3, 2]]], jnp.float32)
    labels = jnp.asarray([[1], [1], [1], [0]])
    assert distinct_prompts(points, labels).tolist() == [True, False, True, True]


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.6])
def test_temperature_restores_the_mean_entropy(rng, scale):
    logits = jnp.asarray(rng.normal(scale=4, size=(3, 16, 16)), jnp.float32)
    counted = jnp.array([True, False, True])
    p = stats.logistic.cdf(np.asarray(logits[np.array([0, 2])], np.float64))
    target = np.mean(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)))
    np.testing.assert_allclose(match_entropy(logits * scale, counted, jnp.float32(target)), scale, rtol=1e-4)


def test_temperature_stays_within_its_range():
    logits = jnp.full((1, 4, 4), 3.0)
    for target, expected in ((0.999, 2.0), (1e-6, 0.5)):
        found = match_entropy(logits, jnp.ones(1, bool), jnp.float32(target))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_tempered_answers_have_the_original_mean_entropy(model, images, answers):
    """And probability and uncertainty still belong to the logits."""
    found, _ = answers[0]
    original = answer(ModelPredictor(model, SIZE), images[0])
    np.testing.assert_allclose(found.uncertainty.mean(), original.uncertainty.mean(), rtol=1e-4)
    np.testing.assert_allclose(found.probability, stats.logistic.cdf(found.logits), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.uncertainty, entropy_of_logits(jnp.asarray(found.logits)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("head", ["weibull", "evidential"])
def test_other_heads_are_refused(head):
    with pytest.raises(UserError, match="is of SAM2 with its own mask head"):
        AdaptedPredictor(create_model("nano", head, rngs=nnx.Rngs(0)), SIZE)


def evaluate(checkpoint, output, names=("shapes/xray", "shapes/source"), devices=1, **settings):
    settings = EvaluationSettings(image_size=SIZE, num_images=2, pictures=0, adaptation="uctta", **settings)
    return evaluate_model(
        checkpoint, list(names), output, config={}, settings=settings, devices=jax.local_devices()[:devices]
    )


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted") / "model"
    save_model(folder, model, ModelMetadata("nano", "hypernetwork"))
    return folder


@pytest.mark.slow
def test_every_dataset_starts_from_the_saved_weights(checkpoint, tmp_path):
    both, one = evaluate(checkpoint, tmp_path / "both"), evaluate(checkpoint, tmp_path / "one", ["shapes/source"])
    assert both["shapes/source"] == one["shapes/source"]
    with pytest.raises(UserError, match="holds another evaluation"):
        evaluate_model(
            checkpoint,
            ["shapes/source"],
            tmp_path / "one",
            config={},
            settings=EvaluationSettings(image_size=SIZE, num_images=2, pictures=0),
            devices=jax.local_devices()[:1],
        )


@pytest.mark.parametrize(("devices", "shard"), [(2, (0, 1)), (1, (0, 2))])
def test_several_devices_or_shares_are_refused(checkpoint, tmp_path, devices, shard):
    with pytest.raises(UserError, match=r"it needs one device and one share.*--devices 1"):
        evaluate(checkpoint, tmp_path / "out", devices=devices, shard=shard)
    assert not (tmp_path / "out").exists()


class Recorder(DiskPredictor):
    """Notes whose image is encoded and decoded, the first image taking longest."""

    def __init__(self):
        super().__init__(0.1, SIZE)
        self.notes = []

    def encode(self, image):
        self.notes.append(("encode", image.sum()))
        if len(self.notes) == 1:
            time.sleep(0.5)
        return image.sum()

    def decode(self, features, points, labels):
        self.notes.append(("decode", features))
        return super().decode(None, points, labels)


def test_images_are_taken_in_turn():
    source = load_source(f"{GENERATED}{SOURCE}", "validation", data_dir="", size=SIZE, num_images=3)
    recorder = Recorder()
    evaluate_source([recorder], source, in_turn=True)
    sums = [source[i]["image"].sum() for i in range(3)]
    assert recorder.notes == [(what, image) for image in sums for what in ("encode", "decode")]
