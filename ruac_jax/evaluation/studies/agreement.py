"""How analytic uncertainty compares with sampled uncertainty, pixel by pixel, on the network's own grid."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import entr

from ruac_jax.evaluation.studies.draws import VARIANCES, Spread
from ruac_jax.evaluation.studies.moments import JointMoments

BINS = 100  # of u, along each side of the density

_QUANTITIES = ("variance product", "variance full", "product", "full", "half", "other half", "draws")
_PAIRS = (("product", "draws"), ("full", "draws"), ("half", "other half"))


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Over the pixels of some objects; mergeable.

    Attributes:
      moments: of `_QUANTITIES`.
      largest: largest |difference| of u of each of `_PAIRS`.
      difference: sums of the differences (first minus second).
      density: pixels by sampled u (rows) and analytic u (columns), for "product" and "full".
      ratios: mean "full" over mean "product" variance, of each object that has any.
    """

    moments: JointMoments
    largest: Float[np.ndarray, "pairs"]
    difference: Float[np.ndarray, "pairs"]
    density: Int[np.ndarray, "2 bins bins"]
    ratios: tuple[float, ...]

    @classmethod
    def empty(cls) -> "Agreement":
        """Of no object."""
        none = np.zeros(len(_PAIRS))
        density = np.zeros((len(VARIANCES), BINS, BINS), np.int64)
        return cls(JointMoments.empty(len(_QUANTITIES)), none, none, density, ())

    @classmethod
    def of(cls, spread: Spread, objects: int, draws: int) -> "Agreement":
        """Of the first `objects` > 0 objects of a spread that holds `draws` and draws / 2 draws."""

        def values(maps: Any) -> Float[np.ndarray, "n p"]:
            return np.asarray(maps, np.float64)[:objects].reshape(objects, -1)

        # The second half's probability follows from the whole and the first half.
        half, whole = values(spread.probability[str(draws // 2)]), values(spread.probability[str(draws)])
        second = np.clip(2 * whole - half, 0, 1)
        variance = {mode: values(spread.variance[mode]) for mode in VARIANCES}
        u = {mode: values(spread.uncertainty[mode]) for mode in VARIANCES}
        u |= {"half": values(spread.uncertainty[str(draws // 2)]), "draws": values(spread.uncertainty[str(draws)])}
        u["other half"] = (entr(second) + entr(1 - second)) / np.log(2)
        every = {f"variance {mode}": variance[mode] for mode in VARIANCES} | u
        differences = np.stack([(u[a] - u[b]).ravel() for a, b in _PAIRS])
        means = {mode: variance[mode].mean(axis=1) for mode in VARIANCES}
        some = means["product"] > 0
        return cls(
            JointMoments.of(np.stack([every[name].ravel() for name in _QUANTITIES])),
            np.abs(differences).max(axis=1),
            differences.sum(axis=1),
            np.stack([_density(u["draws"], u[mode]) for mode in VARIANCES]),
            tuple((means["full"][some] / means["product"][some]).tolist()),
        )

    def merge(self, other: "Agreement") -> "Agreement":
        """Of both sets of objects together."""
        return Agreement(
            self.moments.merge(other.moments),
            np.maximum(self.largest, other.largest),
            self.difference + other.difference,
            self.density + other.density,
            self.ratios + other.ratios,
        )

    def compute(self) -> dict[str, Any]:
        """Figures; None where one does not exist.

        - `product`, `full`: analytic u against all draws: `pearson`, `max_difference`, `mean_difference` (analytic
          minus sampled); `halves`: the same between two halves of the draws, what sampling itself leaves uncertain.
        - `product_full_variance`, `product_full_u`: Pearson correlation of the two variances, and of their u.
        - `variance_ratio`: median, least and largest over objects of mean "full" over mean "product" variance.
        """
        result: dict[str, Any] = {"pixels": self.moments.count}
        for index, (a, b) in enumerate(_PAIRS):
            some = self.moments.count > 0
            result["halves" if a == "half" else a] = {
                "pearson": self._pearson(a, b),
                "max_difference": float(self.largest[index]) if some else None,
                "mean_difference": float(self.difference[index] / self.moments.count) if some else None,
            }
        ratios = {"median": np.median, "least": np.min, "largest": np.max}
        return result | {
            "product_full_variance": self._pearson("variance product", "variance full"),
            "product_full_u": self._pearson("product", "full"),
            "variance_ratio": {k: float(f(self.ratios)) if self.ratios else None for k, f in ratios.items()},
        }

    def _pearson(self, a: str, b: str) -> float | None:
        return self.moments.pearson(_QUANTITIES.index(a), _QUANTITIES.index(b))


def _density(rows: Float[np.ndarray, "n p"], columns: Float[np.ndarray, "n p"]) -> Int[np.ndarray, "bins bins"]:
    cell = [np.minimum((values.ravel() * BINS).astype(np.int64), BINS - 1) for values in (rows, columns)]
    return np.bincount(cell[0] * BINS + cell[1], minlength=BINS * BINS).reshape(BINS, BINS)
