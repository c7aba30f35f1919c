"""Two-way transformer between prompt tokens and the image embedding.

Mirrors sam2/modeling/sam/transformer.py without the rotary attention (video only). Deviations: a mask over the
tokens hides absent prompt slots as keys, which makes the result independent of how many there are; fresh weights
attend to like from the start, see `Attention`.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ruac_jax.sam2.layers import MLP, LayerNorm, Linear, attention
from ruac_jax.sam2.variants import Variant

_EPSILON = 1e-5  # torch's default for nn.LayerNorm, unlike the 1e-6 of SAM2's other norms


class Attention(nnx.Module):
    """Multi-head attention at an inner width of `dim / downsample`.

    Fresh queries and keys share their kernel, so that a token attends to itself and, through the position encodings,
    to its own place. Drawn apart they would meet at random: tokens then blur into their mean, a click drowns in the
    colours of the image, and a network trained from scratch settles on segmenting everything, whatever is clicked.
    """

    def __init__(self, dim: int, num_heads: int, downsample: int = 1, *, rngs: nnx.Rngs):
        inner = dim // downsample
        self.num_heads = num_heads
        self.q_proj = Linear(dim, inner, rngs=rngs)
        self.k_proj = Linear(dim, inner, rngs=rngs)
        # A token of unit size meets itself with a logit near 6 at 32 channels a head; so does, at 16, what shares the
        # position encoding with it, half of its square.
        shared = self.q_proj.kernel[...] * (1.0 if downsample == 1 else math.sqrt(3.0))
        self.q_proj.kernel[...] = shared
        self.k_proj.kernel[...] = jnp.array(shared, copy=True)  # one buffer cannot be donated twice
        self.v_proj = Linear(dim, inner, rngs=rngs)
        self.out_proj = Linear(inner, dim, rngs=rngs)

    def __call__(
        self,
        q: Float[Array, "b q d"],
        k: Float[Array, "b k d"],
        v: Float[Array, "b k d"],
        mask: Bool[Array, "b k"] | None = None,
    ) -> Float[Array, "b q d"]:
        """Attends; keys where `mask` is False are not seen."""
        out = attention(self._heads(self.q_proj(q)), self._heads(self.k_proj(k)), self._heads(self.v_proj(v)), mask)
        return self.out_proj(out.transpose(0, 2, 1, 3).reshape(q.shape[0], q.shape[1], -1))

    def _heads(self, x: jax.Array) -> jax.Array:
        b, n, c = x.shape
        return x.reshape(b, n, self.num_heads, c // self.num_heads).transpose(0, 2, 1, 3)


class TwoWayAttentionBlock(nnx.Module):
    """Tokens attend to each other, then to the image; an MLP; then the image attends to the tokens."""

    def __init__(self, variant: Variant, *, first: bool, rngs: nnx.Rngs):
        d, heads = variant.d_model, variant.decoder_heads
        self.first = first
        self.self_attn = Attention(d, heads, rngs=rngs)
        self.norm1 = LayerNorm(d, _EPSILON, rngs=rngs)
        self.cross_attn_token_to_image = Attention(d, heads, 2, rngs=rngs)
        self.norm2 = LayerNorm(d, _EPSILON, rngs=rngs)
        self.mlp = MLP(d, variant.decoder_mlp_dim, d, 2, rngs=rngs)
        self.norm3 = LayerNorm(d, _EPSILON, rngs=rngs)
        self.norm4 = LayerNorm(d, _EPSILON, rngs=rngs)
        self.cross_attn_image_to_token = Attention(d, heads, 2, rngs=rngs)

    def __call__(
        self,
        tokens: Float[Array, "b t d"],
        image: Float[Array, "b s d"],
        token_position: Float[Array, "b t d"],
        image_position: Float[Array, "1 s d"],
        visible: Bool[Array, "b t"],
    ) -> tuple[Float[Array, "b t d"], Float[Array, "b s d"]]:
        """Returns updated tokens and image."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, visible)
        else:
            q = tokens + token_position
            tokens = tokens + self.self_attn(q, q, tokens, visible)
        tokens = self.norm1(tokens)
        keys = image + image_position
        tokens = tokens + self.cross_attn_token_to_image(tokens + token_position, keys, image)
        tokens = self.norm2(tokens)
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = image + self.cross_attn_image_to_token(keys, tokens + token_position, tokens, visible)
        return tokens, self.norm4(image)


class TwoWayTransformer(nnx.Module):
    """`decoder_depth` two-way blocks and a last attention from tokens to image."""

    def __init__(self, variant: Variant, *, rngs: nnx.Rngs):
        d = variant.d_model
        self.layers = nnx.List(
            [TwoWayAttentionBlock(variant, first=i == 0, rngs=rngs) for i in range(variant.decoder_depth)]
        )
        self.final_attn_token_to_image = Attention(d, variant.decoder_heads, 2, rngs=rngs)
        self.norm_final_attn = LayerNorm(d, _EPSILON, rngs=rngs)

    def __call__(
        self,
        image: Float[Array, "b h w d"],
        image_position: Float[Array, "h w d"],
        tokens: Float[Array, "b t d"],
        visible: Bool[Array, "b t"],
    ) -> tuple[Float[Array, "b t d"], Float[Array, "b h w d"]]:
        """Returns the processed tokens and image. The tokens given serve as their own position encoding."""
        b, h, w, d = image.shape
        keys = image.reshape(b, h * w, d)
        position = image_position.reshape(1, h * w, d)
        queries = tokens
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, position, visible)
        queries = queries + self.final_attn_token_to_image(queries + tokens, keys + position, keys)
        return self.norm_final_attn(queries), jnp.reshape(keys, (b, h, w, d))
