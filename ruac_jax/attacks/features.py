"""Attacks on the backbone's maps by their statistics: MixStyle and DSU as an `Attack`."""

from typing import Literal

from jaxtyping import PRNGKeyArray

from ruac_jax.attacks.attack import Attack
from ruac_jax.attacks.feature_statistics import dsu, mix_style
from ruac_jax.sam2.neck import Levels


class FeatureAttack(Attack):
    """Leaves images alone and changes the channel statistics of all three levels."""

    def __init__(self, kind: Literal["mixstyle", "dsu"]):
        self.kind = kind

    def perturb(self, levels: Levels, key: PRNGKeyArray) -> Levels:
        """Mixes the statistics of images (MixStyle), or draws them anew (DSU)."""
        return mix_style(levels, key) if self.kind == "mixstyle" else dsu(levels, key)
