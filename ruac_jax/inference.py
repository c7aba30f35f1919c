"""From an image and prompts to masks with uncertainty: the one decoding path of evaluation and prediction."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from ruac_jax.heads.distribution import MaskDistribution
from ruac_jax.model import SAM2, ImageFeatures, Prompts, normalize_image, stable_token, suppress_absent

Choice = Literal["best", "single", "stable"]

_EXACT = ("head", "memory_encoder", "pe_layer")  # parameters that keep their digits


class Segmentation(NamedTuple):
    """The chosen mask of each object, at a quarter of the network's image size.

    Attributes:
      logits: mean mask logits; -1024 everywhere where the network sees no object.
      probability: of the object at each pixel, the one that the uncertainty is the entropy of.
      uncertainty: in [0, 1].
      iou: predicted IoU of the mask.
      token: which mask token was chosen.
    """

    logits: Float[Array, "n h w"]
    probability: Float[Array, "n h w"]
    uncertainty: Float[Array, "n h w"]
    iou: Float[Array, "n"]
    token: Int[Array, "n"]


def encode(model: SAM2, image: Shaped[Array, "b s s 3"], dtype: jnp.dtype = jnp.float32) -> ImageFeatures:
    """Encodes RGB images of the network's size, uint8 or float from 0 to 255, once for all their objects."""
    return model.project(model.backbone(normalize_image(image).astype(dtype)))


class Chosen(NamedTuple):
    """The chosen mask of each object, as a distribution over its logits.

    Attributes:
      distribution: of one token per object.
      logits: its mean; -1024 everywhere where the network sees no object.
      iou: predicted IoU.
      token: which mask token was chosen.
    """

    distribution: MaskDistribution
    logits: Float[Array, "n h w"]
    iou: Float[Array, "n"]
    token: Int[Array, "n"]


def choose(model: SAM2, features: ImageFeatures, prompts: Prompts, choice: Choice = "best") -> Chosen:
    """Decodes each object's prompts and keeps one mask; arguments as those of `segment`."""
    decoded = model.decode(features, prompts)
    every = model.head(decoded)
    token = _token(every, decoded.iou, choice)
    distribution = every.take(token)
    logits = suppress_absent(distribution.mean_logits(), decoded.object_score)[:, 0]
    return Chosen(distribution, logits, _iou_of(decoded.iou, token), token)


def _token(every: MaskDistribution, iou: Float[Array, "n t"], choice: Choice) -> Int[Array, "n"]:
    if choice == "best":
        return 1 + jnp.argmax(iou[:, 1:], axis=1)
    if choice == "stable":
        return stable_token(every.mean_logits(), iou)
    return jnp.zeros(iou.shape[0], jnp.int32)


def _iou_of(iou: Float[Array, "n t"], token: Int[Array, "n"]) -> Float[Array, "n"]:
    return (iou.astype(jnp.float32) * jax.nn.one_hot(token, iou.shape[1])).sum(axis=1)


def segment(
    model: SAM2,
    features: ImageFeatures,
    prompts: Prompts,
    *,
    choice: Choice = "best",
    method: Literal["analytic", "monte_carlo"] = "analytic",
    variance: Literal["product", "full"] = "product",
    samples: int = 20,
    key: PRNGKeyArray | None = None,
) -> Segmentation:
    """Decodes each object's prompts and keeps one mask.

    Args:
      model: the network.
      features: one row per object.
      prompts: one row per object.
      choice: "best" keeps the hypothesis (mask tokens 1 to 3) of the highest predicted IoU, "single" token 0, made for
        unambiguous prompts, "stable" token 0 where its mask is stable, else the best hypothesis (SAM2's dynamic
        multimask).
      method: how the uncertainty is computed (docs/method.md, section 3).
      variance: which logit variance the analytic uncertainty uses.
      samples: draws of the Monte Carlo uncertainty.
      key: for those draws.
    """
    chosen = choose(model, features, prompts, choice)
    how = {"mode": variance, "samples": samples, "key": key}
    return Segmentation(
        logits=chosen.logits,
        probability=chosen.distribution.probability(method, **how)[:, 0],
        uncertainty=chosen.distribution.uncertainty(method, **how)[:, 0],
        iou=chosen.iou,
        token=chosen.token,
    )


class Hypotheses(NamedTuple):
    """Masks of each object as SAM2's image predictor gives them, at a quarter of the network's image size.

    Attributes:
      logits: mean mask logits, whatever the object score says: SAM2's image predictor does not ask it.
      uncertainty: in [0, 1].
      iou: predicted IoU.
    """

    logits: Float[Array, "n t h w"]
    uncertainty: Float[Array, "n t h w"]
    iou: Float[Array, "n t"]


def propose(
    model: SAM2,
    features: ImageFeatures,
    prompts: Prompts,
    *,
    several: bool,
    method: Literal["analytic", "monte_carlo"] = "analytic",
    variance: Literal["product", "full"] = "product",
    samples: int = 20,
    key: PRNGKeyArray | None = None,
) -> Hypotheses:
    """Decodes each object's prompts, with `several` to all hypotheses (tokens 1 to 3), else to the "stable" choice.

    The other arguments are those of `segment`.
    """
    decoded = model.decode(features, prompts)
    every = model.head(decoded)
    if several:
        kept, iou = every.select(1, decoded.iou.shape[1]), decoded.iou[:, 1:].astype(jnp.float32)
    else:
        token = _token(every, decoded.iou, "stable")
        kept, iou = every.take(token), _iou_of(decoded.iou, token)[:, None]
    uncertainty = kept.uncertainty(method, mode=variance, samples=samples, key=key)
    return Hypotheses(kept.mean_logits(), uncertainty, iou)


def cast_for_inference(model: SAM2, dtype: jnp.dtype) -> SAM2:
    """The model with its parameters in the type to compute in.

    The head stays float32, and so do the matrix of the position encoding, whose products with coordinates need the
    digits, and the memory encoder, which prediction does not use.
    """
    graph, state = nnx.split(model)

    def cast(path: tuple[Any, ...], x: Array | np.ndarray) -> Array | np.ndarray:
        exact = any(str(getattr(entry, "key", "")) in _EXACT for entry in path)
        return x if exact or not jnp.issubdtype(x.dtype, jnp.floating) else x.astype(dtype)

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(cast, state))
