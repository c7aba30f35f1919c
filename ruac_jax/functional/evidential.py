"""Evidential regression: a Normal-Inverse-Gamma distribution over the mean and variance of a target (paper E).

y ~ N(m, s), m ~ N(mu, s / v), s ~ InverseGamma(alpha, beta). Formulas of Deep Evidential Regression (Amini et al.,
2020), which UR-ERN (Ye et al., 2024) builds on. Arrays of one shape, float32.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# log G(a + 1/2) - log G(a) = log(a) / 2 + sum_k coefficient_k / a^(2k - 1) for large a (Stirling's series); from
# `_SERIES_START` on what is left out is below 1e-10, while the two log-gammas nearly cancel in float32.
_SERIES = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336)
_SERIES_START = 8.0


class NormalInverseGamma(NamedTuple):
    """Parameters of the distribution: `mu` any number, `v` > 0, `alpha` > 1, `beta` > 0."""

    mu: Float[Array, "*s"]
    v: Float[Array, "*s"]
    alpha: Float[Array, "*s"]
    beta: Float[Array, "*s"]


def aleatoric(nig: NormalInverseGamma) -> Float[Array, "*s"]:
    """Expected variance of the data, beta / (alpha - 1)."""
    return nig.beta / (nig.alpha - 1)


def epistemic(nig: NormalInverseGamma) -> Float[Array, "*s"]:
    """Variance of the mean, beta / (v (alpha - 1))."""
    return aleatoric(nig) / nig.v


def evidence(nig: NormalInverseGamma) -> Float[Array, "*s"]:
    """Number of virtual observations, 2 v + alpha."""
    return 2 * nig.v + nig.alpha


def negative_log_likelihood(nig: NormalInverseGamma, y: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """-log p(y) in nats, p being Student's t with 2 alpha degrees of freedom.

    1/2 log(pi / v) - alpha log(O) + (alpha + 1/2) log((y - mu)^2 v + O) + log G(alpha) - log G(alpha + 1/2) with
    O = 2 beta (1 + v): its location is mu, its squared scale beta (1 + v) / (v alpha). The two logarithms of O are
    taken together, so that large alphas lose no digits.
    """
    omega = 2 * nig.beta * (1 + nig.v)
    distance = jnp.square(y - nig.mu) * nig.v
    by_distance = nig.alpha * jnp.log1p(distance / omega) + 0.5 * jnp.log(distance + omega)
    return 0.5 * (math.log(math.pi) - jnp.log(nig.v)) + by_distance - _log_gamma_step(nig.alpha)


def evidence_regularizer(nig: NormalInverseGamma, y: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """|y - mu| (2 v + alpha): an error costs more the more evidence it is claimed with."""
    return jnp.abs(y - nig.mu) * evidence(nig)


def squash(variance: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """x / (1 + x): maps [0, inf) onto [0, 1) and keeps the order."""
    return variance / (1 + variance)


def smooth_labels(y: Float[Array, "*s"], smoothing: float) -> Float[Array, "*s"]:
    """Moves labels in [0, 1] towards 1/2: 0 becomes smoothing / 2, 1 becomes 1 - smoothing / 2."""
    return y * (1 - smoothing) + smoothing / 2


def _log_gamma_step(a: jax.Array) -> jax.Array:
    """log G(a + 1/2) - log G(a) for a > 0."""
    small, large = jnp.minimum(a, _SERIES_START), jnp.maximum(a, _SERIES_START)
    plain = jax.lax.lgamma(small + 0.5) - jax.lax.lgamma(small)
    inverse = 1 / large
    series = jnp.zeros_like(inverse)
    for coefficient in reversed(_SERIES):
        series = series * jnp.square(inverse) + coefficient
    return jnp.where(a < _SERIES_START, plain, 0.5 * jnp.log(large) + series * inverse)
