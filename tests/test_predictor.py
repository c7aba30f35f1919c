import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ruac_jax import predictor as module
from ruac_jax.errors import UserError
from ruac_jax.functional.resize import resize
from ruac_jax.inference import encode
from ruac_jax.input_image import network_input
from ruac_jax.model import Prompts
from ruac_jax.predictor import Predictor
from ruac_jax.weights import ModelMetadata, create_model, save_model

SIZE, LOW = 64, 16


def network(head="weibull", seed=0):
    """A nano network whose few random masks are large and differ."""
    return create_model("nano", head, rngs=nnx.Rngs(seed))


@pytest.fixture(scope="module")
def models():
    return {head: network(head) for head in ("weibull", "hypernetwork")}


@pytest.fixture
def predictor(models):
    return Predictor(models["weibull"], image_size=SIZE)


def photo(size, seed=0):
    """Colours that change slowly, with noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (1, 4, 5, 3)).astype(np.float32)
    smooth = np.asarray(resize(jnp.asarray(coarse), size))[0]
    return np.clip(smooth + rng.normal(0, 10, smooth.shape), 0, 255).astype(np.uint8)


CLICK = {"point_coords": [[20, 30]], "point_labels": [1]}
BOXES = {"box": [[2, 3, 30, 25], [10, 5, 60, 40], [0, 0, 20, 49]]}


def same(a, b, atol=1e-4):
    np.testing.assert_allclose(a.low_res_logits, b.low_res_logits, atol=atol)
    np.testing.assert_allclose(a.iou_predictions, b.iou_predictions, atol=atol)
    np.testing.assert_allclose(a.uncertainty, b.uncertainty, atol=atol)
    assert a.masks.shape == b.masks.shape
    assert (a.masks != b.masks).mean() <= 1e-3


def test_answers_are_the_networks_own(models, predictor):
    """Written out step by step, without any of the predictor's padding."""
    image = photo((50, 90))
    graph, state = nnx.split(models["weibull"])
    points = jnp.asarray([[[20 * 64 / 90, 30 * 64 / 50]]], jnp.float32)

    @jax.jit
    def run(state, image):
        model = nnx.merge(graph, state)
        prompts = Prompts(points, jnp.ones((1, 1), jnp.int32), jnp.zeros((1, LOW, LOW)), jnp.zeros(1, bool))
        decoded = model.decode(encode(model, image[None]), prompts)
        masks = model.head(decoded).select(1, 4)
        return masks.mean_logits()[0], masks.uncertainty()[0], decoded.iou[0, 1:]

    logits, uncertainty, iou = map(np.asarray, run(state, network_input(image, SIZE)))

    def enlarged(maps):
        return np.asarray(resize(jnp.asarray(maps)[..., None], (50, 90)))[..., 0]

    predictor.set_image(image)
    found = predictor.predict(**CLICK, return_logits=True)
    np.testing.assert_allclose(found.low_res_logits, np.clip(logits, -32, 32), atol=1e-4)
    np.testing.assert_allclose(found.iou_predictions, iou, atol=1e-5)
    np.testing.assert_allclose(found.masks, enlarged(logits), atol=1e-4)
    np.testing.assert_allclose(found.uncertainty, enlarged(uncertainty), atol=1e-5)
    assert predictor.original_sizes == [(50, 90)]


def test_shapes_types_and_range(predictor):
    predictor.set_image(photo((50, 70)))
    for arguments, lead in ((CLICK, ()), (BOXES, (3,)), ({"box": np.zeros((0, 4))}, (0,))):
        for several, c in ((True, 3), (False, 1)):
            found = predictor.predict(**arguments, multimask_output=several)
            assert found.masks.shape == found.uncertainty.shape == (*lead, c, 50, 70)
            assert found.low_res_logits.shape == (*lead, c, LOW, LOW)
            assert found.iou_predictions.shape == (*lead, c)
            assert found.masks.dtype == bool
            assert {part.dtype for part in found[1:]} == {np.dtype(np.float32)}
            assert all(part.flags.writeable for part in found)
            assert ((found.uncertainty >= 0) & (found.uncertainty <= 1)).all()


def test_masks_are_where_logits_are_above_the_threshold(models):
    predictor = Predictor(models["weibull"], image_size=SIZE, mask_threshold=0.3)
    predictor.set_image(photo((50, 70)))
    logits = predictor.predict(**BOXES, return_logits=True).masks
    masks = predictor.predict(**BOXES).masks
    np.testing.assert_array_equal(masks, logits > np.float32(0.3))
    assert 0 < masks.mean() < 1


