"""The one interface of all heads: decoder features in, a distribution over mask logits out."""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

UncertaintyMethod = Literal["analytic", "monte_carlo"]
VarianceMode = Literal["product", "full"]


class DecoderFeatures(NamedTuple):
    """What every head starts from, for `n` objects; float32 or bfloat16.

    Attributes:
      pixels: upscaled features at stride 4, after the last GELU; c is an eighth of d.
      tokens: m mask tokens, the single-mask token first.
      iou: predicted IoU of each token's mask, in [0, 1].
      object_score: logit of the object being present.
    """

    pixels: Float[Array, "n h w c"]
    tokens: Float[Array, "n m d"]
    iou: Float[Array, "n m"]
    object_score: Float[Array, "n"]


@runtime_checkable
class MaskDistribution(Protocol):
    """A distribution over the logits of `t` masks for each of `n` objects, at stride 4; a pytree, float32.

    `method` and `mode` choose how a spread is computed where a head knows several ways; `samples` and `key` serve
    "monte_carlo" alone.
    """

    def mean_logits(self) -> Float[Array, "n t h w"]:
        """The logits to predict with."""

    def variance(self, mode: VarianceMode = "product") -> Float[Array, "n t h w"]:
        """Variance of the logits."""

    def sample_logits(self, key: PRNGKeyArray) -> Float[Array, "n t h w"]:
        """One differentiable draw, for training."""

    def probability(
        self,
        method: UncertaintyMethod = "analytic",
        *,
        mode: VarianceMode = "product",
        samples: int = 20,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "n t h w"]:
        """Foreground probability with the spread taken into account: what `uncertainty` is about."""

    def uncertainty(
        self,
        method: UncertaintyMethod = "analytic",
        *,
        mode: VarianceMode = "product",
        samples: int = 20,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "n t h w"]:
        """Uncertainty in [0, 1]."""

    def regularizer(self) -> Float[Array, "n"]:
        """Divergence from the prior per object, not weighted; 0 where a head has none."""

    def likelihood(self, truth: Float[Array, "n h w"]) -> Float[Array, "n"]:
        """A loss of the head's own per object, in nats: how unlikely it thinks the truth; 0 where a head has none.

        Args:
          truth: share of each cell that the object covers, in [0, 1], at stride 4.
        """

    def diagnostics(self) -> dict[str, Float[Array, ""]]:
        """What a run should log about the state of the head, by name."""

    def select(self, start: int, stop: int) -> "MaskDistribution":
        """Tokens start to stop - 1."""

    def take(self, index: Int[Array, "n"]) -> "MaskDistribution":
        """One token per object, so that t = 1."""


def monte_carlo_probability(
    distribution: MaskDistribution, samples: int, key: PRNGKeyArray | None
) -> Float[Array, "n t h w"]:
    """Mean of s(logits) over independent draws; draw i uses fold_in(key, i).

    Sums as it goes, so the memory does not depend on `samples`. For evaluation: a backward pass would keep all draws.

    Raises:
      ValueError: without a key or without samples.
    """
    if key is None or samples < 1:
        raise ValueError(f"monte_carlo needs a key and at least 1 sample; got key={key}, samples={samples}")

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        return total + jax.nn.sigmoid(distribution.sample_logits(jax.random.fold_in(key, i)))

    shape = jax.eval_shape(distribution.mean_logits)
    return jax.lax.fori_loop(0, samples, add, jnp.zeros(shape.shape, shape.dtype)) / samples


def take_token(x: Float[Array, "n t *s"], index: Int[Array, "n"]) -> Float[Array, "n 1 *s"]:
    """Row `index` of axis 1, as a product with a one-hot vector: indexing would scatter in the backward pass."""
    chosen = jax.nn.one_hot(index, x.shape[1], dtype=x.dtype)
    return (x * chosen.reshape(*chosen.shape, *(1,) * (x.ndim - 2))).sum(axis=1, keepdims=True)
