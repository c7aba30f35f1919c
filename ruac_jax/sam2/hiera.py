"""Hiera, the hierarchical vision transformer of SAM2's image encoder.

Mirrors sam2/modeling/backbones/hieradet.py and backbones/utils.py. Deviations: no stochastic depth (zero in
every released configuration); max-pooling is a maximum over a reshaped axis, so that its gradient holds no
scatter.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ruac_jax.functional.resize import resize
from ruac_jax.sam2.layers import MLP, Conv, LayerNorm, Linear, attention, gelu
from ruac_jax.sam2.variants import Variant


def max_pool_2x2(x: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 c"]:
    """Maximum over 2x2 tiles."""
    b, h, w, c = x.shape
    return jnp.max(x.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))


def window_partition(x: Float[Array, "b h w c"], window: int) -> Float[Array, "n window window c"]:
    """Square tiles of tokens; the map is zero-padded at the bottom and right where they do not fit."""
    b, h, w, c = x.shape
    rows, columns = -(-h // window), -(-w // window)
    x = jnp.pad(x, ((0, 0), (0, rows * window - h), (0, columns * window - w), (0, 0)))
    x = x.reshape(b, rows, window, columns, window, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b * rows * columns, window, window, c)


def window_unpartition(
    windows: Float[Array, "n window window c"], height: int, width: int
) -> Float[Array, "b {height} {width} c"]:
    """Inverse of `window_partition`; the padding is cut off."""
    window, c = windows.shape[-2:]
    rows, columns = -(-height // window), -(-width // window)
    x = windows.reshape(-1, rows, columns, window, window, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, rows * window, columns * window, c)[:, :height, :width, :]


class PatchEmbed(nnx.Module):
    """7x7 convolution of stride 4."""

    def __init__(self, embed_dim: int, *, rngs: nnx.Rngs):
        self.proj = Conv(3, embed_dim, 7, stride=4, padding=3, rngs=rngs)

    def __call__(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b h//4 w//4 c"]:
        """Embeds an image."""
        return self.proj(image)


class MultiScaleAttention(nnx.Module):
    """Self-attention within each element of the batch: a window, or the whole map. `pool` pools queries."""

    def __init__(self, dim: int, dim_out: int, num_heads: int, *, pool: bool, rngs: nnx.Rngs):
        self.num_heads = num_heads
        self.pool = pool
        self.qkv = Linear(dim, 3 * dim_out, rngs=rngs)
        self.proj = Linear(dim_out, dim_out, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b newh neww o"]:
        """Returns half the height and width where queries are pooled, else the same."""
        q, k, v = jnp.split(self.qkv(x), 3, axis=-1)
        if self.pool:
            q = max_pool_2x2(q)
        b, h, w, c = q.shape
        out = attention(self._heads(q), self._heads(k), self._heads(v))
        return self.proj(out.transpose(0, 2, 1, 3).reshape(b, h, w, c))

    def _heads(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        return x.reshape(b, h * w, self.num_heads, c // self.num_heads).transpose(0, 2, 1, 3)


class MultiScaleBlock(nnx.Module):
    """Transformer block; `window` 0 attends over the whole map, `pool` halves the resolution."""

    def __init__(self, dim: int, dim_out: int, num_heads: int, *, window: int, pool: bool, rngs: nnx.Rngs):
        self.window = window
        self.pool = pool
        self.norm1 = LayerNorm(dim, rngs=rngs)
        self.attn = MultiScaleAttention(dim, dim_out, num_heads, pool=pool, rngs=rngs)
        self.norm2 = LayerNorm(dim_out, rngs=rngs)
        self.mlp = MLP(dim_out, 4 * dim_out, dim_out, 2, activation=gelu, rngs=rngs)
        if dim != dim_out:
            self.proj = Linear(dim, dim_out, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b newh neww o"]:
        """Applies the block."""
        normed = self.norm1(x)
        if hasattr(self, "proj"):
            x = self.proj(normed)
            x = max_pool_2x2(x) if self.pool else x
        if self.window > 0:
            windows = self.attn(window_partition(normed, self.window))
            x = x + window_unpartition(windows, *x.shape[1:3])
        else:
            x = x + self.attn(normed)
        return x + self.mlp(self.norm2(x))


class Hiera(nnx.Module):
    """The trunk: four stages at strides 4, 8, 16 and 32."""

    def __init__(self, variant: Variant, *, rngs: nnx.Rngs):
        v = variant
        self.stage_ends = v.stage_ends
        self.patch_embed = PatchEmbed(v.embed_dim, rngs=rngs)
        self.pos_embed = nnx.Param(jnp.zeros((1, *v.window_pos_embed_bkg_spatial_size, v.embed_dim)))
        self.pos_embed_window = nnx.Param(jnp.zeros((1, v.window_spec[0], v.window_spec[0], v.embed_dim)))
        blocks = []
        for stage, depth in enumerate(v.stages):
            dim, heads = v.stage_dims[stage], v.num_heads * 2**stage
            for i in range(depth):
                first = i == 0 and stage > 0
                # The block that opens a stage still attends in the windows of the stage before, and pools
                # within them.
                window = v.window_spec[stage - 1 if first else stage]
                blocks.append(
                    MultiScaleBlock(
                        v.stage_dims[stage - 1] if first else dim,
                        dim,
                        heads,
                        window=0 if len(blocks) in v.global_att_blocks else window,
                        pool=first,
                        rngs=rngs,
                    )
                )
        self.blocks = nnx.List(blocks)

    def position_embedding(self, height: int, width: int) -> Float[Array, "1 {height} {width} c"]:
        """The background embedding resized to the map plus the window embedding repeated over it."""
        window = self.pos_embed_window[...]
        tiled = jnp.tile(window, (1, height // window.shape[1], width // window.shape[2], 1))
        return resize(self.pos_embed[...], (height, width), "bicubic") + tiled

    def __call__(self, image: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Maps at the end of every stage, high to low resolution. Height and width are multiples of 32."""
        x = self.patch_embed(image)
        x = x + self.position_embedding(*x.shape[1:3])
        levels = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.stage_ends:
                levels.append(x)
        return tuple(levels)