def test_logits_that_are_fed_back_are_clamped(models):
    model = nnx.clone(models["hypernetwork"])
    for mlp in model.head.output_hypernetworks_mlps:
        mlp.layers[-1].kernel[...] = 1e4 * mlp.layers[-1].kernel[...]
    predictor = Predictor(model, image_size=SIZE)
    predictor.set_image(photo((50, 70)))
    found = predictor.predict(**CLICK, return_logits=True)
    assert np.abs(found.masks).max() > 32 == np.abs(found.low_res_logits).max()


def test_a_ragged_batch_equals_one_image_at_a_time(predictor, monkeypatch):
    sizes = [(50, 70), (33, 120), (64, 64), (200, 31), (40, 40)]
    images = [photo(size, seed) for seed, size in enumerate(sizes)]
    mask = np.random.default_rng(1).standard_normal((1, LOW, LOW)).astype(np.float32)
    each = [
        CLICK,
        BOXES,
        {"mask_input": mask},
        {"box": [1, 2, 30, 40], "point_coords": [[5, 6], [7, 8], [9, 9]], "point_labels": [1, 0, 0]},
        {"point_coords": [[[5, 6]], [[9, 9]]], "point_labels": [[1], [1]], "mask_input": mask},
    ]
    lists = {
        f"{name}_batch": [given.get(name) for given in each]
        for name in ("point_coords", "point_labels", "box", "mask_input")
    }
    monkeypatch.setattr(module, "_IMAGES_AT_ONCE", 2)
    predictor.set_image_batch(images)
    before = module._decode._cache_size()
    together = predictor.predict_batch(**lists)
    assert module._decode._cache_size() == before + 1
    assert predictor.original_sizes == sizes
    for image, arguments, found in zip(images, each, together, strict=True):
        predictor.set_image(image)
        same(found, predictor.predict(**arguments))


def test_many_objects_are_decoded_in_groups(predictor, monkeypatch):
    predictor.set_image(photo((50, 70)))
    whole = predictor.predict(**BOXES)
    monkeypatch.setattr(module, "_OBJECTS_AT_ONCE", 1)
    same(predictor.predict(**BOXES), whole)


def test_nothing_compiles_anew_for_other_sizes_and_counts(predictor):
    def compiled():
        return module._encode._cache_size(), module._decode._cache_size(), module._show._cache_size()

    predictor.set_image(photo((50, 70)))
    predictor.predict(box=[[0, 0, 9, 9]] * 3, point_coords=[[[1, 1]]] * 3, point_labels=[[1]] * 3)
    before = compiled()
    for size, objects, points in (((90, 71), 4, 2), ((128, 1), 3, 2), ((1, 100), 4, 1)):
        predictor.set_image(photo(size))
        coords = np.zeros((objects, points, 2))
        predictor.predict(
            box=[[0, 0, 9, 9]] * objects, point_coords=coords, point_labels=np.ones(coords.shape[:2], int)
        )
    assert compiled() == before


def test_networks_of_one_structure_share_programs_and_nothing_else(models, predictor):
    other, image = Predictor(network(seed=1), image_size=SIZE), photo((50, 70))
    predictor.set_image(image)
    mine = predictor.predict(**CLICK)
    before = module._encode._cache_size(), module._decode._cache_size()
    other.set_image(image)
    theirs = other.predict(**CLICK)
    assert (module._encode._cache_size(), module._decode._cache_size()) == before
    assert np.abs(mine.low_res_logits - theirs.low_res_logits).max() > 0.01
    same(mine, predictor.predict(**CLICK), atol=0)


def test_a_second_image_never_sees_the_first_ones_features(models, predictor):
    first, second = photo((50, 70), 0), photo((50, 70), 1)
    predictor.set_image(first)
    before = predictor.predict(**CLICK)
    predictor.set_image(second)
    after = predictor.predict(**CLICK)
    fresh = Predictor(models["weibull"], image_size=SIZE)
    fresh.set_image(second)
    same(after, fresh.predict(**CLICK), atol=0)
    assert np.abs(after.low_res_logits - before.low_res_logits).max() > 1e-3
    with pytest.raises(UserError, match="uint8"):
        predictor.set_image(second.astype(np.float32))
    with pytest.raises(UserError, match="no image is set: call set_image first"):
        predictor.predict(**CLICK)


def test_resetting_forgets(predictor):
    predictor.set_image(photo((50, 70)))
    predictor.reset_predictor()
    assert predictor.original_sizes == []
    with pytest.raises(UserError, match="no image is set"):
        predictor.predict(**CLICK)


