"""UR-ERN's head (paper E): SAM2's own masks, and an evidential regression of the truth for the uncertainty."""

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Float, PRNGKeyArray

from ruac_jax.functional.evidential import (
    NormalInverseGamma,
    aleatoric,
    epistemic,
    evidence,
    evidence_regularizer,
    negative_log_likelihood,
    smooth_labels,
    squash,
)
from ruac_jax.heads.distribution import DecoderFeatures, UncertaintyMethod, VarianceMode
from ruac_jax.heads.hypernetwork import HypernetworkHead, PointMass
from ruac_jax.sam2.layers import Conv

_FLOOR = 1e-6  # added to every parameter that has to be positive
_REGULARIZER_WEIGHT = 0.005
_SMOOTHING = 0.02


@struct.dataclass
class EvidentialLogits(PointMass):
    """SAM2's logits, which have no spread, and one Normal-Inverse-Gamma map per object, as a `MaskDistribution`.

    The map regresses the truth, not a logit, and belongs to no mask token: what is said of uncertainty is the same for
    all tokens, and it is not the entropy of `probability`.
    """

    __no_type_check__ = True  # as in PointMass

    nig: NormalInverseGamma  # of [n, h, w]

    def variance(self, mode: VarianceMode = "product") -> Float[Array, "n t h w"]:
        """Predictive variance of the truth, beta / (alpha - 1) + beta / (v (alpha - 1)), whatever the mode."""
        total = aleatoric(self.nig) + epistemic(self.nig)
        return jnp.broadcast_to(total[:, None], self.logits.shape)

    def uncertainty(
        self,
        method: UncertaintyMethod = "analytic",
        *,
        mode: VarianceMode = "product",
        samples: int = 20,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "n t h w"]:
        """`variance` x as x / (1 + x), in [0, 1], whatever the method; ranks pixels as the variance does."""
        return squash(self.variance())

    def likelihood(self, truth: Float[Array, "n h w"]) -> Float[Array, "n"]:
        """Negative log-likelihood of the smoothed truth plus 0.005 times the evidence regulariser, mean over pixels."""
        y = smooth_labels(truth, _SMOOTHING)
        by_pixel = negative_log_likelihood(self.nig, y) + _REGULARIZER_WEIGHT * evidence_regularizer(self.nig, y)
        return by_pixel.mean(axis=(1, 2))

    def diagnostics(self) -> dict[str, Float[Array, ""]]:
        """Means over all pixels of the evidence and of both parts of the variance, these squashed to [0, 1]."""
        return {
            "evidence": evidence(self.nig).mean(),
            "aleatoric": squash(aleatoric(self.nig)).mean(),
            "epistemic": squash(epistemic(self.nig)).mean(),
        }


class EvidentialHead(HypernetworkHead):
    """SAM2's head with a 1x1 convolution d/8 -> 4 on the pixel features: mu, v, alpha and beta of every pixel.

    mu is the raw channel, v = softplus, alpha = 1 + softplus, beta = softplus, each plus 1e-6; all in float32.
    """

    def __init__(self, d_model: int, num_tokens: int = 4, *, rngs: nnx.Rngs):
        super().__init__(d_model, num_tokens, rngs=rngs)
        self.ur_ern_head = Conv(d_model // 8, 4, 1, rngs=rngs)

    def __call__(self, features: DecoderFeatures) -> EvidentialLogits:
        """Logits of every token and the evidence of every pixel."""
        raw = self.ur_ern_head(features.pixels.astype(jnp.float32))
        v, excess, beta = (jax.nn.softplus(raw[..., i]) + _FLOOR for i in (1, 2, 3))
        return EvidentialLogits(super().__call__(features).logits, NormalInverseGamma(raw[..., 0], v, 1 + excess, beta))
