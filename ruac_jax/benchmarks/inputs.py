"""Inputs that both sides of a benchmark share."""

import numpy as np


def squares(batch: int, objects: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images [b, s, s, 3] uint8 and one square object a slot [b, k, s, s] bool, the same for both sides."""
    rng = np.random.default_rng(0)
    masks = np.zeros((batch, objects, size, size), bool)
    for index in np.ndindex(batch, objects):
        side = size // 4
        top, left = rng.integers(0, size - side, 2)
        masks[index][top : top + side, left : left + side] = True
    return rng.integers(0, 256, (batch, size, size, 3), np.uint8), masks
