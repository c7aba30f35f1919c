"""PAvPU on square patches, as Mukhoti and Gal (2018) define it; the published figures are of single pixels.

A frame is cut into w x w patches from its top left corner. A patch is accurate if more than half of its pixels are
right, and uncertain if the mean of its u is above the threshold. Patches that the image's right or lower border cuts
off count like the others, by the pixels they have, so no pixel is left out. With w = 1 these are pixels.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ruac_jax.evaluation.metrics.pixels import LIMB, THRESHOLDS, UNIT

MAX_PATCH = 255  # what int32 sums hold


def count_patches(
    logits: Float[Array, "n h w"],
    uncertainty: Float[Array, "n h w"],
    truth: Bool[Array, "n h w"],
    valid: Bool[Array, "n h w"],
    size: int,
) -> Int[Array, "thresholds 2 2"]:
    """Counts the patches of `n` objects of one image; to be called inside jit, with a static `size`.

    Pixels that are not valid belong to no patch. Uncertainties are clipped to [0, 1] and summed in units of 2^-30.

    Args:
      logits: the mask is where they are above 0.
      uncertainty: u.
      truth: of each object.
      valid: pixels of the image.
      size: side w of a patch, px, 1 to 255.

    Returns:
      For each of `THRESHOLDS`, patches by accuracy (0: accurate, 1: not) and uncertainty (0: certain, 1: not).

    Raises:
      ValueError: no such size.
    """
    if not 1 <= size <= MAX_PATCH:
        raise ValueError(f"a patch is 1 to {MAX_PATCH} px wide, not {size}")
    units = jnp.round(jnp.clip(uncertainty, 0.0, 1.0) * float(1 << UNIT)).astype(jnp.int32)
    units = jnp.where(valid, units, 0)
    area = _patch_sums(valid, size)
    right = _patch_sums(((logits > 0) == truth) & valid, size)
    total = _carry(_patch_sums(units >> LIMB, size), _patch_sums(units & ((1 << LIMB) - 1), size))
    accurate = 2 * right > area
    counts = []
    for threshold in THRESHOLDS:
        # Thresholds and the float32 values next to them are whole numbers of units, so w = 1 agrees with pixels.
        limit = round(float(np.float32(threshold)) * (1 << UNIT))
        uncertain = _greater(total, _carry(area * (limit >> LIMB), area * (limit & ((1 << LIMB) - 1))))
        cells = [(area > 0) & a & u for a in (accurate, ~accurate) for u in (~uncertain, uncertain)]
        counts.append(jnp.stack([cell.sum() for cell in cells]).reshape(2, 2))
    return jnp.stack(counts)


@dataclasses.dataclass(frozen=True)
class PatchState:
    """Counts over the patches of a dataset, all of one size; size 0: of no patch, merges with any."""

    size: int
    counts: Int[np.ndarray, "thresholds 2 2"]

    @classmethod
    def empty(cls, size: int = 0) -> "PatchState":
        """State of no patch."""
        return cls(size, np.zeros((len(THRESHOLDS), 2, 2), np.int64))

    @classmethod
    def from_counts(cls, size: int, counts: Int[Array | np.ndarray, "thresholds 2 2"]) -> "PatchState":
        """State of the objects of one call of `count_patches`."""
        return cls(size, np.asarray(counts, np.int64))

    def merge(self, other: "PatchState") -> "PatchState":
        """State of both sets of patches together.

        Raises:
          ValueError: their sizes differ.
        """
        if not self.size or not other.size:
            return other if not self.size else self
        if self.size != other.size:
            raise ValueError(f"patches of {self.size} px and of {other.size} px cannot be counted together")
        return PatchState(self.size, self.counts + other.counts)

    def compute(self) -> dict[str, float | None]:
        """Figures as fractions, named by the size, here w = 4; None without patches, nothing for size 0.

        - `pavpu_4x4_T`: share of patches that are accurate and certain or inaccurate and uncertain at threshold T;
          `pavpu_4x4`: mean over the thresholds; `certain_4x4_T`: share of certain patches.
        """
        if not self.size:
            return {}
        suffix = f"{self.size}x{self.size}"
        names = [f"{kind}_{suffix}_{t:.2f}" for kind in ("pavpu", "certain") for t in THRESHOLDS]
        patches = int(self.counts[0].sum())
        if not patches:
            return dict.fromkeys([f"pavpu_{suffix}", *names])
        agree = [(int(table[0, 0]) + int(table[1, 1])) / patches for table in self.counts]
        certain = [int(table[:, 0].sum()) / patches for table in self.counts]
        return {f"pavpu_{suffix}": sum(agree) / len(agree)} | dict(zip(names, agree + certain, strict=True))


def _patch_sums(values: Int[Array, "n h w"] | Bool[Array, "n h w"], size: int) -> Int[Array, "n p q"]:
    n, height, width = values.shape
    padded = jnp.pad(values.astype(jnp.int32), ((0, 0), (0, -height % size), (0, -width % size)))
    return padded.reshape(n, -(-height // size), size, -(-width // size), size).sum(axis=(2, 4))


Limbs = tuple[Int[Array, "n p q"], Int[Array, "n p q"]]


def _carry(high: Int[Array, "n p q"], low: Int[Array, "n p q"]) -> Limbs:
    return high + (low >> LIMB), low & ((1 << LIMB) - 1)


def _greater(a: Limbs, b: Limbs) -> Bool[Array, "n p q"]:
    return (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] > b[1]))
