"""Memory encoder: fuses an image embedding with a mask. Its fused map feeds the deformation attack.

Mirrors sam2/modeling/memory_encoder.py as configured for SAM2.1. Deviation: the sine position encoding of the
result is left out; only memory attention over video frames reads it.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ruac_jax.sam2.layers import Conv, DepthwiseConv, LayerNorm, Linear, gelu
from ruac_jax.sam2.variants import Variant


class MaskDownSampler(nnx.Module):
    """Mask to stride 16 in four 3x3 convolutions of stride 2, channels times four each."""

    def __init__(self, variant: Variant, *, rngs: nnx.Rngs):
        layers = []
        for channels in (1, 4, 16, 64):
            layers += [
                Conv(channels, 4 * channels, 3, stride=2, padding=1, rngs=rngs),
                LayerNorm(4 * channels, rngs=rngs),
                gelu,
            ]
        self.encoder = nnx.List([*layers, Conv(256, variant.d_model, 1, rngs=rngs)])

    def __call__(self, x: Float[Array, "n h16 w16 1"]) -> Float[Array, "n h w d"]:
        """Encodes mask values."""
        for layer in self.encoder:
            x = layer(x)
        return x


class CXBlock(nnx.Module):
    """ConvNeXt block: depthwise 7x7, norm, two linear layers, scaled residual."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.dwconv = DepthwiseConv(features, 7, rngs=rngs)
        self.norm = LayerNorm(features, rngs=rngs)
        self.pwconv1 = Linear(features, 4 * features, rngs=rngs)
        self.pwconv2 = Linear(4 * features, features, rngs=rngs)
        self.gamma = nnx.Param(jnp.full((features,), 1e-6))

    def __call__(self, x: Float[Array, "n h w d"]) -> Float[Array, "n h w d"]:
        """Applies the block."""
        y = self.pwconv2(gelu(self.pwconv1(self.norm(self.dwconv(x)))))
        return x + self.gamma[...][None, None, None, :] * y


class Fuser(nnx.Module):
    """A chain of ConvNeXt blocks."""

    def __init__(self, variant: Variant, *, rngs: nnx.Rngs):
        self.layers = nnx.List([CXBlock(variant.d_model, rngs=rngs) for _ in range(variant.memory_fuser_layers)])

    def __call__(self, x: Float[Array, "n h w d"]) -> Float[Array, "n h w d"]:
        """Applies the blocks."""
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nnx.Module):
    """Image embedding and mask to a memory map at stride 16."""

    def __init__(self, variant: Variant, *, rngs: nnx.Rngs):
        self.mask_downsampler = MaskDownSampler(variant, rngs=rngs)
        self.pix_feat_proj = Conv(variant.d_model, variant.d_model, 1, rngs=rngs)
        self.fuser = Fuser(variant, rngs=rngs)
        self.out_proj = Conv(variant.d_model, variant.memory_dim, 1, rngs=rngs)

    def fuse(self, embedding: Float[Array, "n h w d"], mask: Float[Array, "n 16*h 16*w"]) -> Float[Array, "n h w d"]:
        """Fused map before the output projection. `mask` holds scaled values: SAM2 feeds 20 p - 10."""
        x = self.pix_feat_proj(embedding) + self.mask_downsampler(mask[..., None])
        return self.fuser(x)

    def __call__(
        self, embedding: Float[Array, "n h w d"], mask: Float[Array, "n 16*h 16*w"]
    ) -> Float[Array, "n h w e"]:
        """Memory map of `memory_dim` channels; `mask` as in `fuse`."""
        return self.out_proj(self.fuse(embedding, mask))
