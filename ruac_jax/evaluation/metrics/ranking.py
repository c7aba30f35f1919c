"""Does the uncertainty of a mask tell how good the mask is? Ranking over the objects of a dataset."""

import dataclasses

import numpy as np
from jaxtyping import Float

from ruac_jax.evaluation.metrics import ordered

_FAILURE = 0.5  # a mask with less IoU is a failure


@dataclasses.dataclass(frozen=True)
class RankingState:
    """One row per object: mean u over its predicted mask, mean u over the frame, IoU with the truth.

    The only state that grows with the data: an exact order needs every mask, at 24 bytes each (a histogram as fine as
    the one of the pixels would be larger for anything below 80,000 objects). The order of rows does not matter.
    """

    rows: Float[np.ndarray, "n 3"] = dataclasses.field(default_factory=lambda: np.zeros((0, 3)))

    @classmethod
    def from_objects(
        cls,
        mask_uncertainty: Float[np.ndarray, "n"],
        frame_uncertainty: Float[np.ndarray, "n"],
        iou: Float[np.ndarray, "n"],
    ) -> "RankingState":
        """State of `n` objects (see `pixels.mean_uncertainty` and `region.region_similarity`)."""
        return cls(np.stack([mask_uncertainty, frame_uncertainty, iou], axis=1))

    def merge(self, other: "RankingState") -> "RankingState":
        """State of both sets of objects together."""
        return RankingState(np.concatenate([self.rows, other.rows]))

    def compute(self) -> dict[str, float | None]:
        """Figures of masks ordered by mean u, as fractions; None where one does not exist.

        There is nothing to rank, so all are None, unless two masks differ in mean u and two differ in IoU.

        - `aurc`: mean over coverage steps of the mean risk 1 - IoU of the most certain masks (appendix I); `e_aurc`:
          minus that of the best order; `augrc`: the generalised curve's area.
        - `auroc_mask`: mean u as a detector of masks with IoU < 0.5 (appendix J).
        - `aurc_frame`, `e_aurc_frame`, `augrc_frame`, `auroc_frame`: ordered by the mean u of the whole frame instead.
        """
        by_mask, by_frame = self._order(0), self._order(1)
        aurc, e_aurc, augrc, auroc = by_mask
        frame = zip(("aurc_frame", "e_aurc_frame", "augrc_frame", "auroc_frame"), by_frame, strict=True)
        return {"aurc": aurc, "e_aurc": e_aurc, "augrc": augrc, "auroc_mask": auroc} | dict(frame)

    def risk_coverage(self) -> dict[str, list[float]]:
        """The curve behind `aurc`, thinned."""
        coverage, risk = ordered.risk_coverage(*ordered.group(self.rows[:, 0], 1 - self.rows[:, 2]))
        return {"coverage": coverage.tolist(), "risk": risk.tolist()}

    def _order(self, column: int) -> tuple[float | None, ...]:
        score, risk = self.rows[:, column], 1 - self.rows[:, 2]
        if len(np.unique(score)) < 2 or len(np.unique(risk)) < 2:
            return (None,) * 4
        count, risks = ordered.group(score, risk)
        failure = (self.rows[:, 2] < _FAILURE).astype(np.float64)
        failures = np.rint(ordered.group(score, failure)[1]).astype(np.int64)
        aurc, best = ordered.aurc(count, risks), ordered.aurc(*ordered.group(risk, risk))
        return aurc, aurc - best, ordered.augrc(count, risks), ordered.auroc(count - failures, failures)
