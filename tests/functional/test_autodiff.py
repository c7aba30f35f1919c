import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ruac_jax.functional.autodiff import opening_relu, reverse_gradient, ste_relu


def test_reverse_gradient_keeps_values_and_negates_the_gradient(rng):
    x = {"a": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32), "b": [jnp.float32(2.0)]}

    def loss(tree, through):
        tree = through(tree)
        return (tree["a"] ** 3).sum() + tree["b"][0] * tree["a"].sum()

    value, gradient = jax.value_and_grad(loss)(x, reverse_gradient)
    plain_value, plain = jax.value_and_grad(loss)(x, lambda tree: tree)
    assert value == plain_value
    jax.tree.map(lambda g, p: np.testing.assert_array_equal(g, -p), gradient, plain)
    twice = jax.grad(loss)(x, lambda tree: reverse_gradient(reverse_gradient(tree)))
    jax.tree.map(np.testing.assert_array_equal, twice, plain)


def test_reverse_gradient_passes_other_leaves_and_module_states():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    tree = (nnx.state(model), jnp.arange(3), jnp.array([True]), 1.5)
    out = jax.jit(reverse_gradient)(tree)
    assert jax.tree.structure(out) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, out, tree)
    assert [x.dtype for x in jax.tree.leaves(out)[-3:-1]] == [jnp.int32, jnp.bool_]


def test_ste_relu_is_a_rectifier_with_the_gradient_of_the_identity():
    x = jnp.array([-2.0, -1e-30, 0.0, 1e-30, 3.0])
    np.testing.assert_array_equal(ste_relu(x), np.maximum(x, 0))
    _, pull = jax.vjp(ste_relu, x)
    cotangent = jnp.arange(1.0, 6.0)
    np.testing.assert_array_equal(pull(cotangent)[0], cotangent)
    assert ste_relu(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_opening_relu_keeps_of_that_gradient_what_opens_a_closed_unit():
    x = jnp.array([-2.0, -2.0, 0.0, 0.0, 3.0, 3.0])
    np.testing.assert_array_equal(opening_relu(x), np.maximum(x, 0))
    _, pull = jax.vjp(opening_relu, x)
    np.testing.assert_array_equal(pull(jnp.array([1.0, -1.0, 2.0, -2.0, 3.0, -3.0]))[0], [0, -1, 0, -2, 3, -3])
    assert opening_relu(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_descent_pushes_closed_units_down_under_ste_relu_alone():
    def descend(rectify):
        def loss(x):  # the sum is too large by 1, of which the first has no part
            return jnp.square(rectify(x).sum() - 1)

        x = jnp.array([-1.0, 2.0])
        for _ in range(20):
            x = x - 0.1 * jax.grad(loss)(x)
        return x

    pushed, kept = descend(ste_relu), descend(opening_relu)
    assert kept[0] == -1
    np.testing.assert_allclose(pushed[0], -2, atol=0.02)  # as far as the other came down
    np.testing.assert_allclose([pushed[1], kept[1]], 1, atol=0.02)
