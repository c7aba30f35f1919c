import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ruac_jax.interaction import repeat_for_objects
from ruac_jax.model import Prompts, normalize_image
from ruac_jax.training.victim import decoder_loss


def test_it_is_the_cross_entropy_of_token_0_over_valid_objects_and_pulls_on_images_alone(system, batch_of):
    batch = batch_of(3)
    image = normalize_image(jnp.asarray(batch.image))
    points, labels = jnp.full((6, 1, 2), 20.0), jnp.ones((6, 1), jnp.int32)
    graph, state = nnx.split(system.model)

    def loss(state, image):
        model = nnx.merge(graph, state)
        victim = decoder_loss(
            model, jnp.asarray(batch.masks), jnp.asarray(batch.valid), points, labels, jnp.dtype("float32")
        )
        return victim(image)

    value, (to_state, to_image) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(state, image)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(to_state))
    assert np.abs(to_image).max() > 1e-6

    model = system.model
    rows = repeat_for_objects(model.project(model.backbone(image)), 2)
    prompts = Prompts(points, labels, jnp.zeros((6, 16, 16)), jnp.zeros(6, bool))
    logits = np.asarray(model.head(model.decode(rows, prompts)).mean_logits()[:, 0], np.float64)
    truth = batch.masks.reshape(6, 16, 4, 16, 4).mean(axis=(2, 4)) >= 0.5
    error = np.logaddexp(0, np.where(truth, -logits, logits)).mean(axis=(1, 2))
    np.testing.assert_allclose(value, error[batch.valid.reshape(-1)].mean(), rtol=1e-5)
