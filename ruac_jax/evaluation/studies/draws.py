"""The uncertainty of a mask by several methods at once: one decoder pass, one sequence of draws."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from ruac_jax.functional.uncertainty import bernoulli_entropy
from ruac_jax.heads.distribution import MaskDistribution
from ruac_jax.inference import choose, encode
from ruac_jax.interaction import repeat_for_objects
from ruac_jax.model import SAM2, ImageFeatures, Prompts

VARIANCES = ("product", "full")


class Maps(NamedTuple):
    """A `Prediction` of the evaluation."""

    logits: Float[Array, "n h w"]
    probability: Float[Array, "n h w"]
    uncertainty: Float[Array, "n h w"]


class Spread(NamedTuple):
    """The chosen masks of `n` objects. Methods: "product", "full" (analytic), and numbers of draws as strings.

    Attributes:
      logits: mean logits; they make the mask, whatever the method.
      probability: by method.
      uncertainty: its entropy over ln 2, by method.
      variance: of the logits, by the two formulas.
    """

    logits: Float[Array, "n h w"]
    probability: dict[str, Float[Array, "n h w"]]
    uncertainty: dict[str, Float[Array, "n h w"]]
    variance: dict[str, Float[Array, "n h w"]]

    def maps(self, method: str) -> Maps:
        """What the evaluation would get from a method."""
        return Maps(self.logits, self.probability[method], self.uncertainty[method])


class SpreadPredictor:
    """A model that tells the uncertainty of its best mask by every method; compiled once for each number of objects."""

    def __init__(self, model: SAM2, image_size: int, counts: Sequence[int]):
        """Takes a network, the side of the square images that it sees (px), and the numbers of draws, ascending."""
        self.image_size = image_size
        graph, self._state = nnx.split(model)

        @jax.jit
        def encode_one(state: Any, image: Array) -> ImageFeatures:
            return encode(nnx.merge(graph, state), image[None])

        @jax.jit
        def decode_objects(
            state: Any, features: ImageFeatures, points: Array, labels: Array, key: PRNGKeyArray
        ) -> Spread:
            return _spread(nnx.merge(graph, state), features, points, labels, tuple(counts), key)

        self._encode, self._decode = encode_one, decode_objects

    def encode(self, image: UInt8[np.ndarray, "s s 3"]) -> ImageFeatures:
        """Features of one RGB image."""
        return self._encode(self._state, image)

    def decode(
        self,
        features: ImageFeatures,
        points: Float[np.ndarray, "n p 2"],
        labels: Int[np.ndarray, "n p"],
        key: PRNGKeyArray,
    ) -> Spread:
        """Masks and uncertainties of `n` objects."""
        return self._decode(self._state, features, points, labels, key)


def _spread(
    model: SAM2, features: ImageFeatures, points: Array, labels: Array, counts: tuple[int, ...], key: PRNGKeyArray
) -> Spread:
    n = len(points)
    height, width = features.high_res_s0.shape[1:3]
    prompts = Prompts(points, labels, jnp.zeros((n, height, width), jnp.float32), jnp.zeros(n, bool))
    chosen = choose(model, repeat_for_objects(features, n), prompts)
    distribution = chosen.distribution
    drawn = running_probabilities(distribution, counts, key)[:, :, 0]
    probability = {mode: distribution.probability(mode=mode)[:, 0] for mode in VARIANCES}
    uncertainty = {mode: distribution.uncertainty(mode=mode)[:, 0] for mode in VARIANCES}
    by_count = dict(zip(map(str, counts), drawn, strict=True))
    return Spread(
        logits=chosen.logits,
        probability=probability | by_count,
        uncertainty=uncertainty | {count: bernoulli_entropy(p) for count, p in by_count.items()},
        variance={mode: distribution.variance(mode)[:, 0] for mode in VARIANCES},
    )


def running_probabilities(
    distribution: MaskDistribution, counts: Sequence[int], key: PRNGKeyArray
) -> Float[Array, "k n t h w"]:
    """Mean of s(logits) over the first `counts[0]`, `counts[1]`, ... draws of one sequence.

    Each equals `monte_carlo_probability` with the same key, up to the rounding of float32 sums (about 1e-6 after
    thousands of draws). The memory does not grow with the numbers.

    Args:
      distribution: over the logits of `t` masks for each of `n` objects.
      counts: ascending, at least 1.
      key: draw i uses fold_in(key, i).
    """
    shape = jax.eval_shape(distribution.mean_logits)

    def draw(i: Array, total: Array) -> Array:
        return total + jax.nn.sigmoid(distribution.sample_logits(jax.random.fold_in(key, i)))

    def extend(total: Array, span: Array) -> tuple[Array, Array]:
        total = jax.lax.fori_loop(span[0], span[1], draw, total)
        return total, total / span[1].astype(total.dtype)

    spans = jnp.asarray(list(zip((0, *counts[:-1]), counts, strict=True)), jnp.int32)
    return jax.lax.scan(extend, jnp.zeros(shape.shape, shape.dtype), spans)[1]
