"""PAvPU and calibration at matched confidence: what is left once every network is as sure of itself as it should be.

PAvPU at fixed thresholds is mostly a measure of confidence: doubling all logits moves it by tens of points while no
mask changes. So one number per network, the scale a > 0 (a = 1 / temperature), is fitted by likelihood on validation
data of the source domain (Guo et al., 2017), and PAvPU, ECE and likelihood are taken again from the scaled
probabilities.

What is scaled is the logit of the probability that the uncertainty belongs to, z = logit p: for a Weibull head the
moderated mean or the mean of samples, not its mean logit l. Then p_a = s(a z), u_a = H(p_a) in bits. The mask l > 0
stays as it is. Both PAvPU and likelihood depend on a pixel only through |z|, whether p is on the side of the truth, and
whether the mask is wrong. One histogram of these gives them, and ECE, at every scale, without a second pass over the
images.

p is taken after upsampling, so at scale 1 u_1 is the entropy of the upsampled p and not the upsampled u that
`PixelState` judges; `pavpu_unscaled` says what that alone changes.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.optimize import brentq
from scipy.special import expit

from ruac_jax.evaluation.metrics.pixels import CALIBRATION_BINS, LEAST_PROBABILITY, THRESHOLDS

# Bins of |z|, 2^-11 wide: p is at least 2^-23, so |z| is less than 16.
_PER_UNIT = 1 << 11
LOGIT_BINS = 16 * _PER_UNIT
_CENTERS = (np.arange(LOGIT_BINS) + 0.5) / _PER_UNIT


def count_logits(
    logits: Float[Array, "n h w"],
    probability: Float[Array, "n h w"],
    truth: Bool[Array, "n h w"],
    valid: Bool[Array, "n h w"],
) -> Int[Array, "2 2 bins"]:
    """Counts the pixels of `n` objects of one image; to be called inside jit. Pixels that are not valid do not count.

    Returns:
      Pixels by side of p (0: that of the truth, 1: the other), mask (0: right, 1: wrong) and bin of |logit p|.
      n * h * w must be less than 2^31. Probabilities are clipped to [2^-23, 1 - 2^-23].
    """
    p = jnp.clip(probability, LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
    magnitude = jnp.abs(jnp.log(p) - jnp.log1p(-p))
    other_side = (p > 0.5) != truth
    wrong = (logits > 0) != truth
    bin_index = jnp.minimum((magnitude * _PER_UNIT).astype(jnp.int32), LOGIT_BINS - 1)
    cell = (other_side.astype(jnp.int32) * 2 + wrong.astype(jnp.int32)) * LOGIT_BINS + bin_index
    cell = jnp.where(valid, cell, 4 * LOGIT_BINS)
    counts = jnp.zeros(4 * LOGIT_BINS, jnp.int32).at[cell.reshape(-1)].add(1, mode="drop")
    return counts.reshape(2, 2, LOGIT_BINS)


@dataclasses.dataclass(frozen=True)
class TemperatureState:
    """Counts over the pixels of a dataset (see `count_logits`); 1 MB whatever its size."""

    histogram: Int[np.ndarray, "2 2 bins"]

    @classmethod
    def empty(cls) -> "TemperatureState":
        """State of no pixel."""
        return cls(np.zeros((2, 2, LOGIT_BINS), np.int64))

    @classmethod
    def from_counts(cls, counts: Int[Array | np.ndarray, "2 2 bins"]) -> "TemperatureState":
        """State of the objects of one call of `count_logits`."""
        return cls(np.asarray(counts, np.int64))

    def merge(self, other: "TemperatureState") -> "TemperatureState":
        """State of both sets of pixels together."""
        return TemperatureState(self.histogram + other.histogram)

    def nll(self, scale: float) -> float | None:
        """Mean over pixels of -log of the probability that p_a gives the truth, nats; None without pixels.

        Every |z| is taken for the centre of its bin, which moves the value by at most scale * 2^-12.
        """
        pixels = int(self.histogram.sum())
        same, other = self.histogram.sum(axis=1)
        x = scale * _CENTERS
        loss = same * np.logaddexp(0, -x) + other * np.logaddexp(0, x)
        return float(loss.sum() / pixels) if pixels else None

    def ece(self, scale: float) -> float | None:
        """Calibration error of p_a as `PixelState` defines it, in [0, 1]; None without pixels.

        Every |z| is taken for the centre of its bin: a confidence moves by at most scale * 2^-14, and with it perhaps
        into the next of the 15 bins.
        """
        same, other = self.histogram.sum(axis=1)
        confidence = expit(scale * _CENTERS)
        bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        gaps = np.bincount(bins, same - (same + other) * confidence)
        pixels = int(self.histogram.sum())
        return float(np.abs(gaps).sum() / pixels) if pixels else None

    def fit_scale(self) -> float | None:
        """The scale with the least `nll`, to 12 digits.

        The unbinned likelihood there exceeds its least value by at most (scale + best scale) * 2^-12.

        Returns:
          None where no positive scale is best: without pixels, if p is nowhere on the wrong side of 1/2 (the surer the
          better), or if the signed logits of the truth do not even have a positive mean (the less sure the better).
        """
        same, other = self.histogram.sum(axis=1)

        def slope(log_scale: float) -> float:
            x = np.exp(log_scale) * _CENTERS
            return float(np.sum(_CENTERS * (other * expit(x) - same * expit(-x))))

        if not other.any() or np.sum(_CENTERS * (same - other)) <= 0:
            return None
        # nll is convex: its slope rises from below zero to above it, unless rounding hides a mean next to zero.
        low = next((k for k in range(0, -64, -1) if slope(float(k)) < 0), None)
        if low is None:
            return None
        high = next(k for k in range(low, 64) if slope(float(k)) >= 0)
        return float(np.exp(brentq(slope, low, high, xtol=1e-13, rtol=1e-13)))

    def compute(self, scale: float | None) -> dict[str, float | None]:
        """Figures at a logit scale, as fractions but NLL; None where one does not exist: no pixels, or no scale.

        - `logit_scale`: the argument.
        - `pavpu_matched_T`: share of pixels whose mask is right with u_a <= T or wrong with u_a > T; `pavpu_matched`:
          mean over the thresholds, `pavpu_matched_bound`: its largest possible distance from the unbinned value;
          `certain_matched_T`: share with u_a <= T.
        - `nll_matched`, `ece_matched`: see `nll`, `ece`.
        - `pavpu_unscaled`: `pavpu_matched` at scale 1.

        Raises:
          ValueError: the scale is not positive.
        """
        if scale is not None and not scale > 0:
            raise ValueError(f"a logit scale must be positive, not {scale}")
        pixels = int(self.histogram.sum())
        unscaled = _mean([self._pavpu(1.0, t)[0] for t in THRESHOLDS]) if pixels else None
        if not pixels or scale is None:
            names = [f"{kind}_matched_{t:.2f}" for kind in ("pavpu", "certain") for t in THRESHOLDS]
            nothing = dict.fromkeys(["pavpu_matched", "pavpu_matched_bound", *names, "nll_matched", "ece_matched"])
            return {"logit_scale": scale} | nothing | {"pavpu_unscaled": unscaled}
        values, certain, bounds = zip(*(self._pavpu(scale, t) for t in THRESHOLDS), strict=True)
        result: dict[str, float | None] = {"logit_scale": scale}
        result |= {"pavpu_matched": _mean(values), "pavpu_matched_bound": _mean(bounds)}
        result |= {f"pavpu_matched_{t:.2f}": value for t, value in zip(THRESHOLDS, values, strict=True)}
        result |= {f"certain_matched_{t:.2f}": value for t, value in zip(THRESHOLDS, certain, strict=True)}
        result |= {"nll_matched": self.nll(scale), "ece_matched": self.ece(scale)}
        return result | {"pavpu_unscaled": unscaled}

    def _pavpu(self, scale: float, threshold: float) -> tuple[float, float, float]:
        """PAvPU, share of certain pixels, and bound of the first at one threshold of u_a, in bits."""
        right, wrong = self.histogram.sum(axis=0)
        pixels = int(self.histogram.sum())
        edge = _logit_of_entropy(threshold) / scale  # u_a > threshold where |z| < edge
        uncertain = edge > _CENTERS
        accurate_certain, inaccurate_uncertain = int(right[~uncertain].sum()), int(wrong[uncertain].sum())
        certain = accurate_certain + int(wrong[~uncertain].sum())
        # Only the bin that holds the edge can be on the wrong side; there right and wrong pixels move it oppositely.
        straddled = slice(int(edge * _PER_UNIT), int(edge * _PER_UNIT) + 1)  # empty beyond the last bin
        bound = max(int(right[straddled].sum()), int(wrong[straddled].sum())) / pixels
        return (accurate_certain + inaccurate_uncertain) / pixels, certain / pixels, bound


def _logit_of_entropy(bits: float) -> float:
    """The z >= 0 for which a Bernoulli variable of probability s(z) has this entropy, in (0, 1] bits."""

    def excess(z: float) -> float:
        return (np.logaddexp(0, -z) + z * expit(-z)) / np.log(2) - bits

    return brentq(excess, 0.0, 64.0, xtol=1e-13)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
