"""Segment anything with robust per-pixel uncertainty: SAM2.1 and RUAC in JAX."""

__version__ = "0.1.0"
