import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from ruac_jax.functional.graph import (
    adjacency,
    boundary,
    boundary_distance,
    cosine,
    pairwise_iou,
    pool,
    scene_graph,
)


def random_masks(seed, shape=(2, 4, 13, 17)):
    """Rectangles, some of them nested or overlapping; the last object of each image is empty."""
    rng = np.random.default_rng(seed)
    masks = np.zeros(shape, bool)
    for b, k in itertools.product(range(shape[0]), range(shape[1] - 1)):
        y, x = (np.sort(rng.integers(0, n + 1, 2)) for n in shape[2:])
        masks[b, k, y[0] : y[1] + 1, x[0] : x[1] + 1] = True
    return masks


def boundary_cells(mask):
    """By definition, cell by cell."""
    h, w = mask.shape

    def outside(y, x):
        return not (0 <= y < h and 0 <= x < w and mask[y, x])

    around = ((0, 1), (0, -1), (1, 0), (-1, 0))
    return [(y, x) for y, x in np.argwhere(mask) if any(outside(y + v, x + u) for v, u in around)]


@pytest.mark.parametrize("seed", range(4))
def test_boundary_and_distance_equal_brute_force(seed):
    masks = random_masks(seed)
    edges, got = np.asarray(boundary(jnp.asarray(masks))), np.asarray(boundary_distance(jnp.asarray(masks)))
    for b, i, j in np.ndindex(2, 4, 4):
        one, other = boundary_cells(masks[b, i]), boundary_cells(masks[b, j])
        assert {tuple(c) for c in np.argwhere(edges[b, i])} == set(one)
        want = min((np.hypot(y - v, x - u) for (y, x), (v, u) in itertools.product(one, other)), default=np.inf)
        np.testing.assert_allclose(got[b, i, j], want, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_iou_equals_its_definition(seed):
    masks = random_masks(seed)
    got = pairwise_iou(jnp.asarray(masks))
    for b, i, j in np.ndindex(2, 4, 4):
        one, other = masks[b, i], masks[b, j]
        want = (one & other).sum() / max((one | other).sum(), 1)
        np.testing.assert_allclose(got[b, i, j], want, rtol=1e-6)


def test_pool_averages_and_gives_zero_for_nothing(rng):
    features, masks = rng.normal(size=(2, 13, 17, 5)), random_masks(0)
    got = pool(jnp.asarray(features, jnp.float32), jnp.asarray(masks))
    for b, k in np.ndindex(2, 3):
        np.testing.assert_allclose(got[b, k], features[b][masks[b, k]].mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(got[:, 3], np.zeros((2, 5)))


def test_cosine_by_numpy(rng):
    nodes = rng.normal(size=(1, 3, 6))
    unit = nodes[0] / np.linalg.norm(nodes[0], axis=1, keepdims=True)
    np.testing.assert_allclose(cosine(jnp.asarray(nodes, jnp.float32))[0], unit @ unit.T, atol=1e-6)
    np.testing.assert_array_equal(cosine(jnp.zeros((1, 2, 3))), np.zeros((1, 2, 2)))


def test_adjacency_worked_out_by_hand():
    iou = jnp.asarray([[[1.0, 0.25, 0.0], [0.25, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    proximity = jnp.asarray([[[1.0, 0.75, -jnp.inf], [0.75, 1.0, -jnp.inf], [-jnp.inf] * 3]])
    similarity = jnp.asarray([[[1.0, 0.5, 0.9], [0.5, 1.0, 0.9], [0.9, 0.9, 1.0]]])
    present = jnp.asarray([[True, True, False, True]])
    got = adjacency(iou, proximity, similarity, present)[0]
    edge = 0.25 + 0.75 + 0.5
    want = np.array([[1, edge, 0, 0.5], [edge, 1, 0, 0.5], [0, 0, 1, 0], [0.5, 0.5, 0, 1]])
    np.testing.assert_allclose(got, want / want.sum(axis=1, keepdims=True), rtol=1e-6)
    below = adjacency(iou, proximity, similarity - 0.01, present)[0]  # 0.49 counts for nothing
    np.testing.assert_allclose(below[0, 1] / below[0, 0], 1.0, rtol=1e-6)
    covered = adjacency(iou, proximity, similarity, present & jnp.asarray([[True, True, True, False]]))[0]
    np.testing.assert_array_equal(covered[3], [0, 0, 0, 1])


@pytest.mark.parametrize("seed", range(3))
def test_scene_graph_equals_a_loop_over_pairs(seed):
    rng = np.random.default_rng(seed)
    masks = random_masks(seed, (1, 4, 16, 24))
    slots = np.concatenate([masks, ~masks.any(axis=1, keepdims=True)], axis=1)
    cells = slots.reshape(1, 5, 8, 2, 12, 2).any(axis=(3, 5))
    nodes = rng.normal(size=(1, 5, 3)) + 1.0
    want = np.eye(5)
    for i, j in itertools.permutations(range(5), 2):
        if not (slots[0, i].any() and slots[0, j].any()):
            continue
        if 4 in (i, j):
            want[i, j] = 0.5
            continue
        pairs = itertools.product(boundary_cells(cells[0, i]), boundary_cells(cells[0, j]))
        least = min(np.hypot(y - v, x - u) for (y, x), (v, u) in pairs)
        angle = nodes[0, i] @ nodes[0, j] / np.linalg.norm(nodes[0, i]) / np.linalg.norm(nodes[0, j])
        iou = (masks[0, i] & masks[0, j]).sum() / (masks[0, i] | masks[0, j]).sum()
        want[i, j] = iou + 1 - least / np.hypot(8, 12) + (angle if angle >= 0.5 else 0)
    got = scene_graph(jnp.asarray(nodes, jnp.float32), jnp.asarray(masks), jnp.asarray(cells))
    np.testing.assert_allclose(got[0], want / want.sum(axis=1, keepdims=True), atol=2e-6)
