"""The style attacker and the graph network that coordinates its slots (paper 3.3, B.2, B.4; method 4.1, 4.2).

Both speak of a delta: what is added to mean (3) and standard deviation (3) of the normalised colours of a slot.
Deviation, so that networks whose output is zero change nothing: a styled standard deviation stays above min(std, 0.1)
instead of 0.1, in the proposal and, where the reference has no floor, after the graph network.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ruac_jax.functional.adain import STD_FLOOR, SlotStatistics
from ruac_jax.sam2.layers import LayerNorm

Bound = Literal["clip", "straight_through"]

NUMBERS = 6  # of a slot: mean and standard deviation of three channels
HIDDEN = 128
DROPOUT = 0.1
RESIDUAL = 0.1  # share of the graph network's output in the refined delta (eq. S19)
_NORM_EPSILON = 1e-5


def _linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(inputs, outputs, kernel_init=nnx.initializers.normal(0.01), rngs=rngs)


class StyleAttacker(nnx.Module):
    """Proposes each slot's delta from its pooled features; 33,926 parameters at 256 features."""

    def __init__(self, d_model: int, *, rngs: nnx.Rngs):
        self.hidden = _linear(d_model, HIDDEN, rngs)
        self.norm = LayerNorm(HIDDEN, _NORM_EPSILON, rngs=rngs)
        self.out = _linear(HIDDEN, NUMBERS, rngs)

    def __call__(
        self, nodes: Float[Array, "b s d"], statistics: SlotStatistics, epsilon: float
    ) -> Float[Array, "b s 6"]:
        """Delta by eq. S10-S11: relative to the statistics, plus a shift of the mean by at most `epsilon`."""
        raw = self.out(jax.nn.relu(self.norm(self.hidden(nodes))))
        relative, shift = jnp.tanh(raw[..., :3] / 2), jnp.tanh(raw[..., 3:])  # tanh(r/2) = 2 s(r) - 1
        mean = statistics.mean * (min(0.2, 200 * epsilon) * relative) + epsilon * shift
        std = statistics.std * (min(0.5, 500 * epsilon) * relative)
        return jnp.concatenate([mean, jnp.maximum(std, _lowest_std_shift(statistics))], axis=-1)


class StyleGraph(nnx.Module):
    """Two graph convolutions that refine the deltas of an image's slots; 33,928 parameters at 256 features."""

    def __init__(self, d_model: int, *, rngs: nnx.Rngs):
        self.project_hidden = _linear(d_model, HIDDEN, rngs)
        self.project_out = _linear(HIDDEN, NUMBERS, rngs)
        self.first = _linear(2 * NUMBERS, 2 * NUMBERS, rngs)
        self.norm = LayerNorm(2 * NUMBERS, _NORM_EPSILON, rngs=rngs)
        self.second = _linear(2 * NUMBERS, NUMBERS, rngs)

    def __call__(
        self,
        delta: Float[Array, "b s 6"],
        nodes: Float[Array, "b s d"],
        adjacency: Float[Array, "b s s"],
        key: PRNGKeyArray | None,
    ) -> Float[Array, "b s 6"]:
        """Refined deltas (eq. S17-S19). `adjacency` is row-normalised; `key` is for dropout, None for none."""
        projected = self.project_out(jax.nn.relu(self.project_hidden(nodes)))
        x = self.first(jnp.concatenate([delta, projected], axis=-1))
        x = jax.nn.relu(self.norm(_aggregate(adjacency, x)))
        if key is not None:
            kept = jax.random.bernoulli(key, 1 - DROPOUT, x.shape)
            x = jnp.where(kept, x / (1 - DROPOUT), 0.0)
        return delta + RESIDUAL * _aggregate(adjacency, self.second(x))


def _aggregate(adjacency: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.einsum("bij,bjc->bic", adjacency, x, precision="highest")


def _lowest_std_shift(statistics: SlotStatistics) -> Float[Array, "b s 3"]:
    return jnp.minimum(statistics.std, STD_FLOOR) - statistics.std


def random_start(key: PRNGKeyArray, statistics: SlotStatistics, reach: float) -> Float[Array, "b s 6"]:
    """Deltas drawn evenly from [-reach, reach], reach in normalised colour units; a standard deviation stays above
    min(std, 0.1)."""
    drawn = jax.random.uniform(key, (*statistics.mean.shape[:2], NUMBERS), minval=-reach, maxval=reach)
    return jnp.concatenate([drawn[..., :3], jnp.maximum(drawn[..., 3:], _lowest_std_shift(statistics))], axis=-1)


def limit_delta(
    delta: Float[Array, "b s 6"], statistics: SlotStatistics, epsilon: float, bound: Bound, start: Float[Array, "b s 6"]
) -> tuple[Float[Array, "b s 6"], Bool[Array, "b s 6"]]:
    """Bounds deltas to [-epsilon, epsilon]; a standard deviation, after `start` and delta, stays above min(std, 0.1).

    A hard clip ("clip", the reference's) passes no gradient to what lies outside; "straight_through" passes it
    whole, so that a saturated attacker still learns.

    Returns:
      The bounded deltas, and which entries sit at a bound.
    """
    floor = jnp.maximum(_lowest_std_shift(statistics) - start[..., 3:], -epsilon)
    lower = jnp.concatenate([jnp.full_like(floor, -epsilon), floor], axis=-1)
    bounded = jnp.clip(delta, lower, epsilon)
    saturated = (delta < lower) | (delta > epsilon)
    if bound == "straight_through":
        bounded = delta + jax.lax.stop_gradient(bounded - delta)
    return bounded, saturated
