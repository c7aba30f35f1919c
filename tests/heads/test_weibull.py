import inspect  # to get behind the run-time type check, which refuses these values first

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special

from ruac_jax.functional.losses import calibration_terms, segmentation_terms
from ruac_jax.heads.distribution import DecoderFeatures
from ruac_jax.heads.weibull import WeibullHead, WeibullLogits


def make_distribution(rng, n=2, size=4, t=3, c=8, kappa=(0.8, 5.0)):
    def uniform(*shape):
        return jnp.asarray(rng.uniform(*kappa, size=shape), jnp.float32)

    def gamma(*shape):
        return jnp.asarray(rng.gamma(1.5, 0.4, size=shape), jnp.float32)

    return WeibullLogits(
        gamma(n, size, size, c),
        uniform(n, size, size, 1),
        gamma(n, t, 2, c),
        uniform(n, t, 1, c),
        (0.1, 10.0),
        (1.0, 3.0),
    )


def make_features(rng, n=2, size=6, d_model=64, dtype=jnp.float32):
    return DecoderFeatures(
        jax.nn.gelu(jnp.asarray(rng.normal(scale=1.4, size=(n, size, size, d_model // 8)), dtype)),
        jnp.asarray(rng.normal(size=(n, 4, d_model)), dtype),
        jnp.ones((n, 4), dtype),
        jnp.ones(n, dtype),
    )


def moments(distribution):
    """Mean and variance of every factor in float64, expanded to all channels and classes."""
    out = []
    for mean, kappa in (
        (distribution.pixel_mean, distribution.pixel_kappa),
        (distribution.token_mean, distribution.token_kappa),
    ):
        mean, kappa = np.asarray(mean, np.float64), np.asarray(kappa, np.float64)
        scale = mean / special.gamma(1 + 1 / kappa)
        out += [mean, scale**2 * (special.gamma(1 + 2 / kappa) - special.gamma(1 + 1 / kappa) ** 2)]
    return out


def brute_force_variance(distribution, mode):
    z, var_z, w, var_w = moments(distribution)
    n, h, width, c = z.shape
    out = np.zeros((n, w.shape[1], h, width))
    for i in range(n):
        for t in range(w.shape[1]):
            for ch in range(c):
                vz, ez = var_z[i, :, :, ch], z[i, :, :, ch]
                v_fg, v_bg = var_w[i, t, :, ch]
                d, vd = w[i, t, 0, ch] - w[i, t, 1, ch], v_fg + v_bg
                out[i, t] += vz * (v_fg + v_bg) / 2 if mode == "product" else d**2 * vz + ez**2 * vd + vz * vd
    return out


def test_mean_logits_are_evidence_for_minus_evidence_against(rng):
    d = make_distribution(rng)
    w = np.asarray(d.token_mean, np.float64)
    expected = np.einsum("nhwc,ntc->nthw", np.asarray(d.pixel_mean, np.float64), w[:, :, 0] - w[:, :, 1])
    np.testing.assert_allclose(d.mean_logits(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["product", "full"])
@pytest.mark.parametrize("seed", range(2))
def test_variance_equals_the_sum_over_channels(mode, seed):
    d = make_distribution(np.random.default_rng(seed))
    np.testing.assert_allclose(d.variance(mode), brute_force_variance(d, mode), rtol=3e-5)


def test_sampled_logits_have_the_closed_moments(rng):
    d = make_distribution(rng, n=1, size=3, t=2, kappa=(1.0, 5.0))
    draws = 40_000
    sample = jax.jit(jax.vmap(d.sample_logits))
    logits = np.asarray(sample(jax.random.split(jax.random.key(1), draws)), np.float64)
    variance = np.asarray(d.variance("full"), np.float64)
    # Five standard errors; that of the variance from the draws' own fourth moment.
    error = np.sqrt(variance / draws)
    assert (np.abs(logits.mean(axis=0) - d.mean_logits()) < 5 * error).all()
    centred = (logits - logits.mean(axis=0)) ** 2
    assert (np.abs(centred.mean(axis=0) - variance) < 5 * centred.std(axis=0) / np.sqrt(draws)).all()


def test_token_factors_are_shared_by_pixels_and_pixel_factors_by_tokens(rng):
    """Logits of two pixels vary together through W alone, those of two tokens at a pixel through Z alone."""
    d = make_distribution(rng, n=1, size=2, t=2, kappa=(1.0, 5.0))
    logits = jax.jit(jax.vmap(d.sample_logits))(jax.random.split(jax.random.key(2), 40_000))
    logits = np.asarray(logits, np.float64)[:, 0]
    z, var_z, w, var_w = (m[0] for m in moments(d))
    difference = w[:, 0] - w[:, 1]
    pairs = [
        (logits[:, 0, 0, 0], logits[:, 0, 0, 1], (z[0, 0] * z[0, 1] * var_w[0].sum(axis=0)).sum()),
        (logits[:, 0, 0, 0], logits[:, 1, 0, 0], (difference[0] * difference[1] * var_z[0, 0]).sum()),
    ]
    for x, y, expected in pairs:
        product = (x - x.mean()) * (y - y.mean())
        assert abs(product.mean() - expected) < 5 * product.std() / np.sqrt(product.size)


def test_monte_carlo_equals_stacked_draws(rng):
    d, key = make_distribution(rng), jax.random.key(4)
    sample = jax.jit(d.sample_logits)
    draws = np.stack([sample(jax.random.fold_in(key, i)) for i in range(7)]).astype(np.float64)
    p = special.expit(draws).mean(axis=0)
    settings = {"samples": 7, "key": key}
    both = jax.jit(lambda d: (d.probability("monte_carlo", **settings), d.uncertainty("monte_carlo", **settings)))
    probability, uncertainty = both(d)
    np.testing.assert_allclose(probability, p, rtol=1e-5)
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    np.testing.assert_allclose(uncertainty, entropy, rtol=1e-4, atol=1e-6)


def test_monte_carlo_takes_no_more_memory_for_more_samples(rng):
    d = make_distribution(rng)

    def memory(samples):
        compiled = jax.jit(lambda d, k: d.uncertainty("monte_carlo", samples=samples, key=k)).lower(
            d, jax.random.key(0)
        )
        return compiled.compile().memory_analysis().temp_size_in_bytes

    assert memory(4) == memory(64)


@pytest.mark.parametrize("mode", ["product", "full"])
def test_analytic_uncertainty_is_the_entropy_of_the_probit_probability(rng, mode):
    d = make_distribution(rng)
    mean, variance = np.asarray(d.mean_logits(), np.float64), brute_force_variance(d, mode)
    p = np.clip(special.expit(mean / np.sqrt(1 + np.pi / 8 * variance)), 1e-4, 1 - 1e-4)
    np.testing.assert_allclose(d.probability(mode=mode), p, rtol=1e-4)
    u = d.uncertainty(mode=mode)
    np.testing.assert_allclose(u, -(p * np.log2(p) + (1 - p) * np.log2(1 - p)), rtol=1e-4)
    assert u.min() >= 0
    assert u.max() <= 1


def test_analytic_uncertainty_is_near_the_sampled_one(rng):
    """The exact variance leaves MacKay's error (0.018 in p) and that the logit is not Gaussian."""
    d = make_distribution(rng, n=1, t=2, c=32, kappa=(1.0, 5.0))
    sampled = d.probability("monte_carlo", samples=4000, key=jax.random.key(0))
    assert np.abs(d.probability(mode="full") - sampled).max() < 0.05


def test_unknown_settings_are_refused(rng):
    d = make_distribution(rng)
    with pytest.raises(ValueError, match="'product' or 'full'"):
        inspect.unwrap(WeibullLogits.variance)(d, "exact")
    with pytest.raises(ValueError, match="'analytic' or 'monte_carlo'"):
        inspect.unwrap(WeibullLogits.uncertainty)(d, "sampled")


def test_regularizer_sums_channels_and_averages_all_else(rng):
    d = make_distribution(rng)
    total = 0
    for mean, kappa in ((d.pixel_mean, d.pixel_kappa), (d.token_mean, d.token_kappa)):
        mean, k = np.asarray(mean, np.float64), np.asarray(kappa, np.float64)
        scale = mean / special.gamma(1 + 1 / k)
        # Gamma(1, 3) is the exponential distribution of rate 3.
        element = np.euler_gamma / k - np.log(scale) + np.log(k) + 3 * mean - np.euler_gamma - 1 - np.log(3)
        total = total + element.sum(axis=-1).mean(axis=(1, 2))
    np.testing.assert_allclose(d.regularizer(), total, rtol=1e-5)


def test_tokens_can_be_chosen(rng):
    d = make_distribution(rng, t=4)
    logits, spread = d.mean_logits(), d.variance("full")
    part = d.select(1, 3)
    np.testing.assert_allclose(part.mean_logits(), logits[:, 1:3], rtol=1e-5, atol=1e-6)
    one = jax.jit(lambda d, i: d.take(i))(d, jnp.array([3, 0]))
    for whole, chosen in ((logits, one.mean_logits()), (spread, one.variance("full"))):
        np.testing.assert_allclose(chosen, np.stack([whole[0, 3:], whole[1, :1]]), rtol=1e-5, atol=1e-6)
    assert one.token_kappa.shape == (2, 1, 1, 8)


def test_diagnostics_count_both_streams_alike(rng):
    d = make_distribution(rng, n=1, size=2, t=1, c=4)
    d = d.replace(
        pixel_kappa=jnp.array([0.1, 10.0, 10.0, 1.0]).reshape(1, 2, 2, 1),
        token_kappa=jnp.array([0.1, 0.1, 0.1, 9.99]).reshape(1, 1, 1, 4),
    )
    lower, upper = d.diagnostics().values()
    np.testing.assert_allclose([lower, upper], [(0.25 + 0.75) / 2, 0.25])


def test_the_head_has_the_published_size_and_names():
    shapes = {
        ".".join(map(str, path)): leaf.shape
        for path, leaf in nnx.to_flat_state(nnx.state(WeibullHead(256, rngs=nnx.Rngs(0))))
    }
    assert shapes == {
        "pixel_mlp.layers.0.kernel": (32, 64),
        "pixel_mlp.layers.0.bias": (64,),
        "pixel_mlp.layers.1.kernel": (64, 32),
        "pixel_mlp.layers.1.bias": (32,),
        "pixel_kappa.conv1.kernel": (3, 3, 32, 32),
        "pixel_kappa.conv1.bias": (32,),
        "pixel_kappa.conv2.kernel": (3, 3, 32, 1),
        "pixel_kappa.conv2.bias": (1,),
        "token_mlp.layers.0.kernel": (256, 64),
        "token_mlp.layers.0.bias": (64,),
        "token_mlp.layers.1.kernel": (64, 64),
        "token_mlp.layers.1.bias": (64,),
        "token_kappa.kernel": (2, 1),
        "token_kappa.bias": (1,),
    }
    assert sum(np.prod(shape) for shape in shapes.values()) == 34_340


def test_the_head_follows_its_formula(rng):
    head, features = WeibullHead(64, (0.5, 2.2), rngs=nnx.Rngs(1)), make_features(rng)
    head.token_kappa.kernel[...] = jnp.array([[0.7], [-0.4]])  # zero in a fresh head

    def mlp(x, layers):
        first, second = ((np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])) for layer in layers)
        return np.maximum(np.asarray(x) @ first[0] + first[1], 0) @ second[0] + second[1]

    def shape(x):
        return np.clip(np.logaddexp(x, 0), 0.5, 2.2)

    d = head(features)
    np.testing.assert_allclose(d.pixel_mean, np.maximum(mlp(features.pixels, head.pixel_mlp.layers), 0), atol=1e-5)
    w = np.maximum(mlp(features.tokens, head.token_mlp.layers), 0)
    foreground, background = w[..., :8], w[..., 8:]
    np.testing.assert_allclose(d.token_mean, np.stack([foreground, background], axis=2), atol=1e-5)
    kernel, bias = np.asarray(head.token_kappa.kernel[...]), np.asarray(head.token_kappa.bias[...])
    kappa = shape(foreground * kernel[0] + background * kernel[1] + bias)
    np.testing.assert_allclose(d.token_kappa[:, :, 0], kappa, rtol=1e-5)

    # One inner pixel of the two 3x3 convolutions, written out.
    z = np.asarray(d.pixel_mean, np.float64)
    first, second = (np.asarray(c.kernel[...], np.float64) for c in (head.pixel_kappa.conv1, head.pixel_kappa.conv2))
    hidden = np.zeros((3, 3, 8))
    for i in range(3):
        for j in range(3):
            hidden[i, j] = np.einsum("abc,abco->o", z[0, i + 1 : i + 4, j + 1 : j + 4], first)
    hidden = hidden * special.ndtr(hidden)
    raw = np.einsum("abc,abc->", hidden, second[..., 0]) + float(head.pixel_kappa.conv2.bias[...][0])
    np.testing.assert_allclose(d.pixel_kappa[0, 3, 3, 0], shape(raw), rtol=1e-4)
    assert d.kappa_range == (0.5, 2.2)


def test_bfloat16_features_are_cast_up(rng):
    head, features = WeibullHead(64, rngs=nnx.Rngs(0)), make_features(rng, dtype=jnp.bfloat16)
    d = head(features)
    assert {leaf.dtype for leaf in jax.tree.leaves(d)} == {jnp.dtype(jnp.float32)}
    same = head(jax.tree.map(lambda x: x.astype(jnp.float32), features))
    jax.tree.map(np.testing.assert_array_equal, d, same)


def test_settings_read_from_a_file_are_lists(rng):
    d = WeibullHead(64, [0.2, 5.0], [2.0, 1.0], rngs=nnx.Rngs(0))(make_features(rng))
    assert (d.kappa_range, d.prior) == ((0.2, 5.0), (2.0, 1.0))
    assert np.isfinite(jax.jit(lambda d: d.regularizer())(d)).all()


def loss_of_everything(state, features, target, key):
    d = nnx.merge(nnx.split(WeibullHead(64, rngs=nnx.Rngs(0)))[0], state)(features)
    terms = segmentation_terms(d.select(1, 4).sample_logits(key), target, features.iou[:, 1:], features.object_score)
    one = d.take(jnp.argmax(features.iou, axis=1))
    logits = one.sample_logits(key)[:, 0]
    calibration = calibration_terms(logits, target, one.uncertainty()[:, 0])
    full = one.uncertainty(mode="full").mean() + d.variance("full").mean() + d.probability().mean()
    return sum(x.sum() for x in (*terms, *calibration, d.regularizer())) + full


@pytest.fixture(scope="module")
def compiled_gradient():
    """Of `loss_of_everything` by parameters and features, for d_model 64; compiled once, which takes a while."""
    features = make_features(np.random.default_rng(0))
    state = nnx.state(WeibullHead(64, rngs=nnx.Rngs(0)))
    target, key = jnp.zeros((2, 6, 6), bool), jax.random.key(0)
    return jax.jit(jax.grad(loss_of_everything, argnums=(0, 1))).lower(state, features, target, key).compile()


def test_a_fresh_head_is_balanced(rng):
    means, deviations = [], []
    for seed in range(6):
        d = WeibullHead(256, rngs=nnx.Rngs(seed))(make_features(rng, d_model=256))
        logits = d.mean_logits()
        means.append(logits.mean())
        deviations.append(logits.std())
        for kappa in (d.pixel_kappa, d.token_kappa):
            assert 1.5 < jnp.median(kappa) < 3
        np.testing.assert_allclose(d.token_kappa, 2, rtol=1e-6)  # whatever the means
        assert max(d.diagnostics().values()) == 0
    assert abs(np.mean(means)) < 0.5
    assert 0.3 < np.mean(deviations) < 3


@pytest.mark.parametrize("seed", range(3))
def test_every_parameter_of_a_fresh_head_learns(compiled_gradient, rng, seed):
    state, target = nnx.state(WeibullHead(64, rngs=nnx.Rngs(seed))), jnp.asarray(rng.random((2, 6, 6)) < 0.5)
    by_state, by_features = compiled_gradient(state, make_features(rng), target, jax.random.key(seed))
    for leaf in (*jax.tree.leaves(by_state), by_features.pixels, by_features.tokens, by_features.object_score):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0


def test_gradients_are_finite_without_any_evidence(compiled_gradient, rng):
    """Features that leave z and w at exactly zero, where the straight-through rectifier still passes gradients."""
    head = WeibullHead(64, rngs=nnx.Rngs(0))
    for mlp in (head.pixel_mlp, head.token_mlp):
        mlp.layers[1].bias[...] = jnp.full(mlp.layers[1].bias.shape, -100.0)
    features, target = make_features(rng), jnp.asarray(rng.random((2, 6, 6)) < 0.5)
    d = head(features)
    assert not np.any(d.mean_logits())
    np.testing.assert_array_equal(d.uncertainty(), np.ones((2, 4, 6, 6)))  # no evidence, full uncertainty
    gradients = compiled_gradient(nnx.state(head), features, target, jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_the_opening_rectifier_changes_gradients_alone(rng):
    """Under it the gradient of the sum of means is a plain rectifier's, plus what opens closed units."""
    features, heads = make_features(rng), {}
    for name in ("straight_through", "opening"):
        heads[name] = WeibullHead(64, rectifier=name, rngs=nnx.Rngs(0))

    def bias_gradient(name, sign):
        graph, state = nnx.split(heads[name])

        def loss(state):
            return sign * nnx.merge(graph, state)(features).pixel_mean.sum()

        return jax.grad(loss)(state)["pixel_mlp"]["layers"][1]["bias"][...]

    means = [heads[name](features).mean_logits() for name in heads]
    np.testing.assert_array_equal(*means)
    closed = np.asarray(heads["opening"](features).pixel_mean == 0).sum(axis=(0, 1, 2))
    pixels = features.pixels[..., 0].size
    assert 0 < closed.sum() < closed.size * pixels
    np.testing.assert_array_equal(bias_gradient("straight_through", 1.0), np.full(closed.shape, pixels))
    np.testing.assert_array_equal(bias_gradient("opening", 1.0), pixels - closed)  # descent lowers: closed ones rest
    np.testing.assert_array_equal(bias_gradient("opening", -1.0), np.full(closed.shape, -pixels))  # and all rise


def test_the_gradient_of_head_and_losses_holds_no_scatter(compiled_gradient):
    text = compiled_gradient.as_text()
    assert " dot(" in text  # the text is that of the whole program
    assert " scatter(" not in text


def test_distributions_pass_through_transformations(rng):
    """JAX rebuilds them around tracers and placeholders."""
    d = make_distribution(rng)
    assert jax.tree.map(lambda x: None, d).kappa_range == (0.1, 10.0)
    carried, _ = jax.lax.scan(lambda c, _: (jax.tree.map(lambda x: x * 1.0, c), None), d, length=2)
    jax.tree.map(np.testing.assert_array_equal, carried, d)
    logits = jax.vmap(lambda d: d.mean_logits())(jax.tree.map(lambda x: jnp.stack([x, x]), d))
    np.testing.assert_allclose(logits[1], d.mean_logits(), rtol=1e-5, atol=1e-6)


def test_a_class_bias_shifts_every_logit_by_its_difference(rng):
    plain, biased = (WeibullHead(64, class_bias=flag, rngs=nnx.Rngs(0)) for flag in (False, True))
    biased.class_bias[...] = jnp.asarray([0.75, -0.5])
    features, key = make_features(rng), jax.random.key(1)
    np.testing.assert_allclose(biased(features).mean_logits(), plain(features).mean_logits() + 1.25, rtol=1e-6)
    shifted = biased(features).take(jnp.asarray([1, 2])).sample_logits(key)
    np.testing.assert_allclose(shifted, plain(features).take(jnp.asarray([1, 2])).sample_logits(key) + 1.25, rtol=1e-6)
    np.testing.assert_array_equal(biased(features).variance("full"), plain(features).variance("full"))
    sizes = [sum(x.size for x in jax.tree.leaves(nnx.state(head, nnx.Param))) for head in (plain, biased)]
    assert sizes[1] - sizes[0] == 2
