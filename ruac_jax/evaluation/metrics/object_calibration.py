"""The reference's calibration error of objects, kept apart from the calibration error of pixels (`PixelState`).

Its confidence is no probability: it is the mean uncertainty of an object, turned round and stretched so that the
surest object of the dataset has confidence 1 and the least sure 0. One outlier moves everybody else, doubling every
uncertainty moves nobody, and a dataset on which a network errs little but evenly looks badly calibrated. The figure is
for comparison with published tables only.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from ruac_jax.evaluation.metrics.pixels import CALIBRATION_BINS


@dataclasses.dataclass(frozen=True)
class ObjectCalibrationState:
    """One row per object: mean u and mean soft accuracy over its predicted mask (the frame where that is empty).

    It grows with the data, 16 bytes an object: confidences are known only when the last object is. The order of rows
    does not matter.
    """

    rows: Float[np.ndarray, "n 2"] = dataclasses.field(default_factory=lambda: np.zeros((0, 2)))

    @classmethod
    def from_objects(
        cls, uncertainty: Float[np.ndarray, "n"], soft_accuracy: Float[np.ndarray, "n"]
    ) -> "ObjectCalibrationState":
        """State of `n` objects (see `pixels.mean_uncertainty` and `pixels.mean_soft_accuracy`)."""
        return cls(np.stack([uncertainty, soft_accuracy], axis=1))

    def merge(self, other: "ObjectCalibrationState") -> "ObjectCalibrationState":
        """State of both sets of objects together."""
        return ObjectCalibrationState(np.concatenate([self.rows, other.rows]))

    def compute(self) -> dict[str, float | None]:
        """`ece_object_reference`, a fraction; None if all objects have the same mean u, or there is none.

        Sum over 15 equal bins of confidence, the last closed, of share of objects * |mean soft accuracy - mean
        confidence|. Soft accuracy of a pixel: 1 - |s(l) - y|.
        """
        uncertainty, accuracy = self.rows.T
        spread = float(np.ptp(uncertainty)) if len(uncertainty) else 0.0
        if not spread:
            return {"ece_object_reference": None}
        confidence = 1 - (uncertainty - uncertainty.min()) / spread
        index = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        # fsum is exact, so the order of objects changes no bit; |sum of gaps| is n_bin * |mean gap|.
        gaps = [abs(math.fsum((accuracy - confidence)[index == k])) for k in range(CALIBRATION_BINS)]
        return {"ece_object_reference": math.fsum(gaps) / len(confidence)}
