import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special

from ruac_jax.inference import encode, segment
from ruac_jax.interaction import repeat_for_objects
from ruac_jax.model import Prompts, stable_token
from ruac_jax.weights import create_model

OBJECTS = 6


@pytest.fixture(scope="module")
def model():
    return create_model("nano", "weibull", rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def scene(model):
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 256, (1, 64, 64, 3), np.uint8))
    points = jnp.asarray(rng.uniform(0, 64, (OBJECTS, 2, 2)), jnp.float32)
    prompts = Prompts(points, jnp.ones((OBJECTS, 2), jnp.int32), jnp.zeros((OBJECTS, 16, 16)), jnp.zeros(OBJECTS, bool))
    return repeat_for_objects(encode(model, image), OBJECTS), prompts


def test_each_choice_takes_its_token(model, scene):
    decoded = model.decode(*scene)
    logits = np.asarray(model.head(decoded).mean_logits())
    iou = np.asarray(decoded.iou)
    expected = {
        "best": 1 + iou[:, 1:].argmax(axis=1),
        "single": np.zeros(OBJECTS, int),
        "stable": np.asarray(stable_token(jnp.asarray(logits), decoded.iou)),
    }
    for choice, tokens in expected.items():
        found = segment(model, *scene, choice=choice)
        np.testing.assert_array_equal(found.token, tokens)
        np.testing.assert_allclose(found.logits, logits[np.arange(OBJECTS), tokens], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.iou, iou[np.arange(OBJECTS), tokens], rtol=1e-6)


@pytest.mark.parametrize(
    "how", [{}, {"variance": "full"}, {"method": "monte_carlo", "samples": 3, "key": jax.random.key(0)}]
)
def test_uncertainty_is_the_entropy_of_the_probability_beside_it(model, scene, how):
    found = segment(model, *scene, **how)
    p = np.asarray(found.probability, np.float64)
    entropy = (special.entr(p) + special.entr(1 - p)) / np.log(2)
    np.testing.assert_allclose(found.uncertainty, entropy, atol=2e-5)
