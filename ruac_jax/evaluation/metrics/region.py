"""Region similarity J and boundary accuracy F over the objects of a dataset."""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float

from ruac_jax.evaluation.metrics.boundary import boundary_f

_SCALE = 53  # scores are summed as integers of 2^-53, so that no order of merging changes the last bit


def region_similarity(
    prediction: Bool[np.ndarray, "n h w"], truth: Bool[np.ndarray, "n h w"]
) -> Float[np.ndarray, "n"]:
    """Intersection over union of each object, 1 where both masks are empty (float64; DAVIS's J)."""
    intersection = np.count_nonzero(prediction & truth, axis=(1, 2))
    union = np.count_nonzero(prediction | truth, axis=(1, 2))
    return np.where(union, intersection / np.maximum(union, 1), 1.0)


@dataclasses.dataclass(frozen=True)
class RegionState:
    """Sums of J and F over objects; mergeable, in any order to the same bit."""

    objects: int = 0
    j: int = 0  # units of 2^-53
    f: int = 0

    @classmethod
    def from_scores(cls, j: Float[np.ndarray, "n"], f: Float[np.ndarray, "n"]) -> "RegionState":
        """State of `n` objects from their scores in [0, 1]."""
        return cls(len(j), _total(j), _total(f))

    def merge(self, other: "RegionState") -> "RegionState":
        """State of both sets of objects together."""
        return type(self)(self.objects + other.objects, self.j + other.j, self.f + other.f)

    def compute(self) -> dict[str, float | None]:
        """`j`, `f` (means over objects, in [0, 1]) and `j_and_f` (their mean); None without objects."""
        if not self.objects:
            return dict.fromkeys(("j", "f", "j_and_f"))
        unit = self.objects << _SCALE  # int / int rounds once
        return {"j": self.j / unit, "f": self.f / unit, "j_and_f": (self.j + self.f) / (2 * unit)}


def score_objects(
    prediction: Bool[np.ndarray, "n h w"], truth: Bool[np.ndarray, "n h w"]
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """J and F of each object (float64, in [0, 1])."""
    f = np.array([boundary_f(p, t) for p, t in zip(prediction, truth, strict=True)], np.float64)
    return region_similarity(prediction, truth), f


def _total(scores: Float[np.ndarray, "n"]) -> int:
    return sum(round(math.ldexp(score, _SCALE)) for score in scores.tolist())
