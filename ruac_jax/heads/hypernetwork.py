"""SAM2's own head: a small network per mask token gives the weights of a dot product with the pixel features.

Mirrors the last step of sam2/modeling/sam/mask_decoder.py (`output_hypernetworks_mlps`). Deviation: always float32.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ruac_jax.functional.uncertainty import entropy_of_logits
from ruac_jax.heads.distribution import DecoderFeatures, UncertaintyMethod, VarianceMode, take_token
from ruac_jax.sam2.layers import MLP

SAM2_PREFIX = "sam_mask_decoder.output_hypernetworks_mlps."


@struct.dataclass
class PointMass:
    """Logits without spread, as a `MaskDistribution`: every draw is the mean, u is the entropy of s(logit)."""

    # JAX rebuilds pytrees with placeholders for leaves, which a run-time check of the fields would refuse.
    __no_type_check__ = True

    logits: Float[Array, "n t h w"]

    def mean_logits(self) -> Float[Array, "n t h w"]:
        """The logits."""
        return self.logits

    def variance(self, mode: VarianceMode = "product") -> Float[Array, "n t h w"]:
        """Zeros."""
        return jnp.zeros_like(self.logits)

    def sample_logits(self, key: PRNGKeyArray) -> Float[Array, "n t h w"]:
        """The logits."""
        return self.logits

    def probability(
        self,
        method: UncertaintyMethod = "analytic",
        *,
        mode: VarianceMode = "product",
        samples: int = 20,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "n t h w"]:
        """Sigmoid of the logits, whatever the method."""
        return jax.nn.sigmoid(self.logits)

    def uncertainty(
        self,
        method: UncertaintyMethod = "analytic",
        *,
        mode: VarianceMode = "product",
        samples: int = 20,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "n t h w"]:
        """Entropy of s(logits) over ln 2, in [0, 1], whatever the method."""
        return entropy_of_logits(self.logits)

    def regularizer(self) -> Float[Array, "n"]:
        """Zeros."""
        return jnp.zeros(self.logits.shape[0], self.logits.dtype)

    def likelihood(self, truth: Float[Array, "n h w"]) -> Float[Array, "n"]:
        """Zeros."""
        return jnp.zeros(self.logits.shape[0], self.logits.dtype)

    def diagnostics(self) -> dict[str, Float[Array, ""]]:
        """Nothing."""
        return {}

    def select(self, start: int, stop: int) -> "PointMass":
        """Tokens start to stop - 1."""
        return self.replace(logits=self.logits[:, start:stop])

    def take(self, index: Int[Array, "n"]) -> "PointMass":
        """One token per object."""
        return self.replace(logits=take_token(self.logits, index))


class HypernetworkHead(nnx.Module):
    """Decoder features to a `PointMass` over all mask tokens; one MLP d-d-d-d/8 per token."""

    def __init__(self, d_model: int, num_tokens: int = 4, *, rngs: nnx.Rngs):
        self.output_hypernetworks_mlps = nnx.List(
            [MLP(d_model, d_model, d_model // 8, 3, rngs=rngs) for _ in range(num_tokens)]
        )

    def __call__(self, features: DecoderFeatures) -> PointMass:
        """Logits of every token: its weights times the pixel features."""
        tokens, pixels = features.tokens.astype(jnp.float32), features.pixels.astype(jnp.float32)
        weights = jnp.stack([mlp(tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], axis=1)
        return PointMass(jnp.einsum("ntc,nhwc->nthw", weights, pixels, precision=jax.lax.Precision.HIGHEST))

    def sam2_tensors(self) -> dict[str, np.ndarray]:
        """The parameters under SAM2's names, in PyTorch's layout: kept where another head takes this one's place."""
        tensors = {}
        for i, mlp in enumerate(self.output_hypernetworks_mlps):
            for j, layer in enumerate(mlp.layers):
                name = f"{SAM2_PREFIX}{i}.layers.{j}"
                tensors[f"{name}.weight"] = np.asarray(layer.kernel[...]).T
                tensors[f"{name}.bias"] = np.asarray(layer.bias[...])
        return tensors
