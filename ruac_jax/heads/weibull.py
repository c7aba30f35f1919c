"""The Bayesian head: Weibull factors for pixels and mask tokens, and the spread of logits they imply (paper 3.2, A)."""

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ruac_jax.functional import weibull
from ruac_jax.functional.autodiff import opening_relu, ste_relu
from ruac_jax.functional.uncertainty import analytic_uncertainty, bernoulli_entropy, probit_probability
from ruac_jax.heads.distribution import (
    DecoderFeatures,
    UncertaintyMethod,
    VarianceMode,
    monte_carlo_probability,
    take_token,
)
from ruac_jax.sam2.layers import MLP, Conv, Linear, gelu

# softplus of this is 2: kappa starts where a factor's deviation is half its mean, far from both clamps.
_KAPPA_BIAS = math.log(math.expm1(2.0))

Rectifier = Literal["straight_through", "opening"]
_RECTIFIERS = {"straight_through": ste_relu, "opening": opening_relu}


@struct.dataclass
class WeibullLogits:
    """Distribution of l = sum_c Z_c (W_fg,c - W_bg,c) + offset with independent Weibull factors, a `MaskDistribution`.

    Attributes:
      pixel_mean: E[Z] >= 0.
      pixel_kappa: shape of Z, one for all channels of a pixel.
      token_mean: E[W] >= 0; the classes are foreground, background.
      token_kappa: shape of W, one for both classes.
      kappa_range: the clamp the shapes went through.
      prior: shape a and rate b of the Gamma prior of every factor.
      offset: difference of the class biases, where a head has any.
    """

    # JAX rebuilds pytrees with placeholders for leaves, which a run-time check of the fields would refuse.
    __no_type_check__ = True

    pixel_mean: Float[Array, "n h w c"]
    pixel_kappa: Float[Array, "n h w 1"]
    token_mean: Float[Array, "n t 2 c"]
    token_kappa: Float[Array, "n t 1 c"]
    kappa_range: tuple[float, float] = struct.field(pytree_node=False)
    prior: tuple[float, float] = struct.field(pytree_node=False)
    offset: Float[Array, ""] | None = None

    def mean_logits(self) -> Float[Array, "n t h w"]:
        """Exact mean, the factors being independent."""
        return self._logits(self.token_mean, self.pixel_mean)

    def variance(self, mode: VarianceMode = "product") -> Float[Array, "n t h w"]:
        """Variance of the logits.

        "product" (eq. S9): sum_c Var[Z_c] times the mean over the two classes of Var[W_c]. "full" (eq. S8): with
        d = W_fg - W_bg, sum_c E[d]^2 Var[Z] + E[Z]^2 Var[d] + Var[Z] Var[d], which is exact.

        Raises:
          ValueError: for another mode.
        """
        # One kappa per pixel: Var[Z_c] = ratio E[Z_c]^2, so the ratio leaves the sum over channels.
        ratio = weibull.squared_variation(self.pixel_kappa)[:, None, :, :, 0]
        square = jnp.square(self.pixel_mean)
        by_class = weibull.variance(self.token_mean, self.token_kappa)
        if mode == "product":
            return ratio * _contract(by_class.mean(axis=2), square)
        if mode != "full":
            raise ValueError(f"variance mode must be 'product' or 'full', got {mode!r}")
        spread = by_class.sum(axis=2)
        second_moment = jnp.square(_foreground_minus_background(self.token_mean)) + spread
        return ratio * _contract(second_moment, square) + _contract(spread, square)

    def sample_logits(self, key: PRNGKeyArray) -> Float[Array, "n t h w"]:
        """One draw: Z fresh for every pixel and channel, W once for every object, token, class and channel."""
        key_pixel, key_token = jax.random.split(key)
        z = weibull.sample(key_pixel, weibull.scale_from_mean(self.pixel_mean, self.pixel_kappa), self.pixel_kappa)
        w = weibull.sample(key_token, weibull.scale_from_mean(self.token_mean, self.token_kappa), self.token_kappa)
        return self._logits(w, z)

    def _logits(self, w: jax.Array, z: jax.Array) -> jax.Array:
        logits = _contract(_foreground_minus_background(w), z)
        return logits if self.offset is None else logits + self.offset

    def probability(
        self,
        method: UncertaintyMethod = "analytic",
        *,
        mode: VarianceMode = "product",
        samples: int = 20,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "n t h w"]:
        """Foreground probability: probit approximation (clipped to [1e-4, 1 - 1e-4]) or the mean over draws.

        Raises:
          ValueError: for another method or mode, or for "monte_carlo" without a key or samples.
        """
        if _is_monte_carlo(method):
            return monte_carlo_probability(self, samples, key)
        return probit_probability(self.mean_logits(), self.variance(mode))

    def uncertainty(
        self,
        method: UncertaintyMethod = "analytic",
        *,
        mode: VarianceMode = "product",
        samples: int = 20,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "n t h w"]:
        """Entropy of `probability` over ln 2, in [0, 1]; raises as `probability` does."""
        if _is_monte_carlo(method):
            return bernoulli_entropy(monte_carlo_probability(self, samples, key))
        return analytic_uncertainty(self.mean_logits(), self.variance(mode))

    def regularizer(self) -> Float[Array, "n"]:
        """KL from the prior (eq. 2): per stream summed over channels, averaged over all else; the streams add."""

        def divergence(mean: jax.Array, kappa: jax.Array) -> jax.Array:
            scale = weibull.scale_from_mean(mean, kappa)
            return weibull.kl_weibull_gamma(kappa, scale, *self.prior).sum(axis=-1).mean(axis=(1, 2))

        return divergence(self.pixel_mean, self.pixel_kappa) + divergence(self.token_mean, self.token_kappa)

    def likelihood(self, truth: Float[Array, "n h w"]) -> Float[Array, "n"]:
        """Zeros."""
        return jnp.zeros(truth.shape[0], jnp.float32)

    def diagnostics(self) -> dict[str, Float[Array, ""]]:
        """Shares of kappa at its lower and upper clamp, where its gradient ends; mean of both streams' shares."""
        low, high = self.kappa_range

        def share(at_clamp: jax.Array) -> jax.Array:
            return at_clamp.astype(jnp.float32).mean()

        streams = (self.pixel_kappa, self.token_kappa)
        return {
            "kappa_at_lower": sum(share(k <= low) for k in streams) / 2,
            "kappa_at_upper": sum(share(k >= high) for k in streams) / 2,
        }

    def select(self, start: int, stop: int) -> "WeibullLogits":
        """Tokens start to stop - 1."""
        return self.replace(token_mean=self.token_mean[:, start:stop], token_kappa=self.token_kappa[:, start:stop])

    def take(self, index: Int[Array, "n"]) -> "WeibullLogits":
        """One token per object."""
        return self.replace(
            token_mean=take_token(self.token_mean, index), token_kappa=take_token(self.token_kappa, index)
        )


