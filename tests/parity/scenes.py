"""Inputs for the comparisons: images and one prompt of every kind, as numpy arrays; no torch in here."""

import numpy as np

from ruac_jax.model import Prompts
from ruac_jax.sam2.prompt_encoder import ABSENT


def images(size: int, count: int = 1, seed: int = 0) -> np.ndarray:
    """Smooth colour gradients with noise, about what a normalised image holds."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    basis = np.stack([x, y, x * y, np.sin(5 * x), np.cos(7 * y)], axis=-1)
    smooth = basis @ rng.standard_normal((count, 1, 5, 3))
    return (smooth + 0.3 * rng.standard_normal((count, size, size, 3))).astype(np.float32)


# Labels of every kind of prompt; -2 fills up.
KINDS = {
    "one click": (1,),
    "clicks of both signs": (1, 0, 0, 1),
    "padding between clicks": (1, -1, 0),
    "box": (2, 3),
    "box and click": (2, 3, 0),
    "nothing": (),
    "mask only": (),
    "click and mask": (1,),
    "box, clicks and mask": (2, 3, 1, 0),
}


def prompts(size: int, seed: int = 0) -> Prompts:
    """One row per entry of `KINDS`, five slots each, absent ones last."""
    rng = np.random.default_rng(seed)
    n, slots, low = len(KINDS), 5, size // 4
    labels = np.full((n, slots), ABSENT, np.int32)
    for row, kind in enumerate(KINDS.values()):
        labels[row, : len(kind)] = kind
    points = rng.uniform(0, size - 1, (n, slots, 2)).astype(np.float32)
    points[0] = np.round(points[0])
    mask = (8 * rng.standard_normal((n, low, low))).astype(np.float32)
    return Prompts(points, labels, mask, np.array(["mask" in name for name in KINDS]))
