import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ruac_jax.heads.distribution import MaskDistribution, monte_carlo_probability, take_token
from ruac_jax.heads.hypernetwork import PointMass
from ruac_jax.heads.weibull import WeibullLogits


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (3, 4, 2, 5)])
def test_take_token_equals_indexing(rng, shape):
    x, index = rng.normal(size=shape).astype(np.float32), np.array([3, 0, 3])
    np.testing.assert_array_equal(take_token(jnp.asarray(x), jnp.asarray(index)), x[np.arange(3), index][:, None])


def test_gradient_of_take_token_goes_to_the_taken(rng):
    x, index = jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32), jnp.array([2, 0])
    gradient = jax.grad(lambda x: (take_token(x, index) * 2.0).sum())(x)
    expected = np.zeros((2, 3, 4))
    expected[0, 2] = expected[1, 0] = 2
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize(("samples", "key"), [(20, None), (0, jax.random.PRNGKey(0))])
def test_monte_carlo_needs_a_key_and_samples(samples, key):
    with pytest.raises(ValueError, match="needs a key and at least 1 sample"):
        monte_carlo_probability(PointMass(jnp.zeros((1, 1, 2, 2))), samples, key)


def test_both_distributions_are_of_the_one_interface():
    assert issubclass(PointMass, MaskDistribution)
    assert issubclass(WeibullLogits, MaskDistribution)
