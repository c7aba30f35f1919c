"""The graph between the objects of an image and their background (paper B.4, eq. S14-S18; method, section 4.2).

Nodes are slots: `k` objects, and the background last. Everything is dense, `k` + 1 being small, and constant: nothing
here is learned.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

COSINE_THRESHOLD = 0.5
BACKGROUND_WEIGHT = 0.5


def pool(features: Float[Array, "b h w d"], masks: Bool[Array, "b s h w"]) -> Float[Array, "b s d"]:
    """Average of the features under each mask; zero for an empty one."""
    weights = masks.astype(features.dtype)
    total = jnp.einsum("bshw,bhwd->bsd", weights, features, precision="highest")
    return total / jnp.maximum(weights.sum(axis=(2, 3)), 1.0)[..., None]


def pairwise_iou(masks: Bool[Array, "b k h w"]) -> Float[Array, "b k k"]:
    """Intersection over union of every two masks; 0 where both are empty."""
    flat = masks.reshape(*masks.shape[:2], -1).astype(jnp.float32)
    intersection = jnp.einsum("bip,bjp->bij", flat, flat, precision="highest")
    area = flat.sum(axis=-1)
    return intersection / jnp.maximum(area[:, :, None] + area[:, None, :] - intersection, 1.0)


def boundary(masks: Bool[Array, "*b h w"]) -> Bool[Array, "*b h w"]:
    """Cells of a mask with one of their four neighbours outside it; beyond the border counts as outside."""
    edge = ((0, 0),) * (masks.ndim - 2)
    padded = jnp.pad(masks, (*edge, (1, 1), (1, 1)))
    vertical = padded[..., :-2, 1:-1] & padded[..., 2:, 1:-1]
    horizontal = padded[..., 1:-1, :-2] & padded[..., 1:-1, 2:]
    return masks & ~(vertical & horizontal)


def boundary_distance(masks: Bool[Array, "b k h w"]) -> Float[Array, "b k k"]:
    """Least Euclidean distance between the boundary cells of every two masks, in cells; infinite if one is empty.

    Exact: a squared distance transform of each boundary, by columns and then by rows, looked up at the other's
    boundary. For small grids: memory grows with (h + w) h w.
    """
    edges = boundary(masks)
    to_cell = _squared_distances(jnp.where(edges, 0.0, jnp.inf))
    at_other = jnp.where(edges[:, None], to_cell[:, :, None], jnp.inf)
    return jnp.sqrt(at_other.min(axis=(3, 4)))


def _squared_distances(x: Float[Array, "b k h w"]) -> Float[Array, "b k h w"]:
    for axis in (2, 3):
        steps = jnp.arange(x.shape[axis], dtype=x.dtype)
        table = jnp.square(steps[:, None] - steps[None, :])
        lines = jnp.moveaxis(x, axis, -1)
        shortest = (lines[..., None, :] + table[None, None, None]).min(axis=-1)
        x = jnp.moveaxis(shortest, -1, axis)
    return x


def cosine(nodes: Float[Array, "b k d"]) -> Float[Array, "b k k"]:
    """Cosine of the angle between every two feature vectors."""
    unit = nodes / jnp.maximum(jnp.linalg.norm(nodes, axis=-1, keepdims=True), 1e-12)
    return jnp.einsum("bid,bjd->bij", unit, unit, precision="highest")


def adjacency(
    iou: Float[Array, "b k k"],
    proximity: Float[Array, "b k k"],
    similarity: Float[Array, "b k k"],
    present: Bool[Array, "b k+1"],
) -> Float[Array, "b k+1 k+1"]:
    """Row-normalised A + I.

    Between two present objects A is the sum of IoU, proximity and, from 0.5 on, cosine similarity; between a present
    object and the background 0.5. Empty slots are linked to themselves alone.
    """
    k = iou.shape[1]
    between = iou + proximity + jnp.where(similarity >= COSINE_THRESHOLD, similarity, 0.0)
    edges = jnp.pad(between, ((0, 0), (0, 1), (0, 1)), constant_values=BACKGROUND_WEIGHT)
    itself = jnp.eye(k + 1, dtype=bool)[None]
    linked = present[:, :, None] & present[:, None, :] & ~itself
    weights = jnp.where(linked, edges, 0.0) + itself.astype(edges.dtype)
    return weights / weights.sum(axis=-1, keepdims=True)


def scene_graph(
    nodes: Float[Array, "b s d"], masks: Bool[Array, "b k H W"], cells: Bool[Array, "b s h w"]
) -> Float[Array, "b s s"]:
    """Adjacency of an image's slots.

    Args:
      nodes: pooled features of the `s` = `k` + 1 slots.
      masks: the objects at image resolution, empty where there is none; IoU is taken here.
      cells: the slots on the feature grid; boundary distances are taken here, relative to the grid's diagonal.
    """
    nodes = jax.lax.stop_gradient(nodes[:, :-1])
    diagonal = math.hypot(*cells.shape[2:])
    proximity = 1 - boundary_distance(cells[:, :-1]) / diagonal
    return adjacency(pairwise_iou(masks), proximity, cosine(nodes), cells.any(axis=(2, 3)))
