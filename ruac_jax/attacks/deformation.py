"""The deformation attacker: a smooth flow for every object (paper 3.3, B.3, eq. S12-S13; method 4.3).

Deviation: an object's mean offset, which is taken away so that no object merely shifts, weighs each cell by the share
of it that the object covers, and so is close to the mean over its pixels.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ruac_jax.functional.autodiff import reverse_gradient
from ruac_jax.functional.resize import resize
from ruac_jax.sam2.memory_encoder import MemoryEncoder

_MASK_SCALE, _MASK_SHIFT = 20.0, -10.0  # SAM2's, of the masks that its memory encoder reads


class DeformationAttacker(nnx.Module):
    """Offsets from an object's fused map; 369,986 parameters at 256 features. The last layer starts at zero."""

    def __init__(self, d_model: int, *, rngs: nnx.Rngs):
        def conv(inputs: int, outputs: int, **options: nnx.Initializer) -> nnx.Conv:
            return nnx.Conv(inputs, outputs, (3, 3), padding="SAME", rngs=rngs, **options)

        self.first = conv(d_model, 128)
        self.second = conv(128, 64)
        self.last = conv(64, 2, kernel_init=nnx.initializers.zeros_init())

    def offsets(self, fused: Float[Array, "n h w d"]) -> Float[Array, "n h w 2"]:
        """Raw offsets, unbounded."""
        x = jax.nn.relu(_instance_norm(self.first(_instance_norm(fused))))
        return self.last(jax.nn.relu(_instance_norm(self.second(x))))

    def __call__(
        self,
        embedding: Float[Array, "b h w d"],
        masks: Bool[Array, "b k H W"],
        memory_encoder: MemoryEncoder,
        epsilon: float,
    ) -> Float[Array, "b k H W 2"]:
        """Each object's flow (dx, dy) in pixels, by gradient-reversed parameters; zero for an empty mask.

        Offsets stay within +-`epsilon` cells of the embedding, and within twice that once their mean over the object is
        taken away. The memory encoder is frozen: no gradient enters it or the embedding.
        """
        b, k, height, width = masks.shape
        stride = height // embedding.shape[1]
        fused = fuse_objects(embedding, masks, memory_encoder)
        raw = reverse_gradient(self.offsets(fused)).reshape(b, k, *fused.shape[1:3], 2)
        flow = bounded_flow(raw, masks, epsilon * stride)
        return resize(flow, (height, width), "bilinear")


def fuse_objects(
    embedding: Float[Array, "b h w d"], masks: Bool[Array, "b k H W"], memory_encoder: MemoryEncoder
) -> Float[Array, "b*k h w d"]:
    """The memory encoder's view of each object, float32 and constant; computed in the encoder's own dtype."""
    dtype = memory_encoder.pix_feat_proj.kernel[...].dtype
    shape = (masks.shape[0] * masks.shape[1], *embedding.shape[1:])
    each = jnp.broadcast_to(embedding[:, None], (*masks.shape[:2], *embedding.shape[1:])).reshape(shape)
    scaled = jnp.where(masks, _MASK_SCALE + _MASK_SHIFT, _MASK_SHIFT).reshape(-1, *masks.shape[2:])
    return jax.lax.stop_gradient(memory_encoder.fuse(each.astype(dtype), scaled.astype(dtype)).astype(jnp.float32))


def bounded_flow(
    raw: Float[Array, "b k h w 2"], masks: Bool[Array, "b k H W"], limit: float
) -> Float[Array, "b k h w 2"]:
    """(2 s(raw) - 1) `limit` without its mean over the object; zero for an empty mask."""
    return centred_flow(jnp.tanh(raw / 2) * limit, masks)


def centred_flow(flow: Float[Array, "b k h w 2"], masks: Bool[Array, "b k H W"]) -> Float[Array, "b k h w 2"]:
    """A flow without its mean over the object; zero for an empty mask."""
    share = resize(masks.astype(flow.dtype)[..., None], flow.shape[2:4], "area")
    total = share.sum(axis=(2, 3), keepdims=True)
    mean = (flow * share).sum(axis=(2, 3), keepdims=True) / jnp.where(total > 0, total, 1.0)
    return jnp.where(total > 0, flow - mean, 0.0)


def _instance_norm(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    centred = x - x.mean(axis=(1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=(1, 2), keepdims=True) + 1e-5)
