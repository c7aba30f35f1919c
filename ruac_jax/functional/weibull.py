"""The Weibull distribution by its mean and its shape kappa: moments, samples, and its divergence from a Gamma.

Everything works in log space and in float32: differences of log-gammas cancel in bfloat16. Arguments are float32 arrays
of one rank that broadcast against each other; kappa > 0, mean and scale >= 0. Paper A.2, A.8; BNDL (Hu et al., 2025).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.special import zeta

EULER = 0.5772156649015329
_TINY = 1e-10  # floor of what stands inside a logarithm
_EDGE = 1e-6  # uniform draws stay this far from 0 and 1

# log G(1+x) = (1 - EULER) x - log(1+x) + sum_k (-1)^k (zeta(k) - 1) x^k / k. In log G(1+2t) - 2 log G(1+t) the linear
# terms cancel, and what remains has coefficient (-1)^k (zeta(k) - 1) (2^k - 2) / k at t^k.
_SERIES_LIMIT = 0.5
_SERIES = tuple((-1) ** k * float(zeta(k) - 1) * (2**k - 2) / k for k in range(2, 22))


def log_mean_factor(kappa: Float[Array, "..."]) -> Float[Array, "..."]:
    """log G(1 + 1/kappa), the logarithm of mean / scale."""
    return jax.lax.lgamma(1 + 1 / kappa)


def scale_from_mean(mean: Float[Array, "..."], kappa: Float[Array, "..."]) -> Float[Array, "..."]:
    """Scale lambda = mean / G(1 + 1/kappa) of the Weibull distribution that has this mean."""
    return mean * jnp.exp(-log_mean_factor(kappa))


def squared_variation(kappa: Float[Array, "..."]) -> Float[Array, "..."]:
    """Variance over squared mean, G(1 + 2/kappa) / G(1 + 1/kappa)^2 - 1.

    From 1.8e5 at kappa 0.1 to 6.4e-4 at kappa 50, with a relative error below 2e-5. For kappa > 2, where the two
    log-gammas nearly cancel, their difference is a power series instead.
    """
    t = 1 / kappa
    s = jnp.minimum(t, _SERIES_LIMIT)
    tail = jnp.zeros_like(s)
    for coefficient in reversed(_SERIES):
        tail = tail * s + coefficient
    series = jnp.log1p(s * s / (1 + 2 * s)) + tail * s * s
    plain = jax.lax.lgamma(1 + 2 * t) - 2 * jax.lax.lgamma(1 + t)
    return jnp.expm1(jnp.where(t < _SERIES_LIMIT, series, plain))


def variance(mean: Float[Array, "..."], kappa: Float[Array, "..."]) -> Float[Array, "..."]:
    """Variance lambda^2 (G(1 + 2/kappa) - G(1 + 1/kappa)^2) of the distribution with this mean (eq. S7)."""
    return jnp.square(mean) * squared_variation(kappa)


def sample(key: PRNGKeyArray, scale: Float[Array, "..."], kappa: Float[Array, "..."]) -> Float[Array, "..."]:
    """One reparameterised draw lambda (-ln(1 - u))^(1/kappa) per entry of the broadcast shape (paper 3.2).

    Differentiable in both parameters. u is uniform, kept within [1e-6, 1 - 1e-6]. That cuts the tail of heavy
    distributions: draws lose under 0.1 % of the variance for kappa >= 0.5, but 12 % at 0.2 and 93 % (and 12 % of the
    mean) at 0.1.
    """
    shape = jnp.broadcast_shapes(scale.shape, kappa.shape)
    u = jnp.clip(jax.random.uniform(key, shape, jnp.float32), _EDGE, 1 - _EDGE)
    return scale * jnp.exp(jnp.log(-jnp.log1p(-u)) / kappa)


def kl_weibull_gamma(kappa: Float[Array, "..."], scale: Float[Array, "..."], a: float, b: float) -> Float[Array, "..."]:
    """KL( Weibull(kappa, scale) || Gamma(shape a, rate b) ) of each entry, in nats (eq. 2; closed form of BNDL).

    gE a / kappa - a ln(scale) + ln(kappa) + b scale G(1 + 1/kappa) - gE - 1 - a ln(b) + ln G(a), gE Euler's constant.
    A scale below 1e-10 counts as 1e-10 in its logarithm (a true zero has infinite divergence), so the value and the
    gradient stay finite.
    """
    inverse = 1 / kappa
    by_shape = EULER * a * inverse - jnp.log(jnp.maximum(inverse, _TINY))
    by_scale = b * scale * jnp.exp(log_mean_factor(kappa)) - a * jnp.log(jnp.maximum(scale, _TINY))
    return by_shape + by_scale + (math.lgamma(a) - a * math.log(b) - EULER - 1)