def test_monte_carlo_follows_its_key_and_comes_near_the_analytic_answer(predictor):
    predictor.set_image(photo((50, 70)))
    how = {"uncertainty": "monte_carlo", "samples": 200}
    first, again, other = (predictor.predict(**CLICK, **how, key=jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.uncertainty, again.uncertainty)
    assert (first.uncertainty != other.uncertainty).any()
    np.testing.assert_array_equal(first.low_res_logits, other.low_res_logits)
    # The probit approximation is within 0.02 of the expected probability; 200 draws deviate by a few hundredths more.
    full = predictor.predict(**CLICK, variance="full")
    assert np.abs(first.uncertainty - full.uncertainty).mean() < 0.05
    assert (full.uncertainty != predictor.predict(**CLICK).uncertainty).any()


def test_a_point_mass_has_the_same_uncertainty_either_way(models):
    predictor = Predictor(models["hypernetwork"], image_size=SIZE)
    predictor.set_image(photo((50, 70)))
    drawn = predictor.predict(**CLICK, uncertainty="monte_carlo", samples=2, key=jax.random.key(0))
    np.testing.assert_array_equal(drawn.uncertainty, predictor.predict(**CLICK).uncertainty)


def test_half_precision_is_near(models, predictor):
    half, image = Predictor(models["weibull"], image_size=SIZE, dtype="bfloat16"), photo((50, 70))
    answers = []
    for each in (predictor, half):
        each.set_image(image)
        answers.append(each.predict(**BOXES))
    spread = answers[0].low_res_logits.std()
    assert np.abs(answers[0].low_res_logits - answers[1].low_res_logits).mean() < 0.1 * spread
    assert np.abs(answers[0].iou_predictions - answers[1].iou_predictions).max() < 0.02
    assert (answers[0].low_res_logits != answers[1].low_res_logits).any()
    assert all(part.dtype == np.float32 for part in answers[1][1:])


def test_a_saved_model_answers_as_the_model(models, predictor, tmp_path):
    save_model(tmp_path / "m", models["weibull"], ModelMetadata("nano", "weibull"))
    loaded = Predictor.from_checkpoint(tmp_path / "m", image_size=SIZE)
    for each in (predictor, loaded):
        each.set_image(photo((50, 70)))
    same(loaded.predict(**CLICK), predictor.predict(**CLICK), atol=0)
    assert Predictor(models["weibull"]).image_size == 128  # nano's own
    with pytest.raises(UserError, match="nowhere: no such folder"):
        Predictor.from_checkpoint(tmp_path / "nowhere")


def test_mistakes_are_explained(predictor, models):
    with pytest.raises(UserError, match="call set_image_batch first"):
        predictor.predict_batch()
    predictor.set_image(photo((50, 70)))
    with pytest.raises(UserError, match="a single image is set, by set_image: call predict"):
        predictor.predict_batch()
    predictor.set_image_batch([photo((50, 70)), photo((30, 30))])
    with pytest.raises(UserError, match="a batch of images is set, by set_image_batch: call predict_batch"):
        predictor.predict(**CLICK)
    with pytest.raises(UserError, match=r"box_batch: expected one entry .* for each of 2 images, found 1"):
        predictor.predict_batch(box_batch=[[0, 0, 1, 1]])
    with pytest.raises(UserError, match="image 1: box: expected shape"):
        predictor.predict_batch(box_batch=[[0, 0, 1, 1], [0, 0, 1]])
    with pytest.raises(UserError, match="expected a list of at least one image"):
        predictor.set_image_batch([])
    with pytest.raises(UserError, match="multiple of 32, found 100"):
        Predictor(models["weibull"], image_size=100)


# Checked on their own: the tests' type checker stops such values at the door.
def test_unknown_names_are_explained():
    with pytest.raises(UserError, match="expected 'analytic' or 'monte_carlo', found 'magic'"):
        module._options("magic", "product", 20, None)
    with pytest.raises(UserError, match="expected 'product' or 'full', found 'half'"):
        module._options("analytic", "half", 20, None)
    with pytest.raises(UserError, match=r"expected a key for the draws, e\.g\. key=jax\.random\.key\(0\), found none"):
        module._options("monte_carlo", "product", 20, None)
    with pytest.raises(UserError, match="samples: expected at least 1, found 0"):
        module._options("monte_carlo", "product", 0, jax.random.key(0))
    with pytest.raises(UserError, match="expected 'float32' or 'bfloat16', found 'float16'"):
        module._compute_dtype("float16")
