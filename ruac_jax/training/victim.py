"""What attacks by gradients climb: the decoder's error on an image, prompted as in the clean branch."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ruac_jax.attacks.attack import Victim
from ruac_jax.functional.resize import resize
from ruac_jax.interaction import repeat_for_objects
from ruac_jax.model import SAM2, Prompts


def decoder_loss(
    model: SAM2,
    masks: Bool[Array, "b k H W"],
    valid: Bool[Array, "b k"],
    points: Float[Array, "n p 2"],
    labels: Int[Array, "n p"],
    dtype: jnp.dtype,
) -> Victim:
    """Binary cross-entropy of the mean logits of mask token 0, at stride 4, mean over the valid objects' pixels.

    Args:
      model: the network; no gradient reaches its parameters.
      masks: objects at image resolution.
      valid: False for slots without an object.
      points: first prompts of the n = b k objects.
      labels: of the points.
      dtype: in which the encoder computes.
    """
    graph, state = nnx.split(model)
    model = nnx.merge(graph, jax.lax.stop_gradient(state))
    flat = valid.reshape(-1)

    def loss(image: Float[Array, "b H W 3"]) -> Float[Array, ""]:
        features = repeat_for_objects(model.project(model.backbone(image.astype(dtype))), masks.shape[1])
        n, height, width = len(labels), *features.high_res_s0.shape[1:3]
        blank = jnp.zeros((n, height, width), jnp.float32)
        decoded = model.decode(features, Prompts(points, labels, blank, jnp.zeros(n, bool)))
        logits = model.head(decoded).select(0, 1).mean_logits()[:, 0]
        truth = masks.reshape(n, *masks.shape[2:], 1).astype(jnp.float32)
        coarse = (resize(truth, (height, width), "area")[..., 0] >= 0.5).astype(jnp.float32)
        error = optax.sigmoid_binary_cross_entropy(logits, coarse).mean(axis=(1, 2))
        return jnp.where(flat, error, 0.0).sum() / jnp.maximum(flat.sum(), 1).astype(jnp.float32)

    return loss
