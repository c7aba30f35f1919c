"""Published sample files for tests that read them where they lie; they are never part of the repository."""

import os
from pathlib import Path

import pytest

_ROOT = Path(os.environ.get("RUAC_REAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def real_data(name: str) -> Path:
    """Folder of a sample set; skips the test where it is not at hand."""
    if not (_ROOT / name).exists():
        pytest.skip(f"no real sample {name}: set RUAC_REAL_DATA to the folder that holds it")
    return _ROOT / name
