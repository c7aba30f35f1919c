"""Where masks fail: the objects of a dataset by size, shape, wholeness and outcome (appendix G).

The appendix names small objects (below 1 % of the image) and heavy occlusion as failure modes. No dataset says how much
of an object is hidden, so two signs of it stand in: a truth in several pieces, and one that the image's border cuts.
Its third mode, extreme shift, is a matter of whole datasets: compare their tables.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from ruac_jax.evaluation.metrics.region import RegionState
from ruac_jax.evaluation.tables import markdown_table, show

FAILURE = 0.5  # a mask with less J has failed
THIN = 0.3  # a straight bar is thin from about eight times its width
_UNIT = 30  # mean u is summed in 2^-30, so that no order of merging changes the last bit


class Traits(NamedTuple):
    """What an object is sorted by.

    Attributes:
      area_share: pixels of the object over pixels of the image.
      compactness: 4 pi area / perimeter^2: 1 for a disk, towards 0 for thin and ragged shapes.
      pieces: components of the truth, by 8 neighbours.
      at_border: a pixel of the object lies on the image's edge.
      j: region similarity of the prediction.
    """

    area_share: float
    compactness: float
    pieces: int
    at_border: bool
    j: float


STRATA: Mapping[str, Callable[[Traits], bool]] = {
    "all objects": lambda traits: True,
    "area < 1 %": lambda traits: traits.area_share < 0.01,
    "area 1-10 %": lambda traits: 0.01 <= traits.area_share <= 0.1,
    "area > 10 %": lambda traits: traits.area_share > 0.1,
    "thin or ragged": lambda traits: traits.compactness < THIN,
    "compact": lambda traits: traits.compactness >= THIN,
    "in one piece": lambda traits: traits.pieces == 1,
    "in several pieces": lambda traits: traits.pieces > 1,
    "cut by the border": lambda traits: traits.at_border,
    "inside the image": lambda traits: not traits.at_border,
    "J < 0.5": lambda traits: traits.j < FAILURE,
    "J >= 0.5": lambda traits: traits.j >= FAILURE,
}


def describe(truth: Bool[np.ndarray, "h w"], j: float) -> Traits:
    """Traits of one object.

    Args:
      truth: a mask with at least one pixel.
      j: region similarity of its prediction.

    Raises:
      ValueError: the mask is empty.
    """
    rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
    if not len(rows):
        raise ValueError("an object without a pixel belongs to no stratum")
    crop = truth[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    area = np.count_nonzero(crop)
    return Traits(
        area_share=area / truth.size,
        compactness=4 * math.pi * area / perimeter(crop) ** 2,
        pieces=ndimage.label(crop, np.ones((3, 3), bool))[1],
        at_border=bool(truth[[0, -1]].any() or truth[:, [0, -1]].any()),
        j=j,
    )


def perimeter(mask: Bool[np.ndarray, "h w"]) -> float:
    """Length of the outline in pixels by Crofton's formula; what lies beyond the array counts as outside.

    pi / 2 times the mean, over lines in four directions, of crossings times the distance of neighbouring lines. Unlike
    a count of pixel edges it hardly depends on how the object is turned: disks are right, upright squares 5 % short.
    """
    padded = np.pad(mask, 1)
    straight = np.count_nonzero(padded[1:] ^ padded[:-1]) + np.count_nonzero(padded[:, 1:] ^ padded[:, :-1])
    falling, rising = padded[1:, 1:] ^ padded[:-1, :-1], padded[1:, :-1] ^ padded[:-1, 1:]
    diagonal = np.count_nonzero(falling) + np.count_nonzero(rising)
    return math.pi / 8 * (straight + diagonal / math.sqrt(2))


@dataclasses.dataclass(frozen=True)
class StratumState:
    """Sums over the objects of one stratum; mergeable, in any order to the same bit."""

    region: RegionState = dataclasses.field(default_factory=RegionState)
    uncertainty: int = 0  # units of 2^-30
    failures: int = 0

    @classmethod
    def from_scores(
        cls, j: Float[np.ndarray, "n"], f: Float[np.ndarray, "n"], uncertainty: Float[np.ndarray, "n"]
    ) -> "StratumState":
        """State of `n` objects from their J, F and mean u, all in [0, 1]."""
        units = np.rint(np.ldexp(uncertainty, _UNIT)).astype(np.int64)
        return cls(RegionState.from_scores(j, f), int(units.sum()), int(np.count_nonzero(j < FAILURE)))

    def merge(self, other: "StratumState") -> "StratumState":
        """State of both sets of objects together."""
        return StratumState(
            self.region.merge(other.region), self.uncertainty + other.uncertainty, self.failures + other.failures
        )

    def compute(self) -> dict[str, int | float | None]:
        """`objects`, and in [0, 1] `j`, `f`, `j_and_f`, mean `uncertainty`, `failure_rate` (J < 0.5); None without."""
        objects = self.region.objects
        means = {
            "uncertainty": self.uncertainty / (objects << _UNIT) if objects else None,
            "failure_rate": self.failures / objects if objects else None,
        }
        return {"objects": objects} | self.region.compute() | means


@dataclasses.dataclass(frozen=True)
class StrataState:
    """The objects of a dataset by stratum (`STRATA`; an object belongs to several); mergeable."""

    strata: Mapping[str, StratumState] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(STRATA, StratumState())
    )

    @classmethod
    def from_objects(
        cls,
        truth: Bool[np.ndarray, "n h w"],
        j: Float[np.ndarray, "n"],
        f: Float[np.ndarray, "n"],
        uncertainty: Float[np.ndarray, "n"],
    ) -> "StrataState":
        """Sorts `n` objects of one image.

        Args:
          truth: true masks, none of them empty.
          j: region similarity of their predictions.
          f: boundary accuracy.
          uncertainty: mean u over each predicted mask (see `pixels.mean_uncertainty`).
        """
        traits = [describe(mask, score) for mask, score in zip(truth, j.tolist(), strict=True)]
        members = {name: np.array([test(each) for each in traits], bool) for name, test in STRATA.items()}
        return cls({name: StratumState.from_scores(j[m], f[m], uncertainty[m]) for name, m in members.items()})

    def merge(self, other: "StrataState") -> "StrataState":
        """State of both sets of objects together."""
        return StrataState({name: state.merge(other.strata[name]) for name, state in self.strata.items()})

    def compute(self) -> dict[str, dict[str, int | float | None]]:
        """Figures of each stratum, see `StratumState.compute`."""
        return {name: state.compute() for name, state in self.strata.items()}


def format_strata(strata: Mapping[str, Mapping[str, int | float | None]]) -> str:
    """The table of what `StrataState.compute` gives: J&F, J, F and failures in percent, mean u as a fraction."""
    header = ["objects that are", "objects", "J&F", "J", "F", "failed (J < 0.5)", "mean u"]
    rows = [
        [
            name,
            str(figures["objects"]),
            *(show(figures[metric], 2, percent=True) for metric in ("j_and_f", "j", "f", "failure_rate")),
            show(figures["uncertainty"]),
        ]
        for name, figures in strata.items()
    ]
    return markdown_table(header, rows)
