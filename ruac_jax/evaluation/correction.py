"""UncCorr: a predicted mask loses the fragments that its own uncertainty distrusts (section 4.2, appendix N)."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from ruac_jax.evaluation.metrics.region import RegionState, score_objects

_PERCENTILE = 95  # of the uncertainty over the predicted mask
_LEAST_THRESHOLD = 0.3  # keeps the filter off confident predictions
_EIGHT_NEIGHBORS = np.ones((3, 3), bool)


def correct_mask(mask: Bool[np.ndarray, "h w"], uncertainty: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Removes uncertain components (8 neighbours) of a mask.

    A component goes if its mean u exceeds the threshold max(95th percentile of u over the whole mask, 0.3); the
    percentile is interpolated linearly. The component with most pixels always stays (of equals the first in row-major
    order), so no mask becomes empty.

    Args:
      mask: prediction.
      uncertainty: u in [0, 1] at the same pixels.

    Returns:
      The mask with nothing added.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return mask.copy()
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    labels, count = ndimage.label(mask[box], _EIGHT_NEIGHBORS)
    if count == 1:
        return mask.copy()
    component, u = labels[mask[box]], uncertainty[box][mask[box]]
    threshold = max(float(np.percentile(u, _PERCENTILE)), _LEAST_THRESHOLD)
    pixels, total = np.bincount(component), np.bincount(component, u)
    # Compared as sums, which are exact where float32 values are equal: no fragment goes by rounding alone.
    kept = total <= threshold * pixels
    largest = pixels == pixels.max()
    kept[component[np.argmax(largest[component])]] = True
    kept[0] = False
    result = np.zeros_like(mask)
    result[box] = kept[labels]
    return result


@dataclasses.dataclass(frozen=True)
class CorrectionState:
    """What the correction does to the objects of a dataset; mergeable, in any order to the same bit.

    Attributes:
      region: J and F after the correction.
      changed: objects that lost a component.
      improved: objects whose J + F rose.
      worsened: objects whose J + F fell.
    """

    region: RegionState = dataclasses.field(default_factory=RegionState)
    changed: int = 0
    improved: int = 0
    worsened: int = 0

    @classmethod
    def from_objects(
        cls,
        prediction: Bool[np.ndarray, "n h w"],
        uncertainty: Float[np.ndarray, "n h w"],
        truth: Bool[np.ndarray, "n h w"],
        j: Float[np.ndarray, "n"],
        f: Float[np.ndarray, "n"],
    ) -> "CorrectionState":
        """Corrects the masks of `n` objects of one image, and scores those anew that change.

        Args:
          prediction: masks before the correction.
          uncertainty: u in [0, 1] of each object's pixels.
          truth: true masks.
          j: region similarity of `prediction`, as `region.score_objects` gives it.
          f: its boundary accuracy.
        """
        corrected = [correct_mask(mask, u) for mask, u in zip(prediction, uncertainty, strict=True)]
        changed = [i for i, mask in enumerate(corrected) if np.count_nonzero(mask) < np.count_nonzero(prediction[i])]
        after_j, after_f = j.copy(), f.copy()
        for i in changed:
            after_j[i : i + 1], after_f[i : i + 1] = score_objects(corrected[i][None], truth[i : i + 1])
        gain = (after_j + after_f) - (j + f)
        return cls(
            RegionState.from_scores(after_j, after_f), len(changed), int((gain > 0).sum()), int((gain < 0).sum())
        )

    def merge(self, other: "CorrectionState") -> "CorrectionState":
        """State of both sets of objects together."""
        return CorrectionState(
            self.region.merge(other.region),
            self.changed + other.changed,
            self.improved + other.improved,
            self.worsened + other.worsened,
        )

    def compute(self) -> dict[str, int | float | None]:
        """`corrected_j`, `corrected_f`, `corrected_j_and_f`, in [0, 1], None without objects; the three counts.

        The counts are `corrected_changed`, `corrected_improved` and `corrected_worsened`.
        """
        scores = {f"corrected_{name}": value for name, value in self.region.compute().items()}
        counts = {"changed": self.changed, "improved": self.improved, "worsened": self.worsened}
        return scores | {f"corrected_{name}": value for name, value in counts.items()}
