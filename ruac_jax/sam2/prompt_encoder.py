"""Prompts to embeddings: clicks and box corners as tokens, a mask as a dense map.

Mirrors sam2/modeling/sam/prompt_encoder.py. Deviations: boxes come as two points with labels 2 and 3 (as
SAM2's own predictor feeds them), so the padding point is always appended; label -2 marks an absent slot,
which no attention sees, and label -3 one in a row without any point, where SAM2's predictor leaves out the
padding point, too; whether a row has a mask is data, not structure; the image size is the embedding's times
16 instead of a constant.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ruac_jax.sam2.initializers import normal
from ruac_jax.sam2.layers import Conv, LayerNorm, gelu
from ruac_jax.sam2.position import PositionEmbeddingRandom
from ruac_jax.sam2.variants import Variant

NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = 0, 1, 2, 3
PADDING, ABSENT, NO_POINTS = -1, -2, -3
STRIDE = 16


def embedding(features: int, rngs: nnx.Rngs, rows: int = 1) -> nnx.Embed:
    """A table of unit normal rows: the position encodings they are added to have entries of order one."""
    return nnx.Embed(rows, features, embedding_init=normal(1.0), rngs=rngs)


class PromptEncoder(nnx.Module):
    """Embeds prompts in `d_model` channels."""

    def __init__(self, variant: Variant, *, rngs: nnx.Rngs):
        d, c = variant.d_model, variant.mask_in_chans
        self.pe_layer = PositionEmbeddingRandom(d, rngs=rngs)
        self.point_embeddings = nnx.List([embedding(d, rngs) for _ in range(4)])
        self.not_a_point_embed = embedding(d, rngs)
        self.mask_downscaling = nnx.List(
            [
                Conv(1, c // 4, 2, stride=2, rngs=rngs),
                LayerNorm(c // 4, rngs=rngs),
                gelu,
                Conv(c // 4, c, 2, stride=2, rngs=rngs),
                LayerNorm(c, rngs=rngs),
                gelu,
                Conv(c, d, 1, rngs=rngs),
            ]
        )
        self.no_mask_embed = embedding(d, rngs)

    def dense_position(self, height: int, width: int) -> Float[Array, "{height} {width} d"]:
        """Position encoding of the image embedding's grid, float32."""
        return self.pe_layer.grid(height, width)

    def embed_points(
        self, points: Float[Array, "n p 2"], labels: Int[Array, "n p"], grid: tuple[int, int]
    ) -> tuple[Float[Array, "n p+1 d"], Bool[Array, "n p+1"]]:
        """Tokens of the points and of the padding point behind them, and which of them attention may see.

        Points are (x, y) pixels of an image of 16 times `grid` (height, width). Labels: 1 positive, 0
        negative, 2 and 3 the corners of a box, -1 a padding point, -2 an absent slot, -3 an
        absent slot of an object that has no point, and so no padding point either.
        """
        n = points.shape[0]
        points = jnp.concatenate([points, jnp.zeros((n, 1, 2), points.dtype)], axis=1)
        padding = jnp.where((labels == NO_POINTS).any(axis=1, keepdims=True), ABSENT, PADDING).astype(labels.dtype)
        labels = jnp.concatenate([labels, padding], axis=1)
        size = jnp.array([grid[1] * STRIDE, grid[0] * STRIDE], jnp.float32)
        position = self.pe_layer((points.astype(jnp.float32) + 0.5) / size[None, None, :])
        tokens = jnp.where((labels >= 0)[:, :, None], position, 0.0)
        kinds = [(PADDING, self.not_a_point_embed), *enumerate(self.point_embeddings)]
        dtype = self.not_a_point_embed.embedding[...].dtype
        tokens = tokens.astype(dtype)
        for label, table in kinds:
            tokens = tokens + jnp.where((labels == label)[:, :, None], table.embedding[...][None, :, :], 0)
        return tokens, labels > ABSENT

    def embed_mask(self, mask: Float[Array, "n h4 w4"], has_mask: Bool[Array, " n"]) -> Float[Array, "n h w d"]:
        """Dense embedding of low-resolution logits, or the no-mask embedding in rows without one."""
        none = self.no_mask_embed.embedding[...]
        x = mask[..., None].astype(none.dtype)
        for layer in self.mask_downscaling:
            x = layer(x)
        return jnp.where(has_mask[:, None, None, None], x, none[:, None, None, :])
