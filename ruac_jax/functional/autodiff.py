"""Operators that differ from what they seem to be only in the backward pass."""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Tree = TypeVar("Tree")


def reverse_gradient(tree: Tree) -> Tree:
    """Gives back its argument and negates the gradient that flows through it.

    Between an attacker and the network it attacks, this lets one backward pass descend for the network and ascend
    for the attacker (paper 3.3; gradient reversal without a scale).

    Args:
      tree: any pytree; leaves that are not floating point pass unchanged.

    Returns:
      A tree equal to `tree`.
    """
    return jax.tree.map(lambda x: _reverse(x) if jnp.issubdtype(jnp.result_type(x), jnp.inexact) else x, tree)


@jax.custom_vjp
def _reverse(x: jax.Array) -> jax.Array:
    return x


_reverse.defvjp(lambda x: (x, None), lambda _, cotangent: (-cotangent,))


@jax.custom_vjp
def ste_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Rectifier with a straight-through gradient: max(x, 0) forward, the identity backward (paper A.5).

    Features reach exact zero ("no evidence") and still learn, where a plain rectifier would have died.
    """
    return jnp.maximum(x, 0)


ste_relu.defvjp(lambda x: (jnp.maximum(x, 0), None), lambda _, cotangent: (cotangent,))


@jax.custom_vjp
def opening_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`ste_relu` whose closed units (x <= 0) feel only what descent would open them by: negative cotangents.

    The others change no output: under `ste_relu` they push closed units down without end, and what flows on into the
    layers before is no gradient of the loss (docs/deviations.md). Not from the paper.
    """
    return jnp.maximum(x, 0)


opening_relu.defvjp(
    lambda x: (jnp.maximum(x, 0), x > 0),
    lambda is_open, cotangent: (jnp.where(is_open | (cotangent < 0), cotangent, jnp.zeros_like(cotangent)),),
)
