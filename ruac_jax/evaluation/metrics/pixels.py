"""Does the uncertainty of a pixel tell whether it is wrong? Calibration and ranking over all pixels of all objects.

On device, `count_pixels` turns the maps of some objects of one image into counts; on the host they are added up in a
`PixelState`, whose size is fixed. Everything is an integer: real values are summed in units of 2^-30, so no number of
devices, shards or order of merging changes the last bit of a result. Nothing is sampled.

Notation: l logit, p probability (the one whose entropy u is), u uncertainty in [0, 1], y truth; the mask is l > 0, a
pixel is wrong where mask and y differ.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ruac_jax.evaluation.metrics import ordered

THRESHOLDS = (0.01, 0.05, 0.10)  # uncertainty above which a pixel counts as uncertain (PAvPU)
CALIBRATION_BINS = 15
_FIRST_BIN = 7  # confidences max(p, 1 - p) start at 1/2

# Bins of u: 2^11 per octave, down to 2^-32, by the float's own bits; the first also holds all below, the last 1 itself.
_OCTAVES, _MANTISSA_BITS = 32, 11
UNCERTAINTY_BINS = (_OCTAVES << _MANTISSA_BITS) + 1

UNIT = 30  # real values are counted in 2^-30 ...
LIMB = 15  # ... in two halves of 15 bits, so that a row of 65,535 pixels fits an int32
_NLL_SCALE = 16  # -log of the smallest probability below is less than 16
LEAST_PROBABILITY = float(np.finfo(np.float32).eps)

_SUMS = ("u", "soft", "u_u", "soft_soft", "u_soft", "u_wrong", "u_mask", "soft_mask", "nll", "brier")


class PixelCounts(NamedTuple):
    """What `count_pixels` brings back from the device.

    Attributes:
      histogram: pixels by region (outside, inside prediction or truth), right or wrong, and bin of u, flattened.
      uncertain: right and wrong pixels above each of `THRESHOLDS`.
      calibration: pixels, and pixels that p classifies correctly, by bin of confidence (bins 7 to 14).
      confidence: sum of the confidences of each bin by image row; two halves (high, low) of a fixed-point number.
      sums: the sums named by `_SUMS`, by image row, in the same form.
      ranges: least and largest u, least and largest soft error |s(l) - y|.
      finite: no value is NaN or infinite.
      mask: the predicted mask.
    """

    histogram: Int[Array, "bins"]
    uncertain: Int[Array, "thresholds 2"]
    calibration: Int[Array, "2 confidences"]
    confidence: Int[Array, "2 confidences n h"]
    sums: Int[Array, "2 sums n h"]
    ranges: Float[Array, "2 2"]
    finite: Bool[Array, ""]
    mask: Bool[Array, "n h w"]


def uncertainty_bin(uncertainty: Float[Array, "..."]) -> Int[Array, "..."]:
    """Index of the histogram bin, monotone in u; values within a bin differ by less than 0.05 % (or 2^-32)."""
    bits = jax.lax.bitcast_convert_type(uncertainty.astype(jnp.float32), jnp.int32) >> (23 - _MANTISSA_BITS)
    return jnp.clip(bits - ((127 - _OCTAVES) << _MANTISSA_BITS), 0, UNCERTAINTY_BINS - 1)


def count_pixels(
    logits: Float[Array, "n h w"],
    probability: Float[Array, "n h w"],
    uncertainty: Float[Array, "n h w"],
    truth: Bool[Array, "n h w"],
    valid: Bool[Array, "n h w"],
) -> PixelCounts:
    """Counts the pixels of `n` objects of one image; to be called inside jit. Pixels that are not valid do not count.

    Rows may be at most 65,535 px long, and n * h * w less than 2^31. Values outside [0, 1] are clipped.
    """
    finite = jnp.all(jnp.isfinite(logits) & jnp.isfinite(probability) & jnp.isfinite(uncertainty) | ~valid)
    u, p = jnp.clip(uncertainty, 0.0, 1.0), jnp.clip(probability, 0.0, 1.0)
    mask = (logits > 0) & valid
    wrong = (mask != truth) & valid
    right = ~wrong & valid

    cell = ((mask | truth).astype(jnp.int32) * 2 + wrong.astype(jnp.int32)) * UNCERTAINTY_BINS + uncertainty_bin(u)
    cell = jnp.where(valid, cell, 4 * UNCERTAINTY_BINS)
    histogram = jnp.zeros(4 * UNCERTAINTY_BINS, jnp.int32).at[cell.reshape(-1)].add(1, mode="drop")
    thresholds = jnp.asarray(THRESHOLDS, u.dtype)[:, None, None, None, None]
    uncertain = jnp.sum((u[None, None] > thresholds) & jnp.stack([right, wrong])[None], axis=(2, 3, 4))

    soft = jax.nn.sigmoid(jnp.where(truth, -logits, logits))
    likelihood = jnp.where(truth, p, 1.0 - p)
    nll = -jnp.log(jnp.maximum(likelihood, LEAST_PROBABILITY))
    zero = jnp.zeros((), u.dtype)
    addends = {
        "u": u,
        "soft": soft,
        "u_u": u * u,
        "soft_soft": soft * soft,
        "u_soft": u * soft,
        "u_wrong": jnp.where(wrong, u, zero),
        "u_mask": jnp.where(mask, u, zero),
        "soft_mask": jnp.where(mask, soft, zero),
        "nll": nll / _NLL_SCALE,
        "brier": (1.0 - likelihood) ** 2,
    }
    # One array in memory: otherwise every sum would evaluate all its logarithms again.
    stacked = jax.lax.optimization_barrier(jnp.stack([addends[name] for name in _SUMS]))

    confidence = jnp.maximum(p, 1.0 - p)
    bin_index = jnp.minimum((confidence * CALIBRATION_BINS).astype(jnp.int32), CALIBRATION_BINS - 1)
    bins = jnp.arange(_FIRST_BIN, CALIBRATION_BINS)[:, None, None, None]
    inside = (bin_index[None] == bins) & valid[None]
    hit = (p > 0.5) == truth
    return PixelCounts(
        histogram=histogram,
        uncertain=uncertain,
        calibration=jnp.stack([inside.sum(axis=(1, 2, 3)), (inside & hit[None]).sum(axis=(1, 2, 3))]),
        confidence=_row_sums(confidence[None], inside),
        sums=_row_sums(stacked, valid[None]),
        ranges=jnp.stack([_range(u, valid), _range(soft, valid)]),
        finite=finite,
        mask=mask,
    )


@dataclasses.dataclass(frozen=True)
class PixelState:
    """Counts over the pixels of a dataset; about 2 MB whatever its size."""

    histogram: Int[np.ndarray, "2 2 bins"]
    uncertain: Int[np.ndarray, "thresholds 2"]
    calibration: Int[np.ndarray, "2 confidences"]
    confidence: Int[np.ndarray, "2 confidences"]
    sums: Int[np.ndarray, "2 sums"]
    ranges: Float[np.ndarray, "2 2"]

    @classmethod
    def empty(cls) -> "PixelState":
        """State of no pixel."""
        bins = CALIBRATION_BINS - _FIRST_BIN
        return cls(
            np.zeros((2, 2, UNCERTAINTY_BINS), np.int64),
            np.zeros((len(THRESHOLDS), 2), np.int64),
            np.zeros((2, bins), np.int64),
            np.zeros((2, bins), np.int64),
            np.zeros((2, len(_SUMS)), np.int64),
            np.array([[np.inf, -np.inf]] * 2),
        )

    @classmethod
    def from_counts(cls, counts: PixelCounts) -> "PixelState":
        """State of the objects of one call of `count_pixels`."""
        return cls(
            np.asarray(counts.histogram, np.int64).reshape(2, 2, -1),
            np.asarray(counts.uncertain, np.int64),
            np.asarray(counts.calibration, np.int64),
            np.asarray(counts.confidence).sum(axis=(2, 3), dtype=np.int64),
            np.asarray(counts.sums).sum(axis=(2, 3), dtype=np.int64),
            np.asarray(counts.ranges, np.float64),
        )

    def merge(self, other: "PixelState") -> "PixelState":
        """State of both sets of pixels together."""
        return PixelState(
            self.histogram + other.histogram,
            self.uncertain + other.uncertain,
            self.calibration + other.calibration,
            self.confidence + other.confidence,
            self.sums + other.sums,
            np.stack(
                [
                    np.minimum(self.ranges[:, 0], other.ranges[:, 0]),
                    np.maximum(self.ranges[:, 1], other.ranges[:, 1]),
                ],
                axis=1,
            ),
        )

    def compute(self) -> dict[str, int | float | None]:
        """All figures as fractions (NLL in nats); None where one does not exist.

        - `pixels`: how many, over all objects.
        - `pavpu_T`: share of pixels that are right with u <= T or wrong with u > T (patch size 1); `pavpu`: mean over
          the thresholds; `certain_T`: share with u <= T.
        - `ece`: sum over 15 equal bins of confidence max(p, 1 - p), the last closed, of share * |accuracy - mean
          confidence|, where accurate means that p > 1/2 agrees with y. `nll` (p clipped at 2^-23) and `brier` of p.
        - `pcc_soft`, `pcc_hard`: Pearson correlation of u with |s(l) - y| and with wrong (0 or 1).
        - `auroc`: u as a detector of wrong pixels, `auroc_object`: only where prediction or truth is object, `aupr`:
          average precision of the same; `aurc_pixel`, `e_aurc_pixel`, `augrc_pixel` with risk = wrong. Each ranking
          comes from a histogram of u, and `*_bound` is the largest possible distance from the unbinned value. There
          is nothing to rank, so all are None, unless some pixels are wrong, some are right and u differs.
        """
        (right, wrong), inside = self.histogram.sum(axis=0), self.histogram[1]
        errors = int(wrong.sum())
        pixels = int(right.sum()) + errors
        result: dict[str, int | float | None] = {"pixels": pixels}
        result |= self._thresholded(pixels, errors)
        result |= self._calibration(pixels)
        result |= self._correlations(pixels, errors)
        return result | _ranking(right, wrong) | _separation(*inside, "auroc_object")

    def reliability(self) -> dict[str, list[float | int | None]]:
        """The reliability diagram: edges, pixels, mean confidence and accuracy of each bin (None where it is empty)."""
        count, correct = self.calibration.tolist()
        confidence = [_real(limbs) for limbs in self.confidence.T]
        edges = [k / CALIBRATION_BINS for k in range(_FIRST_BIN, CALIBRATION_BINS + 1)]
        return {
            "low": edges[:-1],
            "high": edges[1:],
            "pixels": count,
            "confidence": [c / n if n else None for c, n in zip(confidence, count, strict=True)],
            "accuracy": [c / n if n else None for c, n in zip(correct, count, strict=True)],
        }

    def risk_coverage(self) -> dict[str, list[float]]:
        """The curve behind `aurc_pixel`, thinned."""
        right, wrong = self.histogram.sum(axis=0)
        coverage, risk = ordered.risk_coverage(right + wrong, wrong)
        return {"coverage": coverage.tolist(), "risk": risk.tolist()}

    def _thresholded(self, pixels: int, errors: int) -> dict[str, int | float | None]:
        result: dict[str, int | float | None] = {}
        if not pixels:
            names = [f"{kind}_{t:.2f}" for kind in ("pavpu", "certain") for t in THRESHOLDS]
            return dict.fromkeys(["pavpu", *names])
        for threshold, (right, wrong) in zip(THRESHOLDS, self.uncertain.tolist(), strict=True):
            result[f"pavpu_{threshold:.2f}"] = (pixels - errors - right + wrong) / pixels
            result[f"certain_{threshold:.2f}"] = (pixels - right - wrong) / pixels
        values = [result[f"pavpu_{threshold:.2f}"] for threshold in THRESHOLDS]
        return {"pavpu": sum(values) / len(values)} | result

    def _calibration(self, pixels: int) -> dict[str, int | float | None]:
        if not pixels:
            return dict.fromkeys(("ece", "nll", "brier"))
        gaps = [abs(hit - _real(limbs)) for hit, limbs in zip(self.calibration[1], self.confidence.T, strict=True)]
        return {
            "ece": float(sum(gaps)) / pixels,
            "nll": _real(self._sum("nll")) * _NLL_SCALE / pixels,
            "brier": _real(self._sum("brier")) / pixels,
        }

    def _correlations(self, pixels: int, errors: int) -> dict[str, int | float | None]:
        u, soft, u_u, soft_soft, u_soft, u_wrong = (_integer(self._sum(name)) for name in _SUMS[:6])
        one = 1 << UNIT
        constant = self.ranges[:, 0] >= self.ranges[:, 1]
        # n^2 times (co)variances, in 2^-60; Python's integers neither overflow nor cancel.
        variance_u = pixels * u_u * one - u * u
        variance_soft = pixels * soft_soft * one - soft * soft
        variance_hard = (pixels * errors - errors * errors) * one * one
        with_soft = pixels * u_soft * one - u * soft
        with_hard = (pixels * u_wrong - u * errors) * one
        return {
            "pcc_soft": None if constant.any() else _correlation(with_soft, variance_u, variance_soft),
            "pcc_hard": None if constant[0] else _correlation(with_hard, variance_u, variance_hard),
        }

    def _sum(self, name: str) -> Int[np.ndarray, "2"]:
        return self.sums[:, _SUMS.index(name)]


def mean_uncertainty(
    counts: PixelCounts, objects: int, pixels: int
) -> tuple[Float[np.ndarray, "objects"], Float[np.ndarray, "objects"]]:
    """Mean u of the first `objects` objects over the predicted mask (the frame where it is empty) and over the frame.

    `pixels` is the number of valid pixels of an object. Float64.
    """
    return _object_means(counts, objects, pixels, "u")


def mean_soft_accuracy(counts: PixelCounts, objects: int, pixels: int) -> Float[np.ndarray, "objects"]:
    """Mean of 1 - |s(l) - y| over the predicted mask (the frame where it is empty); arguments as `mean_uncertainty`."""
    return 1 - _object_means(counts, objects, pixels, "soft")[0]


def _object_means(
    counts: PixelCounts, objects: int, pixels: int, name: str
) -> tuple[Float[np.ndarray, "objects"], Float[np.ndarray, "objects"]]:
    sums = np.asarray(counts.sums).sum(axis=3, dtype=np.int64)[:, :, :objects]
    area = np.asarray(counts.mask).sum(axis=(1, 2))[:objects]
    frame = np.array([_real(limbs) for limbs in sums[:, _SUMS.index(name)].T]) / pixels
    inside = np.array([_real(limbs) for limbs in sums[:, _SUMS.index(f"{name}_mask")].T]) / np.maximum(area, 1)
    return np.where(area, inside, frame), frame


def _ranking(right: ordered.Counts, wrong: ordered.Counts) -> dict[str, float | None]:
    """Every figure of the order of all pixels, with its bound."""
    names = ("aurc_pixel", "e_aurc_pixel", "augrc_pixel", "aupr")
    separation = _separation(right, wrong, "auroc")
    if separation["auroc"] is None:
        return separation | dict.fromkeys(key for name in names for key in (name, f"{name}_bound"))
    pixels, errors = int(right.sum() + wrong.sum()), int(wrong.sum())
    aurc, bound = ordered.aurc(right + wrong, wrong), ordered.aurc_bound(right, wrong)
    best = ordered.aurc(np.array([pixels - errors, errors]), np.array([0, errors]))
    return separation | {
        "aupr": ordered.average_precision(right, wrong),
        "aupr_bound": ordered.average_precision_bound(right, wrong),
        "aurc_pixel": aurc,
        "aurc_pixel_bound": bound,
        "e_aurc_pixel": aurc - best,
        "e_aurc_pixel_bound": bound,  # the best order does not depend on u
        "augrc_pixel": ordered.augrc(right + wrong, wrong),
        "augrc_pixel_bound": ordered.augrc_bound(right, wrong),
    }


def _separation(right: ordered.Counts, wrong: ordered.Counts, name: str) -> dict[str, float | None]:
    """AUROC and its bound under `name`; None without right or wrong pixels, and where one bin holds every pixel."""
    if np.count_nonzero(right + wrong) < 2:
        return dict.fromkeys((name, f"{name}_bound"))
    return {name: ordered.auroc(right, wrong), f"{name}_bound": ordered.auroc_bound(right, wrong)}


def _row_sums(values: Float[Array, "#k n h w"], selected: Bool[Array, "#k n h w"]) -> Int[Array, "2 k n h"]:
    """Sums of values in [0, 1] along rows, as the high and low 15 bits of 2^-30 units."""
    units = jnp.where(selected, jnp.round(values * float(1 << UNIT)).astype(jnp.int32), 0)
    return jnp.stack([jnp.sum(units >> LIMB, axis=-1), jnp.sum(units & ((1 << LIMB) - 1), axis=-1)])


def _range(values: Float[Array, "n h w"], valid: Bool[Array, "n h w"]) -> Float[Array, "2"]:
    infinity = jnp.array(jnp.inf, values.dtype)
    return jnp.stack([jnp.where(valid, values, infinity).min(), jnp.where(valid, values, -infinity).max()])


def _integer(limbs: Int[np.ndarray, "2"]) -> int:
    return (int(limbs[0]) << LIMB) + int(limbs[1])


def _real(limbs: Int[np.ndarray, "2"]) -> float:
    return _integer(limbs) / (1 << UNIT)


def _correlation(covariance: int, variance_a: int, variance_b: int) -> float | None:
    if variance_a <= 0 or variance_b <= 0:
        return None
    return float(np.clip(covariance / (variance_a**0.5 * variance_b**0.5), -1.0, 1.0))
