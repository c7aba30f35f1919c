import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ruac_jax.functional.losses import (
    calibration_terms,
    dice_loss,
    focal_loss,
    mask_iou,
    segmentation_terms,
)


def make_case(rng, n=4, t=3, size=12, spread=4.0):
    logits = rng.normal(scale=spread, size=(n, t, size, size)).astype(np.float32)
    target = rng.random((n, size, size)) < 0.3
    return logits, target, rng.random((n, t)).astype(np.float32), rng.normal(size=n).astype(np.float32)


def reference_terms(logits, target, predicted_iou, object_score):
    """The recipe, object by object and mask by mask, in float64."""
    rows = []
    for x, y, ious, score in zip(logits.astype(np.float64), target, predicted_iou, object_score, strict=True):
        focal, dice, error = [], [], []
        for mask, iou in zip(x, ious, strict=True):
            p = special.expit(mask)
            true_class = np.where(y, p, 1 - p)
            focal.append((np.where(y, 0.25, 0.75) * (1 - true_class) ** 2 * -np.log(true_class)).mean())
            dice.append(1 - (2 * p[y].sum() + 1) / (p.sum() + y.sum() + 1))
            error.append(abs(iou - ((mask > 0) & y).sum() / max(((mask > 0) | y).sum(), 1)))
        best = min(range(len(focal)), key=lambda i: 20 * focal[i] + dice[i])
        p = special.expit(np.float64(score))
        if y.any():
            rows.append((focal[best], dice[best], np.mean(error), -np.log(p)))
        else:
            rows.append((0, 0, 0, -np.log(1 - p)))
    return np.array(rows).T


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("t", [1, 3])
def test_segmentation_terms_follow_the_recipe(seed, t):
    case = make_case(np.random.default_rng(seed), t=t)
    case[1][1] = False  # an absent object
    terms = jax.jit(segmentation_terms)(*map(jnp.asarray, case))
    np.testing.assert_allclose(np.stack(terms), reference_terms(*case), rtol=2e-6, atol=1e-6)


def test_values_worked_out_by_hand():
    target = jnp.array([[[True, True], [False, False]]])
    logits = jnp.zeros((1, 1, 2, 2))
    np.testing.assert_allclose(focal_loss(logits, target), np.log(2) / 4 * (0.25 + 0.75) / 2, rtol=1e-6)
    np.testing.assert_allclose(dice_loss(logits, target), 1 - 3 / 5, rtol=1e-6)
    mask = jnp.array([[[[1.0, -1.0], [1.0, 0.0]]]])  # a logit of 0 is background
    np.testing.assert_allclose(mask_iou(mask, target), 1 / 3, rtol=1e-6)
    np.testing.assert_array_equal(mask_iou(-jnp.ones((1, 1, 2, 2)), jnp.zeros((1, 2, 2), bool)), [[0.0]])


def test_only_the_best_mask_learns_but_every_iou_does(rng):
    logits, target, iou, score = map(jnp.asarray, make_case(rng))

    def loss(logits, iou):
        terms = segmentation_terms(logits, target, iou, score)
        return (terms.focal + terms.dice + terms.iou).sum()

    by_logits, by_iou = jax.jit(jax.grad(loss, argnums=(0, 1)))(logits, iou)
    felt = np.abs(by_logits).sum(axis=(2, 3)) > 0
    best = np.argmin(20 * focal_loss(logits, target) + dice_loss(logits, target), axis=1)
    np.testing.assert_array_equal(felt, np.eye(3, dtype=bool)[best])
    # Actual IoU is a constant: the mean over three masks of |predicted - actual| gives +-1/3.
    np.testing.assert_allclose(by_iou, np.sign(iou - mask_iou(logits, target)) / 3, rtol=1e-6)


def test_an_absent_object_teaches_its_score_alone(rng):
    logits, _, iou, score = map(jnp.asarray, make_case(rng))
    target = jnp.zeros((4, 12, 12), bool)

    def loss(logits, iou, score):
        return sum(term.sum() for term in segmentation_terms(logits, target, iou, score))

    by_logits, by_iou, by_score = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(logits, iou, score)
    assert not np.any(by_logits)
    assert not np.any(by_iou)
    np.testing.assert_allclose(by_score, special.expit(np.asarray(score)), rtol=1e-5)


@pytest.mark.parametrize("size", [-1e4, -1024.0, 1024.0, 1e4])
def test_suppressed_logits_keep_value_and_gradient_finite(size):
    target = jnp.arange(16).reshape(1, 4, 4) < 8

    def loss(logits, score):
        return sum(t.sum() for t in segmentation_terms(logits, target, jnp.zeros((1, 3)), score))

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(
        jnp.full((1, 3, 4, 4), size), jnp.full((1,), size)
    )
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)
    wrong = 0.25 if size < 0 else 0.75  # half of the pixels pay alpha times |logit|
    np.testing.assert_allclose(focal_loss(jnp.full((1, 1, 4, 4), size), target), wrong * abs(size) / 2, rtol=1e-6)


def test_calibration_terms_are_equation_5(rng):
    logits = rng.normal(scale=3, size=(3, 8, 8)).astype(np.float32)
    target, u = rng.random((3, 8, 8)) < 0.5, rng.random((3, 8, 8)).astype(np.float32)
    terms = calibration_terms(*map(jnp.asarray, (logits, target, u)))
    e = np.abs(special.expit(logits.astype(np.float64)) - target)
    expected = (e * np.exp(-u) + (1 - e) * np.exp(u)).mean(axis=(1, 2))
    np.testing.assert_allclose(terms.error, expected, rtol=1e-5)
    np.testing.assert_allclose(terms.uncertainty, expected, rtol=1e-5)


def test_calibration_channels_route_their_gradients(rng):
    logits = rng.normal(scale=3, size=(1, 8, 8)).astype(np.float32)
    y, u = rng.random((1, 8, 8)) < 0.5, rng.random((1, 8, 8)).astype(np.float32)

    def gradients(channel):
        def loss(logits, u):
            return calibration_terms(logits, jnp.asarray(y), u)[channel].sum()

        return jax.grad(loss, argnums=(0, 1))(jnp.asarray(logits), jnp.asarray(u))

    p = special.expit(logits.astype(np.float64))
    e = np.abs(p - y)
    by_logits, by_u = gradients(0)
    # d/de = exp(-u) - exp(u) < 0: descent makes the error grow, which is what an attacker's reversed gradient undoes.
    expected = (np.exp(-u) - np.exp(u)) * np.where(y, -1, 1) * p * (1 - p) / 64
    np.testing.assert_allclose(by_logits, expected, rtol=1e-4, atol=1e-8)
    assert not np.any(by_u)

    by_logits, by_u = gradients(1)
    np.testing.assert_allclose(by_u, ((1 - e) * np.exp(u) - e * np.exp(-u)) / 64, rtol=1e-4, atol=1e-8)
    assert not np.any(by_logits)
    # Descent raises u at wrong, confident pixels and lowers it at right, doubtful ones.
    assert (np.asarray(by_u)[(e > 0.9) & (u < 0.9)] < 0).all()
    assert (np.asarray(by_u)[e < 0.5] > 0).all()
