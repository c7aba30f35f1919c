"""Means and covariances of several quantities, a batch of values at a time."""

import dataclasses

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class JointMoments:
    """Moments of `k` quantities that were observed together; mergeable (Chan et al., 1983), float64.

    Attributes:
      count: number of observations.
      mean: of each quantity.
      scatter: sum over the observations of (x - mean) (x - mean)^T.
    """

    count: int
    mean: Float[np.ndarray, "k"]
    scatter: Float[np.ndarray, "k k"]

    @classmethod
    def empty(cls, quantities: int) -> "JointMoments":
        """Moments of no observation."""
        return cls(0, np.zeros(quantities), np.zeros((quantities, quantities)))

    @classmethod
    def of(cls, values: Float[np.ndarray, "k n"]) -> "JointMoments":
        """Moments of `n` > 0 observations."""
        values = values.astype(np.float64)
        mean = values.mean(axis=1)
        centred = values - mean[:, None]
        return cls(values.shape[1], mean, centred @ centred.T)

    def merge(self, other: "JointMoments") -> "JointMoments":
        """Moments of both sets of observations together."""
        count = self.count + other.count
        if not count:
            return self
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        between = np.outer(shift, shift) * (self.count * other.count / count)
        return JointMoments(count, mean, self.scatter + other.scatter + between)

    def pearson(self, first: int, second: int) -> float | None:
        """Correlation of two quantities; None where one of them is constant or nothing was observed."""
        spread = self.scatter[first, first] * self.scatter[second, second]
        if not spread > 0:
            return None
        return float(np.clip(self.scatter[first, second] / np.sqrt(spread), -1, 1))
