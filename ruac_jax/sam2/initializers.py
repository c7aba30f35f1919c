"""Initial weights drawn on the host.

Drawn by JAX, every shape would compile a random program of its own, half a minute for the smallest network. Inside a
trace, where only shapes matter, JAX's own initialisers stand in.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Initializer = Callable[..., jax.Array]


def normal(stddev: float) -> Initializer:
    """Normal with mean 0."""

    def init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        if isinstance(key, jax.core.Tracer):
            return nnx.initializers.normal(stddev)(key, shape, dtype)
        return jnp.asarray(stddev * _generator(key).standard_normal(shape), dtype)

    return init


def lecun_normal() -> Initializer:
    """Normal cut at two deviations, of variance 1 / fan-in; kernels end in (in, out)."""

    def init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        if isinstance(key, jax.core.Tracer):
            return nnx.initializers.lecun_normal()(key, shape, dtype)
        generator = _generator(key)
        values = generator.standard_normal(shape)
        while (outside := np.abs(values) > 2).any():
            values[outside] = generator.standard_normal(np.count_nonzero(outside))
        deviation_after_cut = 0.87962566103423978
        return jnp.asarray(values / (deviation_after_cut * math.sqrt(math.prod(shape[:-1]))), dtype)

    return init


def _generator(key: Any) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))
