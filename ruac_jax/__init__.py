"""Segment anything with robust per-pixel uncertainty: SAM2.1 and RUAC in JAX."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`ruac_jax.Predictor` and `ruac_jax.AutomaticMaskGenerator`, imported on first use: the package stays light."""
    if name == "Predictor":
        from ruac_jax.predictor import Predictor

        return Predictor
    if name == "AutomaticMaskGenerator":
        from ruac_jax.automatic import AutomaticMaskGenerator

        return AutomaticMaskGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
