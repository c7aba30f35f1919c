"""SAM2 for single images: encoder, prompt encoder and decoder put together, with a head on top.

Mirrors the single-frame path of sam2/modeling/sam2_base.py and sam2/sam2_image_predictor.py: no memory
attention, the learned no-memory embedding added to the stride-16 map. Deviations are listed in the modules of
ruac_jax/sam2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Shaped

from ruac_jax.heads.distribution import DecoderFeatures
from ruac_jax.sam2.mask_decoder import MaskDecoder
from ruac_jax.sam2.memory_encoder import MemoryEncoder
from ruac_jax.sam2.neck import ImageEncoder, Levels
from ruac_jax.sam2.prompt_encoder import PromptEncoder
from ruac_jax.sam2.variants import Variant

IMAGE_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGE_STD = np.array([0.229, 0.224, 0.225], np.float32)

# SAM2's logit for "no such object here".
NO_OBJECT = -1024.0


class Prompts(NamedTuple):
    """Prompts of `n` objects.

    Attributes:
        points: (x, y) pixels of the network's input image; integers are pixel centres.
        labels: 1 positive, 0 negative, 2 and 3 top-left and bottom-right corner of a box, -1 SAM2's padding
            point, -2 an absent slot, which changes nothing, -3 an absent slot of an object without any point.
        mask: low-resolution logits (stride 4) of an earlier decoding.
        has_mask: False where `mask` is to be ignored.
    """

    points: Float[Array, "n p 2"]
    labels: Int[Array, "n p"]
    mask: Float[Array, "n h4 w4"]
    has_mask: Bool[Array, " n"]


class ImageFeatures(NamedTuple):
    """What the decoder reads of an image.

    Attributes:
        embedding: stride 16, `d_model` channels, no-memory embedding added.
        high_res_s0: stride 4, an eighth of the channels.
        high_res_s1: stride 8, a quarter of the channels.
    """

    embedding: Float[Array, "b h w d"]
    high_res_s0: Float[Array, "b h4 w4 d8"]
    high_res_s1: Float[Array, "b h8 w8 d4"]


class SAM2(nnx.Module):
    """The network; `head` makes a distribution over mask logits: `model.head(model.decode(...))`.

    Attributes:
        image_size: side of the square images that it was made for, px.
    """

    def __init__(self, variant: Variant, head: nnx.Module, *, rngs: nnx.Rngs):
        self.image_size = variant.image_size
        self.image_encoder = ImageEncoder(variant, rngs=rngs)
        self.sam_prompt_encoder = PromptEncoder(variant, rngs=rngs)
        self.sam_mask_decoder = MaskDecoder(variant, rngs=rngs)
        self.memory_encoder = MemoryEncoder(variant, rngs=rngs)
        self.no_mem_embed = nnx.Param(
            0.02 * jax.random.truncated_normal(rngs.params(), -2.0, 2.0, (1, 1, variant.d_model))
        )
        self.head = head

    def backbone(self, image: Float[Array, "b h w 3"]) -> Levels:
        """Three maps of `d_model` channels at strides 4, 8 and 16.

        Args:
            image: normalised (see `normalize_image`); height and width multiples of 32.
        """
        return self.image_encoder(image)

    def project(self, levels: Levels) -> ImageFeatures:
        """What the decoder reads of the backbone's maps; trained together with the decoder."""
        s0, s1, s2 = levels
        decoder = self.sam_mask_decoder
        return ImageFeatures(s2 + self.no_mem_embed[...][None], decoder.conv_s0(s0), decoder.conv_s1(s1))

    def decode(self, features: ImageFeatures, prompts: Prompts) -> DecoderFeatures:
        """Decodes `n` prompts, row i against row i of `features` (so `n` rows there, too).

        Returns upscaled features at stride 4, mask tokens, predicted IoU and object score, in the dtype of
        the parameters.
        """
        grid = features.embedding.shape[1:3]
        encoder = self.sam_prompt_encoder
        points, visible = encoder.embed_points(prompts.points, prompts.labels, grid)
        dense = encoder.embed_mask(prompts.mask, prompts.has_mask)
        position = encoder.dense_position(*grid).astype(features.embedding.dtype)
        return DecoderFeatures(
            *self.sam_mask_decoder(
                features.embedding + dense,
                position,
                points,
                visible,
                features.high_res_s0,
                features.high_res_s1,
            )
        )


def normalize_image(image: Shaped[Array, "*s h w 3"]) -> Float[Array, "*s h w 3"]:
    """RGB in [0, 255] (uint8 or float) to the network's float32 input by ImageNet's mean and deviation."""
    shape = (1,) * (image.ndim - 1) + (3,)
    mean, std = jnp.asarray(IMAGE_MEAN).reshape(shape), jnp.asarray(IMAGE_STD).reshape(shape)
    return (image.astype(jnp.float32) / 255.0 - mean) / std


def suppress_absent(logits: Float[Array, "n t h w"], object_score: Float[Array, " n"]) -> Float[Array, "n t h w"]:
    """Sets the logits of objects whose score is not positive to -1024, as SAM2 does."""
    return jnp.where((object_score > 0)[:, None, None, None], logits, NO_OBJECT)


def stable_token(
    logits: Float[Array, "n m h w"], iou: Float[Array, "n m"], delta: float = 0.05, threshold: float = 0.98
) -> Int[Array, " n"]:
    """Token to show when one mask is asked for: token 0, made for that, or the best other if 0 is unstable.

    Stability is the IoU between the mask at logit > `delta` and at logit > -`delta` (1 if the latter is
    empty); below `threshold` the token of the highest predicted IoU among 1, 2, ... is taken. Mirrors SAM2's
    dynamic multimask via stability; takes logits before `suppress_absent`.
    """
    single = logits[:, 0, :, :]
    inner = jnp.sum((single > delta).astype(jnp.float32), axis=(1, 2))
    outer = jnp.sum((single > -delta).astype(jnp.float32), axis=(1, 2))
    stability = jnp.where(outer > 0, inner / jnp.maximum(outer, 1.0), 1.0)
    return jnp.where(stability >= threshold, 0, 1 + jnp.argmax(iou[:, 1:], axis=1))
