"""Mask decoder up to the upscaled features; masks themselves are a head's business.

Mirrors sam2/modeling/sam/mask_decoder.py with SAM2.1's options (high-resolution features, object score MLP,
sigmoid on the predicted IoU). Deviation: the hypernetwork MLPs and their product with the features live in
ruac_jax/heads.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ruac_jax.sam2.layers import MLP, Conv, ConvTranspose2x2, LayerNorm, gelu
from ruac_jax.sam2.prompt_encoder import embedding
from ruac_jax.sam2.transformer import TwoWayTransformer
from ruac_jax.sam2.variants import Variant

_FRESH_OBJECT_SCORE = 4.0


class MaskDecoder(nnx.Module):
    """From the image embedding and prompt embeddings to upscaled features, mask tokens and scores."""

    def __init__(self, variant: Variant, *, rngs: nnx.Rngs):
        d = variant.d_model
        self.num_mask_tokens = variant.num_mask_tokens
        self.transformer = TwoWayTransformer(variant, rngs=rngs)
        self.iou_token = embedding(d, rngs)
        self.mask_tokens = embedding(d, rngs, variant.num_mask_tokens)
        self.obj_score_token = embedding(d, rngs)
        self.output_upscaling = nnx.List(
            [
                ConvTranspose2x2(d, d // 4, rngs=rngs),
                LayerNorm(d // 4, rngs=rngs),
                gelu,
                ConvTranspose2x2(d // 4, d // 8, rngs=rngs),
                gelu,
            ]
        )
        self.conv_s0 = Conv(d, d // 8, 1, rngs=rngs)
        self.conv_s1 = Conv(d, d // 4, 1, rngs=rngs)
        self.iou_prediction_head = MLP(
            d, variant.iou_hidden_dim, variant.num_mask_tokens, 3, sigmoid_output=True, rngs=rngs
        )
        self.pred_obj_score_head = MLP(d, d, 1, 3, rngs=rngs)
        # A fresh network takes objects to be there: where it does not, masks get no gradient (`suppress_absent`).
        self.pred_obj_score_head.layers[-1].bias[...] = jnp.full((1,), _FRESH_OBJECT_SCORE, jnp.float32)

    def __call__(
        self,
        image: Float[Array, "n h w d"],
        image_position: Float[Array, "h w d"],
        points: Float[Array, "n p d"],
        visible: Bool[Array, "n p"],
        high_res_s0: Float[Array, "n 4*h 4*w d//8"],
        high_res_s1: Float[Array, "n 2*h 2*w d//4"],
    ) -> tuple[Float[Array, "n 4*h 4*w d//8"], Float[Array, "n m d"], Float[Array, "n m"], Float[Array, " n"]]:
        """Decodes `n` prompts, each with its own copy of the image embedding (dense prompt already added).

        Returns upscaled features at stride 4, the mask tokens (first the one for a single mask, then three
        for several), predicted IoU in [0, 1] per token, and the object score (a logit).
        """
        n, m = image.shape[0], self.num_mask_tokens
        own = jnp.concatenate(
            [table.embedding[...] for table in (self.obj_score_token, self.iou_token, self.mask_tokens)]
        )
        tokens = jnp.concatenate([jnp.broadcast_to(own[None], (n, *own.shape)), points], axis=1)
        seen = jnp.concatenate([jnp.ones((n, own.shape[0]), bool), visible], axis=1)
        tokens, image = self.transformer(image, image_position, tokens, seen)

        first, norm, act1, second, act2 = self.output_upscaling
        pixels = act1(norm(first(image) + high_res_s1))
        pixels = act2(second(pixels) + high_res_s0)

        object_score = self.pred_obj_score_head(tokens[:, 0:1, :]).reshape(n)
        iou = self.iou_prediction_head(tokens[:, 1:2, :]).reshape(n, m)
        return pixels, tokens[:, 2 : 2 + m, :], iou, object_score