def _contract(tokens: jax.Array, pixels: jax.Array) -> jax.Array:
    # Full precision: a GPU's default for float32 would keep 10 bits of the mantissa.
    return jnp.einsum("ntc,nhwc->nthw", tokens, pixels, precision=jax.lax.Precision.HIGHEST)


def _foreground_minus_background(x: jax.Array) -> jax.Array:
    return x[:, :, 0] - x[:, :, 1]


def _is_monte_carlo(method: str) -> bool:
    if method not in ("analytic", "monte_carlo"):
        raise ValueError(f"uncertainty method must be 'analytic' or 'monte_carlo', got {method!r}")
    return method == "monte_carlo"


class PixelKappa(nnx.Module):
    """3x3 convolution, GELU, 3x3 convolution to one value per pixel (paper A.4), before the softplus."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.conv1 = Conv(features, features, 3, padding=1, rngs=rngs)
        self.conv2 = Conv(features, 1, 3, padding=1, rngs=rngs)
        self.conv2.bias[...] = jnp.full((1,), _KAPPA_BIAS, jnp.float32)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w 1"]:
        """Raw shapes."""
        return self.conv2(gelu(self.conv1(x)))


class WeibullHead(nnx.Module):
    """Decoder features to `WeibullLogits` over all mask tokens: 34,340 parameters for d_model 256.

    Both streams give a rectified mean, with a straight-through gradient (A.5; see `rectifier`), and a shape
    kappa = clip(softplus(...)); all in float32, whatever the features are.

    A fresh head treats foreground and background alike, so its logits are symmetric around 0: on features and
    tokens of unit size they deviate by about 1. Its kappa starts near 2, by the bias of both last kappa layers
    (the paper does not state it): at the usual bias of 0 it would start at 0.7, with deviations larger than the
    means, and the first steps on trained features would be noise. The tokens' kappa starts at 2 exactly, its two
    weights at 0: drawn at random, they may give the largest means the heaviest tails, and gradients grow tenfold.

    Attributes:
      pixel_mlp: c-2c-c with c = d_model // 8, aleatoric stream.
      pixel_kappa: two 3x3 convolutions on the rectified means.
      token_mlp: d-2c-2c, epistemic stream; the output is [2 classes, c], foreground first.
      token_kappa: linear map of the two classes' means of a channel.
      class_bias: added to the logits of foreground and background; only where a checkpoint comes with it.
      rectifier: of the means, "straight_through" or "opening" (functional/autodiff.py): another gradient, the same
        values.
    """

    def __init__(
        self,
        d_model: int,
        kappa_range: Sequence[float] = (0.1, 10.0),
        prior: Sequence[float] = (1.0, 3.0),
        class_bias: bool = False,
        rectifier: Rectifier = "straight_through",
        *,
        rngs: nnx.Rngs,
    ):
        """Builds a fresh head.

        Args:
          d_model: width of the tokens, a multiple of 8.
          kappa_range: clamp of both streams' shapes, lower and upper.
          prior: shape and rate of the Gamma prior.
          class_bias: has two more parameters, which the published weights may bring along.
          rectifier: how gradients pass the means.
          rngs: for the initial weights.
        """
        channels = d_model // 8
        self.kappa_range = tuple(kappa_range)
        self.prior = tuple(prior)
        self.rectifier = rectifier
        self.pixel_mlp = MLP(channels, 2 * channels, channels, 2, rngs=rngs)
        self.pixel_kappa = PixelKappa(channels, rngs=rngs)
        self.token_mlp = MLP(d_model, 2 * channels, 2 * channels, 2, rngs=rngs)
        self.token_kappa = Linear(2, 1, rngs=rngs)
        self.token_kappa.bias[...] = jnp.full((1,), _KAPPA_BIAS, jnp.float32)
        self.token_kappa.kernel[...] = jnp.zeros_like(self.token_kappa.kernel[...])
        self.class_bias = nnx.Param(jnp.zeros(2)) if class_bias else None

    def __call__(self, features: DecoderFeatures) -> WeibullLogits:
        """Distribution over the logits of every mask token."""
        rectify = _RECTIFIERS[self.rectifier]
        z = rectify(self.pixel_mlp(features.pixels.astype(jnp.float32)))
        tokens = self.token_mlp(features.tokens.astype(jnp.float32))
        n, t, width = tokens.shape
        w = rectify(tokens.reshape(n, t, 2, width // 2))
        return WeibullLogits(
            pixel_mean=z,
            pixel_kappa=self._shape(self.pixel_kappa(z)),
            token_mean=w,
            token_kappa=self._shape(self.token_kappa(w.swapaxes(2, 3)).swapaxes(2, 3)),
            kappa_range=self.kappa_range,
            prior=self.prior,
            offset=None if self.class_bias is None else self.class_bias[0] - self.class_bias[1],
        )

    def _shape(self, raw: jax.Array) -> jax.Array:
        low, high = self.kappa_range
        return jnp.clip(jax.nn.softplus(raw), low, high)
