"""Comparisons with PyTorch's sam2; skipped as a whole where torch or sam2 is not installed."""

import importlib.util

collect_ignore_glob = [] if all(importlib.util.find_spec(name) for name in ("torch", "sam2")) else ["test_*.py"]
