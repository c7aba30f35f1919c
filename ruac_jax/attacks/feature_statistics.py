"""MixStyle and DSU: other feature statistics for the same content, on the three levels of the pyramid (method, 7).

Zhou et al., "Domain Generalization with MixStyle" (ICLR 2021), and Li et al., "Uncertainty Modeling for
Out-of-Distribution Generalization" (ICLR 2022). As in the code that both released: every place of use draws for
itself, so here each level has a coin, a permutation, shares and noise of its own; the coin is for the whole batch;
variances are the unbiased ones; 1e-6 is added below every root. MixStyle takes the statistics as constants, DSU lets
the gradient through them and through their spread over the batch. Settings are those of RUAC's comparison.

Computed in float32, returned in the levels' own dtype. A batch of one image has nothing to mix and no spread (the
released DSU gives NaN there): it is returned as it is.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ruac_jax.sam2.neck import Levels

PROBABILITY = 0.5
MIX_CONCENTRATION = 0.1  # both parameters of the Beta distribution of a sample's share of its own statistics
DSU_FACTOR = 0.5  # of the spread over the batch
_EPSILON = 1e-6

Statistics = tuple[Float[Array, "b 1 1 c"], Float[Array, "b 1 1 c"]]  # mean and standard deviation


def mix_style(levels: Levels, key: PRNGKeyArray) -> Levels:
    """MixStyle: mixes each image's channel means and standard deviations with those of another image of the batch.

    Where a level's coin falls so (probability 0.5), sample i of it gets the statistics
    lambda_i own_i + (1 - lambda_i) own_perm(i), with lambda_i ~ Beta(0.1, 0.1). The statistics are constants.
    """
    return _perturb(levels, key, _mixed)


def dsu(levels: Levels, key: PRNGKeyArray) -> Levels:
    """DSU: Gaussian noise on each image's channel means and standard deviations.

    Where a level's coin falls so (probability 0.5), each number gets noise of half its standard deviation over the
    batch. A new standard deviation may be negative, as in the released code.
    """
    return _perturb(levels, key, _resampled)


def _perturb(
    levels: Levels,
    key: PRNGKeyArray,
    change: Callable[[Float[Array, "b h w c"], PRNGKeyArray], Float[Array, "b h w c"]],
) -> Levels:
    if levels[0].shape[0] == 1:
        return levels
    keys = jax.random.split(key, (len(levels), 2))

    def one(x: jax.Array, coin: jax.Array, draw: jax.Array) -> jax.Array:
        return jnp.where(
            jax.random.bernoulli(coin, PROBABILITY), change(x.astype(jnp.float32), draw).astype(x.dtype), x
        )

    fine, middle, coarse = (one(x, *pair) for x, pair in zip(levels, keys, strict=True))
    return fine, middle, coarse


def _mixed(x: Float[Array, "b h w c"], key: PRNGKeyArray) -> Float[Array, "b h w c"]:
    shares, order = jax.random.split(key)
    old = jax.lax.stop_gradient(_statistics(x))
    own = jax.random.beta(shares, MIX_CONCENTRATION, MIX_CONCENTRATION, (x.shape[0], 1, 1, 1))
    partner = jax.random.permutation(order, x.shape[0])
    mean, std = (own * value + (1 - own) * value[partner] for value in old)  # of constants: no scatter backwards
    return _replace(x, old, (mean, std))


def _resampled(x: Float[Array, "b h w c"], key: PRNGKeyArray) -> Float[Array, "b h w c"]:
    old = _statistics(x)
    mean, std = (
        value + DSU_FACTOR * jax.random.normal(k, value.shape) * _spread(value)
        for value, k in zip(old, jax.random.split(key), strict=True)
    )
    return _replace(x, old, (mean, std))


def _statistics(x: Float[Array, "b h w c"]) -> Statistics:
    variance = x.var(axis=(1, 2), ddof=1, keepdims=True)
    return x.mean(axis=(1, 2), keepdims=True), jnp.sqrt(variance + _EPSILON)


def _spread(value: Float[Array, "b 1 1 c"]) -> Float[Array, "1 1 1 c"]:
    return jnp.sqrt(value.var(axis=0, ddof=1, keepdims=True) + _EPSILON)


def _replace(x: Float[Array, "b h w c"], old: Statistics, new: Statistics) -> Float[Array, "b h w c"]:
    return (x - old[0]) * (new[1] / old[1]) + new[0]
