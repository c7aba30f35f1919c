from pathlib import Path

import pytest

from ruac_jax.evaluation.metrics.object_calibration import ObjectCalibrationState
from ruac_jax.evaluation.metrics.patches import PatchState
from ruac_jax.evaluation.metrics.temperature import TemperatureState
from ruac_jax.evaluation.state import DatasetState

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"


@pytest.mark.parametrize(
    "figures",
    [
        DatasetState().compute(),
        DatasetState().curves(),
        DatasetState().pixels.reliability(),
        ObjectCalibrationState().compute(),
        PatchState.empty(4).compute(),
        TemperatureState.empty().compute(None),
    ],
    ids=["dataset", "curves", "reliability", "objects", "patches", "temperature"],
)
def test_every_key_is_documented(figures):
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [key for key in figures if f"`{key}`" not in text] == []
