import jax
import jax.numpy as jnp
import numpy as np

from ruac_jax.attacks.attack import Attack, AttackOutput
from ruac_jax.model import normalize_image
from ruac_jax.sam2.prompt_encoder import ABSENT, POSITIVE
from ruac_jax.training.adversarial import adversarial_branch
from ruac_jax.training.system import System

SHIFT = 5  # px, to the right


class Shift(Attack):
    """Moves images and objects sideways, and doubles the maps."""

    def __call__(self, clean, key):
        flow = jnp.zeros((*clean.masks.shape, 2)).at[..., 0].set(-SHIFT)
        roll = [jnp.roll(x, SHIFT, axis) for x, axis in ((clean.image, 2), (clean.masks, 3))]
        return AttackOutput(*roll, flow, {})

    def perturb(self, levels, key):
        return jax.tree.map(lambda x: 2 * x, levels)


def branch(system, batch, attack, points, labels):
    model, image = system.model, normalize_image(jnp.asarray(batch.image))
    features = model.project(model.backbone(image))
    keys = tuple(jax.random.split(jax.random.key(0)))
    masks, valid = jnp.asarray(batch.masks), jnp.asarray(batch.valid)
    dtype = jnp.dtype("float32")
    return adversarial_branch(
        System(model, attack), features, image, masks, valid, points, labels, keys, dtype
    ), features


def first_prompts(masks):
    """A pixel (x, y) of each mask of [n, h, w], the origin where it is empty, and a slot without a prompt."""
    rows = [np.argwhere(mask)[len(np.argwhere(mask)) // 2][::-1] if mask.any() else (0, 0) for mask in masks]
    points = np.stack([np.array(rows, np.float32), np.zeros((len(masks), 2), np.float32)], axis=1)
    return jnp.asarray(points), jnp.tile(jnp.asarray([[POSITIVE, ABSENT]]), (len(masks), 1))


def test_an_attack_that_does_nothing_leaves_the_clean_branch(system, batch_of):
    batch = batch_of(2)
    truth = (batch.masks & batch.valid[:, :, None, None]).reshape(-1, *batch.masks.shape[2:])
    points, labels = first_prompts(truth)
    result, features = branch(system, batch, Attack(), points, labels)
    np.testing.assert_array_equal(result.truth, truth)
    np.testing.assert_array_equal(result.points, points)
    for ours, clean in zip(jax.tree.leaves(result.features), jax.tree.leaves(features), strict=True):
        np.testing.assert_array_equal(ours, clean)


def test_prompts_and_truth_move_with_the_objects_and_the_maps_are_those_of_the_attacked_images(system, batch_of):
    batch = batch_of(2)
    truth = (batch.masks & batch.valid[:, :, None, None]).reshape(-1, *batch.masks.shape[2:])
    points, labels = first_prompts(truth)
    result, _ = branch(system, batch, Shift(), points, labels)
    np.testing.assert_array_equal(result.truth, np.roll(truth, SHIFT, axis=2))
    inside = truth.any(axis=(1, 2)) & (np.asarray(points)[:, 0, 0] + SHIFT < truth.shape[2])
    assert inside.any()
    np.testing.assert_array_equal(result.points[inside, 0], np.asarray(points)[inside, 0] + np.float32([SHIFT, 0]))
    model = system.model
    moved = np.roll(np.asarray(normalize_image(jnp.asarray(batch.image))), SHIFT, axis=2)
    expected = model.project(jax.tree.map(lambda x: 2 * x, model.backbone(jnp.asarray(moved))))
    np.testing.assert_allclose(result.features.embedding, expected.embedding, rtol=1e-5, atol=1e-5)
