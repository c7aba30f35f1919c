"""Boundary accuracy F, exactly as the DAVIS benchmark defines it (Perazzi et al., 2016), but not its way of computing.

The benchmark dilates whole masks by a disk. A pixel lies in the dilated set exactly when a set pixel is within the
radius, so nearest-neighbour distances between boundary pixels give the same counts, and only the boundary is visited.
"""

import math

import numpy as np
from jaxtyping import Bool, Int
from scipy.spatial import cKDTree

_TOLERANCE = 0.008  # of the image diagonal


def boundary_pixels(mask: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "m 2"]:
    """Pixels (row, column) that differ from their right, lower or lower-right neighbour, in row-major order.

    A neighbour beyond the image does not count: a mask that fills the image has no boundary.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros((0, 2), np.int64)
    # One more row and column on each side, as far as the image goes: nothing beyond them is a boundary pixel.
    top, left = max(rows[0] - 1, 0), max(columns[0] - 1, 0)
    crop = mask[top : rows[-1] + 2, left : columns[-1] + 2]
    edge = np.zeros_like(crop)
    edge[:, :-1] |= crop[:, :-1] ^ crop[:, 1:]
    edge[:-1] |= crop[:-1] ^ crop[1:]
    edge[:-1, :-1] |= crop[:-1, :-1] ^ crop[1:, 1:]
    return np.argwhere(edge) + np.array([top, left])


def boundary_f(prediction: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> float:
    """Harmonic mean of boundary precision and recall, in [0, 1].

    A boundary pixel is right if the other boundary has a pixel within ceil(0.008 * image diagonal) px, centre to
    centre. No predicted boundary: precision 1, recall 0; no true boundary: precision 0, recall 1; neither: both 1.
    F is 0 where precision + recall is 0.
    """
    radius = math.ceil(_TOLERANCE * math.hypot(*truth.shape))
    predicted, true = boundary_pixels(prediction), boundary_pixels(truth)
    if not len(predicted) or not len(true):
        return float(len(predicted) == len(true))
    precision = np.mean(_has_neighbor(predicted, true, radius))
    recall = np.mean(_has_neighbor(true, predicted, radius))
    total = precision + recall
    return float(2 * precision * recall / total) if total else 0.0


def _has_neighbor(points: Int[np.ndarray, "m 2"], others: Int[np.ndarray, "k 2"], radius: int) -> Bool[np.ndarray, "m"]:
    # Squared distances are integers and their float64 roots exact enough to tell r^2 from r^2 + 1.
    nearest, _ = cKDTree(others).query(points, distance_upper_bound=radius + 0.5)
    return nearest <= radius
