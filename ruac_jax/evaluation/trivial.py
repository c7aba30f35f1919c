"""A predictor that looks at the clicks only: what a network has to beat."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from ruac_jax.data.masks import mask_areas
from ruac_jax.data.record import Source

_STRIDE = 4


class TrivialPrediction(NamedTuple):
    """Maps at a quarter of the image size (see `protocol.Prediction`)."""

    logits: Float[np.ndarray, "n h w"]
    probability: Float[np.ndarray, "n h w"]
    uncertainty: Float[np.ndarray, "n h w"]


class DiskPredictor:
    """Answers every prompt with a disk around its first click, of the area that objects have on average.

    The logit falls by one per pixel of distance from the rim; probability and uncertainty (its entropy) follow.
    """

    def __init__(self, area_share: float, image_size: int = 128):
        """Takes the area as a share of the image (see `mean_area_share`) and the side of the square image, px."""
        self.image_size = image_size
        self._radius = image_size * np.sqrt(area_share / np.pi)

    def encode(self, image: UInt8[np.ndarray, "s s 3"]) -> None:
        """Ignores the image."""

    def decode(
        self, features: None, points: Float[np.ndarray, "n p 2"], labels: Int[np.ndarray, "n p"]
    ) -> TrivialPrediction:
        """Disks around the first points."""
        grid = (np.arange(self.image_size // _STRIDE) + 0.5) * _STRIDE - 0.5
        x, y = points[:, 0, 0, None, None], points[:, 0, 1, None, None]
        logits = self._radius - np.hypot(grid[None, None] - x, grid[None, :, None] - y)
        p = 1 / (1 + np.exp(-logits.clip(-9, 9)))
        entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
        return TrivialPrediction(*(a.astype(np.float32) for a in (logits, p, entropy)))


def mean_area_share(source: Source, max_images: int = 100) -> float:
    """Mean object area over the first images of a source, as a share of the image.

    Raises:
      ValueError: those images hold no object.
    """
    masks = (source[index]["masks"] for index in range(min(max_images, len(source))))
    shares = [area / math.prod(stack.shape[1:]) for stack in masks for area in mask_areas(stack).tolist() if area]
    if not shares:
        raise ValueError("no object to take the area from")
    return float(np.mean(shares))
