import subprocess
import sys

import pytest

import ruac_jax


def test_version_matches_the_installed_distribution():
    from importlib.metadata import version

    assert version("ruac_jax") == ruac_jax.__version__


def test_classes_are_imported_on_first_use():
    from ruac_jax.automatic import AutomaticMaskGenerator
    from ruac_jax.predictor import Predictor

    assert ruac_jax.Predictor is Predictor
    assert ruac_jax.AutomaticMaskGenerator is AutomaticMaskGenerator
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        ruac_jax.Predicter  # noqa: B018
    program = "import sys, ruac_jax; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
