"""The evidential head in the training step: its likelihood is part of the segmentation loss of both branches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ruac_jax.functional.resize import resize
from ruac_jax.interaction import interact
from ruac_jax.training.objective import PHASES
from ruac_jax.training.system import System, split_system
from ruac_jax.weights import create_model

from .test_objective import differentiate, norm

ADVERSARIAL = PHASES[2]


@pytest.fixture(scope="module")
def model():
    return create_model("nano", "evidential", rngs=nnx.Rngs(0))


@pytest.mark.slow
def test_the_likelihood_joins_the_loss_of_both_branches(model, system, batch, config):
    parts = split_system(System(model, system.attack), config.optimizer)
    grads, channels, sums = differentiate(parts, batch, config, ADVERSARIAL)
    weights = config.loss
    for branch in ("clean", "adversarial"):
        assert abs(sums[f"{branch}/likelihood"]) > 1
        terms = {name: sums[f"{branch}/{name}"] for name in ("focal", "dice", "iou", "object")}
        plain = 20 * terms["focal"] + terms["dice"] + terms["iou"] + terms["object"]
        expected = plain + sums[f"{branch}/likelihood"]
        np.testing.assert_allclose(sums[f"{branch}/segmentation"], expected, rtol=1e-5)
        assert sums[f"{branch}/kl"] == 0
    calibration = sums["adversarial/calibration_error"] + sums["adversarial/calibration_uncertainty"]
    expected = 0.8 * sums["clean/segmentation"] + 0.2 * (sums["adversarial/segmentation"] + 0.1 * calibration)
    np.testing.assert_allclose(channels.main, expected, rtol=1e-5)
    assert weights.adversarial == 0.2
    assert {"head/evidence", "head/aleatoric", "head/epistemic"} <= sums.keys()
    assert norm(grads["head"]["model"]["head"]["ur_ern_head"]) > 0
    assert norm(grads["head"]["model"]["head"]["output_hypernetworks_mlps"]) > 0


@pytest.mark.slow
def test_the_likelihood_is_summed_over_the_clicks(model, batch, config):
    graph, state = nnx.split(model)
    truth = jnp.asarray(batch.masks[:2, 0])
    image = jax.random.normal(jax.random.key(0), (2, *truth.shape[1:], 3))
    points, labels = jnp.full((2, 1, 2), 30.0), jnp.ones((2, 1), jnp.int32)

    def run(corrections):
        settings = dataclasses.replace(config.interaction, corrections=corrections)

        def click(state):
            model = nnx.merge(graph, state)
            features = model.project(model.backbone(image))
            key = jax.random.key(5)
            return interact(model, features, truth, points, labels, key, settings, rematerialize=False)

        return jax.jit(click)(state)

    first, both = run(0), run(1)
    coarse = resize(truth[..., None].astype(jnp.float32), (16, 16), "area")[..., 0]
    of_first, of_last = (done.distribution.likelihood(coarse) for done in (first, both))
    np.testing.assert_allclose(first.likelihood, of_first, rtol=1e-5)
    np.testing.assert_allclose(both.likelihood, of_first + of_last, rtol=1e-4)
    assert np.all(np.asarray(of_last) != np.asarray(of_first))
