"""Feature pyramid over the trunk, and the image encoder that joins both.

Mirrors sam2/modeling/backbones/image_encoder.py as configured for SAM2.1: nearest-neighbour top-down path
into strides 16 and 32 only, lowest level dropped. Deviation: the sine position encodings of the levels are
left out; only memory attention over video frames reads them.
"""

from flax import nnx
from jaxtyping import Array, Float

from ruac_jax.functional.resize import resize
from ruac_jax.sam2.hiera import Hiera
from ruac_jax.sam2.layers import Conv
from ruac_jax.sam2.variants import Variant

Levels = tuple[Float[Array, "b h4 w4 d"], Float[Array, "b h8 w8 d"], Float[Array, "b h16 w16 d"]]

_FRESH_SCALE = 0.1  # keeps fresh features well below the position encodings, which they would otherwise drown


class Lateral(nnx.Module):
    """One 1x1 convolution, under the name that SAM2 gives it."""

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        self.conv = Conv(in_features, out_features, 1, rngs=rngs)
        self.conv.kernel[...] *= _FRESH_SCALE

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        """Projects the channels."""
        return self.conv(x)


class FpnNeck(nnx.Module):
    """Projects every level to `d_model` channels; `convs` run from low to high resolution."""

    def __init__(self, variant: Variant, *, rngs: nnx.Rngs):
        self.convs = nnx.List([Lateral(c, variant.d_model, rngs=rngs) for c in reversed(variant.stage_dims)])

    def __call__(self, levels: tuple[Float[Array, "b _ _ _"], ...]) -> Levels:
        """Strides 4, 8 and 16; the last one has stride 32 added to it."""
        s4, s8, s16, s32 = levels
        top, middle, low, high = self.convs
        coarse = resize(top(s32), s16.shape[1:3], "nearest")
        return high(s4), low(s8), middle(s16) + coarse


class ImageEncoder(nnx.Module):
    """Trunk and neck."""

    def __init__(self, variant: Variant, *, rngs: nnx.Rngs):
        self.trunk = Hiera(variant, rngs=rngs)
        self.neck = FpnNeck(variant, rngs=rngs)

    def __call__(self, image: Float[Array, "b h w 3"]) -> Levels:
        """Three levels of `d_model` channels, high to low resolution."""
        return self.neck(self.trunk(image))
