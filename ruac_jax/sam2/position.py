"""Random Fourier position encoding of prompts and of the image grid.

Mirrors PositionEmbeddingRandom of sam2/modeling/position_encoding.py. Deviation: always computed in float32
and cast at the end, since bfloat16 phases would be off by whole turns of a pixel.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float


class PositionEmbeddingRandom(nnx.Module):
    """Sine and cosine of random linear combinations of normalised (x, y); the matrix is not trained."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.positional_encoding_gaussian_matrix = nnx.Variable(jax.random.normal(rngs.params(), (2, features // 2)))

    def __call__(self, points: Float[Array, "*s 2"]) -> Float[Array, "*s c"]:
        """Encodes (x, y) given as fractions of the image, 0 to 1; float32."""
        matrix = self.positional_encoding_gaussian_matrix[...].astype(jnp.float32)
        # Written out: a matrix product would be rounded to fewer bits on accelerators.
        centred = 2.0 * points.astype(jnp.float32) - 1.0
        shape = (1,) * (points.ndim - 1) + (matrix.shape[1],)
        phase = centred[..., 0:1] * matrix[0].reshape(shape) + centred[..., 1:2] * matrix[1].reshape(shape)
        phase = 2.0 * math.pi * phase
        return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)

    def grid(self, height: int, width: int) -> Float[Array, "{height} {width} c"]:
        """Encodes the centres of a grid of cells."""
        y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
        return self(jnp.asarray(np.stack([x, y], axis=-1), jnp.float32))
