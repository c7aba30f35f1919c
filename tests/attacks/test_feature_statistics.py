import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ruac_jax.attacks.feature_statistics import dsu, mix_style

SHAPES = ((8, 8, 8, 3), (8, 4, 4, 3), (8, 2, 4, 3))
KEYS = jax.random.split(jax.random.key(0), 2000)
BOTH = pytest.mark.parametrize("perturb", [mix_style, dsu])


def levels(batch=8, dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.5, 2.0, (3, batch, 1, 1, 3))
    return tuple(
        jnp.asarray(rng.normal(size=(batch, *shape[1:])) * scale + rng.normal(size=(batch, 1, 1, 3)), dtype)
        for shape, scale in zip(SHAPES, scales, strict=True)
    )


def moments(x):
    """Mean and unbiased standard deviation over the pixels, [b, c], in float64."""
    rows = np.asarray(x, np.float64).reshape(x.shape[0], -1, x.shape[3])
    mean = rows.sum(axis=1) / rows.shape[1]
    return mean, np.sqrt(((rows - mean[:, None]) ** 2).sum(axis=1) / (rows.shape[1] - 1))


def spread(values):
    """Unbiased standard deviation over the batch."""
    return np.sqrt(((values - values.mean(axis=0)) ** 2).sum(axis=0) / (len(values) - 1))


def changed(before, after):
    return [bool((np.asarray(a) != np.asarray(b)).any()) for a, b in zip(before, after, strict=True)]


def key_that_changes_all(perturb, inputs):
    return next(key for key in KEYS[:100] if all(changed(inputs, perturb(inputs, key))))


def recover_mixing(before, after):
    """Each sample's share and partner, the only ones that explain its new mean and standard deviation."""
    (mean, std), (new_mean, new_std) = moments(before), moments(after)
    old, new = np.concatenate([mean, std], axis=1), np.concatenate([new_mean, new_std], axis=1)
    shares, partners = [], []
    for i, row in enumerate(new):
        errors, fitted = [], []
        for other in old:
            direction = old[i] - other
            length = (direction**2).sum()
            share = 1.0 if length == 0 else ((row - other) * direction).sum() / length
            fitted.append(share)
            errors.append(np.abs(row - (share * old[i] + (1 - share) * other)).max())
        best = int(np.argmin(errors))
        assert errors[best] < 2e-5
        shares.append(fitted[best])
        partners.append(best)
    return np.array(shares), np.array(partners)


def test_mixstyle_mixes_both_statistics_with_one_share_and_one_partner():
    inputs = levels()
    used = []
    for key in KEYS[:40]:
        for before, after in zip(inputs, mix_style(inputs, key), strict=True):
            if not changed([before], [after])[0]:
                continue
            shares, partners = recover_mixing(before, after)
            assert ((shares > -1e-4) & (shares < 1 + 1e-4)).all()
            moved = shares < 0.99
            # A permutation: nobody is the partner of two.
            assert len(set(partners[moved])) == moved.sum()
            used.append(shares[moved])
    used = np.concatenate(used)
    assert len(used) > 100
    # Beta(0.1, 0.1) lies at its ends: 0.41 of its mass is below 0.01, 0.06 between 0.2 and 0.8 (cut off at 0.99 here).
    assert (used < 0.01).mean() > 0.4
    assert 0 < ((used > 0.2) & (used < 0.8)).mean() < 0.3


@BOTH
def test_content_stays(perturb):
    """Up to its statistics the map of each channel is the same: only an affine change."""
    inputs = levels()
    outputs = perturb(inputs, key_that_changes_all(perturb, inputs))
    for before, after in zip(inputs, outputs, strict=True):
        rows = [np.moveaxis(np.asarray(x, np.float64), 3, 1).reshape(24, -1) for x in (before, after)]
        correlation = [abs(np.corrcoef(a, b)[0, 1]) for a, b in zip(*rows, strict=True)]
        np.testing.assert_allclose(correlation, 1, atol=1e-5)


def test_dsu_noise_is_half_the_spread_over_the_batch():
    inputs = levels()
    draws = jax.jit(jax.vmap(lambda key: dsu(inputs, key)))(KEYS)
    for before, after in zip(inputs, draws, strict=True):
        active = np.asarray((after != before[None]).any(axis=(1, 2, 3, 4)))
        after = np.asarray(after, np.float64)[active]
        mean, std = moments(before)
        centred = np.asarray(before, np.float64) - mean[:, None, None]
        new_mean = after.mean(axis=(2, 3))
        # Signed: the noise may turn a standard deviation negative.
        new_std = np.einsum("nbhwc,bhwc->nbc", after, centred) / np.einsum("bhwc,bhwc->bc", centred, centred) * std
        for new, old in ((new_mean, mean), (new_std, std)):
            noise = (new - old) / spread(old)
            count = noise[..., 0].size
            # Pooled over the batch: five standard errors of a Gaussian's mean and standard deviation.
            np.testing.assert_allclose(noise.mean(axis=(0, 1)), 0, atol=5 * 0.5 / np.sqrt(count))
            np.testing.assert_allclose(noise.std(axis=(0, 1)), 0.5, atol=5 * 0.5 / np.sqrt(2 * count))
        within = (new_mean - mean)[..., 0].ravel(), (new_std - std)[..., 0].ravel()
        assert abs(np.corrcoef(*within)[0, 1]) < 5 / np.sqrt(len(within[0]))


