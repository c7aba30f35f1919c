import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ruac_jax.heads.distribution import MaskDistribution, monte_carlo_probability, take_token
from ruac_jax.heads.evidential import EvidentialLogits
from ruac_jax.heads.hypernetwork import PointMass
from ruac_jax.heads.weibull import WeibullLogits
from ruac_jax.weights import HEADS

from .test_hypernetwork import make_features


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


@pytest.mark.parametrize("kind", [PointMass, WeibullLogits, EvidentialLogits])
def test_every_distribution_is_of_the_one_interface(kind):
    assert issubclass(kind, MaskDistribution)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_answers_the_interface_in_the_same_shapes(name, rng):
    features, truth = make_features(rng, n=2, size=4), jnp.asarray(rng.uniform(size=(2, 4, 4)), jnp.float32)
    head = HEADS[name](32, rngs=nnx.Rngs(0))

    def answers(choose):
        distribution, key = choose(head(features)), jax.random.key(0)
        of_logits = (distribution.mean_logits(), distribution.sample_logits(key), distribution.variance("full"))
        in_range = tuple(
            answer(method, key=key)
            for answer in (distribution.probability, distribution.uncertainty)
            for method in ("analytic", "monte_carlo")
        )
        by_object = (distribution.regularizer(), distribution.likelihood(truth))
        return of_logits, in_range, by_object, distribution.diagnostics()

    choices = {4: lambda d: d, 2: lambda d: d.select(1, 3), 1: lambda d: d.take(jnp.array([3, 0]))}
    for tokens, choose in choices.items():
        of_logits, in_range, by_object, diagnostics = jax.eval_shape(lambda choose=choose: answers(choose))
        assert {(x.shape, str(x.dtype)) for x in of_logits + in_range} == {((2, tokens, 4, 4), "float32")}
        assert {(x.shape, str(x.dtype)) for x in by_object} == {((2,), "float32")}
        assert all(x.shape == () for x in diagnostics.values())
    of_logits, in_range, by_object, diagnostics = jax.jit(lambda: answers(choices[4]))()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((of_logits, in_range, by_object, diagnostics)))
    assert all(float(x.min()) >= 0 and float(x.max()) <= 1 for x in in_range)


@pytest.mark.parametrize("name", ["hypernetwork", "weibull"])
def test_heads_without_a_likelihood_of_their_own_give_zeros(name, rng):
    distribution = HEADS[name](32, rngs=nnx.Rngs(0))(make_features(rng, n=3))
    np.testing.assert_array_equal(distribution.likelihood(jnp.ones((3, 4, 4))), np.zeros(3))
