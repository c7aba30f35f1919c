"""All metrics of a dataset in one mergeable state."""

import dataclasses
import functools
import hashlib
import operator
from typing import Any

import numpy as np
from jaxtyping import Int

from ruac_jax.evaluation.correction import CorrectionState
from ruac_jax.evaluation.metrics.object_calibration import ObjectCalibrationState
from ruac_jax.evaluation.metrics.patches import PatchState
from ruac_jax.evaluation.metrics.pixels import PixelState
from ruac_jax.evaluation.metrics.ranking import RankingState
from ruac_jax.evaluation.metrics.region import RegionState
from ruac_jax.evaluation.metrics.temperature import TemperatureState
from ruac_jax.evaluation.strata import StrataState

_DIGEST_BITS = 256
_PARTS = ("region", "ranking", "pixels", "patches", "calibration", "correction", "temperature", "strata")


@dataclasses.dataclass(frozen=True)
class DatasetState:
    """Metrics over some images of a dataset. Merging is exact: no order and no grouping changes a bit of the figures.

    Attributes:
      images: how many.
      skipped: objects without a pixel, which cannot be clicked.
      left_out: objects beyond the cap on objects of an image.
      prompts: sum of the images' `digest_prompts`.
    """

    images: int = 0
    skipped: int = 0
    left_out: int = 0
    prompts: int = 0
    region: RegionState = dataclasses.field(default_factory=RegionState)
    pixels: PixelState = dataclasses.field(default_factory=PixelState.empty)
    ranking: RankingState = dataclasses.field(default_factory=RankingState)
    temperature: TemperatureState = dataclasses.field(default_factory=TemperatureState.empty)
    patches: PatchState = dataclasses.field(default_factory=PatchState.empty)
    calibration: ObjectCalibrationState = dataclasses.field(default_factory=ObjectCalibrationState)
    correction: CorrectionState = dataclasses.field(default_factory=CorrectionState)
    strata: StrataState = dataclasses.field(default_factory=StrataState)

    def merge(self, other: "DatasetState") -> "DatasetState":
        """State of both sets of images together."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in ("images", "skipped", "left_out")}
        prompts = (self.prompts + other.prompts) % (1 << _DIGEST_BITS)
        parts = {name: getattr(self, name).merge(getattr(other, name)) for name in _PARTS}
        return DatasetState(**counts, prompts=prompts, **parts)

    def compute(self, scale: float | None = None) -> dict[str, int | float | None]:
        """Every figure of the dataset, as fractions in [0, 1] (NLL in nats); None where one does not exist.

        Args:
          scale: logit scale of the matched PAvPU, fitted on the source domain (`TemperatureState.fit_scale`).

        Returns:
          `images`, `objects`, `skipped`, `left_out`, and what the parts compute; docs/metrics.md defines each.
        """
        counts = {
            "images": self.images,
            "objects": self.region.objects,
            "skipped": self.skipped,
            "left_out": self.left_out,
        }
        figures = [getattr(self, name).compute() for name in _PARTS if name not in ("temperature", "strata")]
        return functools.reduce(operator.or_, figures, counts) | self.temperature.compute(scale)

    def curves(self) -> dict[str, dict[str, list[Any]]]:
        """Data of the figures: `risk_coverage` (masks), `risk_coverage_pixel`, `reliability`."""
        return {
            "risk_coverage": self.ranking.risk_coverage(),
            "risk_coverage_pixel": self.pixels.risk_coverage(),
            "reliability": self.pixels.reliability(),
        }

    def prompts_fingerprint(self) -> str:
        """Of the fixed clicks of all objects: equal for all methods that were judged with the same clicks."""
        return f"{self.prompts:0{_DIGEST_BITS // 4}x}"


def digest_prompts(image_id: str, points: Int[np.ndarray, "n clicks 2"]) -> int:
    """SHA-256 of an image's fixed clicks, as a number: sums of it do not depend on the order of the images."""
    return int.from_bytes(hashlib.sha256(f"{image_id}\n".encode() + points.astype("<i4").tobytes()).digest())