@BOTH
def test_each_level_has_a_fair_coin_of_its_own(perturb):
    inputs = levels()
    draws = jax.jit(jax.vmap(lambda key: perturb(inputs, key)))(KEYS)
    active = np.stack(
        [(np.asarray(a) != np.asarray(b)[None]).any(axis=(1, 2, 3, 4)) for a, b in zip(draws, inputs, strict=True)]
    )
    np.testing.assert_allclose(active.mean(axis=1), 0.5, atol=5 * 0.5 / np.sqrt(len(KEYS)))
    correlation = np.corrcoef(active)[np.triu_indices(3, 1)]
    np.testing.assert_allclose(correlation, 0, atol=5 / np.sqrt(len(KEYS)))


@BOTH
def test_one_image_is_left_alone(perturb):
    inputs = levels(batch=1)
    for key in KEYS[:20]:
        assert changed(inputs, perturb(inputs, key)) == [False] * 3


@BOTH
def test_a_flat_channel_stays_finite(perturb):
    inputs = jax.tree.map(lambda x: x.at[:, :, :, 0].set(1.0), levels())
    key = key_that_changes_all(perturb, inputs)
    gradient = jax.grad(lambda x: sum(y.sum() for y in perturb(x, key)))(inputs)
    for x in (*perturb(inputs, key), *gradient):
        assert np.isfinite(np.asarray(x)).all()


@BOTH
def test_bfloat16_in_and_out_with_statistics_in_float32(perturb):
    inputs = levels(dtype=jnp.bfloat16)
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), inputs)
    key = key_that_changes_all(perturb, wide)
    for got, want in zip(perturb(inputs, key), perturb(wide, key), strict=True):
        assert got.dtype == jnp.bfloat16
        np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))


def slope_of(before, after, weight, direction, constant_statistics):
    """Derivative of sum(weight * output) along a direction, by central differences of a restatement in float64.

    The draws are read off the output: new mean and standard deviation for MixStyle, whose statistics are constants, the
    noise in units of the spread for DSU.
    """
    x, weight = np.asarray(before, np.float64), np.asarray(weight, np.float64)
    (mean, std), (new_mean, _) = moments(x), moments(after)
    centred = x - mean[:, None, None]
    new_std = (np.asarray(after, np.float64) * centred).sum((1, 2)) / (centred**2).sum((1, 2)) * std
    noise = (new_mean - mean) / spread(mean), (new_std - std) / spread(std)

    def total(x):
        m, s = (mean, std) if constant_statistics else moments(x)
        to_mean, to_std = (
            (new_mean, new_std) if constant_statistics else (m + noise[0] * spread(m), s + noise[1] * spread(s))
        )
        m, s, to_mean, to_std = (v[:, None, None] for v in (m, s, to_mean, to_std))
        return (weight * ((x - m) / s * to_std + to_mean)).sum()

    step = 1e-5 * direction
    return (total(x + step) - total(x - step)) / 2e-5


@pytest.mark.parametrize(("perturb", "constant"), [(mix_style, True), (dsu, False)])
def test_gradients_are_those_of_the_published_conventions(perturb, constant, rng):
    inputs = levels()
    key = key_that_changes_all(perturb, inputs)
    weights = [rng.normal(size=x.shape) for x in inputs]

    def loss(x):
        return sum((y * jnp.asarray(w, jnp.float32)).sum() for y, w in zip(perturb(x, key), weights, strict=True))

    gradient = jax.grad(loss)(inputs)
    for got, before, after, weight in zip(gradient, inputs, perturb(inputs, key), weights, strict=True):
        # Along the image itself the two conventions differ most: there the statistics move.
        for direction in (np.asarray(before, np.float64), *rng.normal(size=(4, *before.shape))):
            along = (np.asarray(got, np.float64) * direction).sum()
            want = slope_of(before, after, weight, direction, constant)
            np.testing.assert_allclose(along, want, rtol=1e-3, atol=2e-3)
        other = slope_of(before, after, weight, np.asarray(before, np.float64), not constant)
        assert abs(other - slope_of(before, after, weight, np.asarray(before, np.float64), constant)) > 0.1


@BOTH
def test_the_gradient_has_no_scatter(perturb):
    gradient = jax.jit(jax.grad(lambda x, key: sum((y**2).sum() for y in perturb(x, key))))
    lowered = gradient.lower(levels(), jax.random.key(0))
    assert "stablehlo.scatter" not in lowered.as_text()


@BOTH
def test_a_sharded_batch_gives_the_same(perturb):
    inputs = levels()
    key = key_that_changes_all(perturb, inputs)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(inputs, NamedSharding(mesh, PartitionSpec("data")))
    for got, want in zip(jax.jit(perturb)(sharded, key), perturb(inputs, key), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
