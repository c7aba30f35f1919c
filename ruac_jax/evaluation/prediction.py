"""What a method under evaluation looks like to the protocol."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, UInt8

OBJECT_BUCKETS = (1, 2, 4, 8, 16, 32, 64)

Maps = Float[Array | np.ndarray, "n h w"]


@runtime_checkable
class Prediction(Protocol):
    """What a network says about `n` objects, on a grid of its own (SAM2: a quarter of its image size)."""

    @property
    def logits(self) -> Maps:
        """The mask is where they are above 0."""
        ...

    @property
    def probability(self) -> Maps:
        """Of the object at each pixel, in [0, 1]; the one that the uncertainty belongs to."""
        ...

    @property
    def uncertainty(self) -> Maps:
        """In [0, 1]."""
        ...


@runtime_checkable
class Predictor(Protocol):
    """A method under evaluation. Both methods should be jitted: they see few shapes (`OBJECT_BUCKETS`)."""

    @property
    def image_size(self) -> int:
        """Side S of the square image that it takes, px."""
        ...

    def encode(self, image: UInt8[np.ndarray, "s s 3"]) -> Any:
        """Features of an RGB image, computed once for all its objects."""
        ...

    def decode(
        self,
        features: Any,
        points: Float[np.ndarray, "n p 2"],
        labels: Int[np.ndarray, "n p"],
        previous: Maps | None = None,
    ) -> Prediction:
        """Segments `n` objects, n one of `OBJECT_BUCKETS`.

        Args:
          features: from `encode`.
          points: float32 (x, y) in pixels of the square image, integer coordinates being pixel centres as in SAM2.
          labels: int32, 1 for positive, 0 for negative clicks, `prompt_encoder.ABSENT` for a place without a click.
          previous: logits of the last answer, which the clicks correct; None at the first.
        """
        ...
