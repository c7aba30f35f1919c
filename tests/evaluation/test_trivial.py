import numpy as np
import pytest

from ruac_jax.evaluation.protocol import evaluate_record
from ruac_jax.evaluation.trivial import DiskPredictor, mean_area_share


def test_disk_predictor_fills_a_disk_of_the_given_area():
    y, x = np.mgrid[:128, :128]
    disk = (x - 60) ** 2 + (y - 70) ** 2 <= 20**2
    sample = {"image": np.zeros((128, 128, 3), np.uint8), "masks": disk[None], "image_id": "disk"}
    share = mean_area_share([sample])
    assert share == pytest.approx(np.pi * 400 / 128**2, rel=0.01)
    result = evaluate_record(DiskPredictor(share), sample)[0].compute()
    assert result["j"] > 0.95
    assert result["f"] == 1
    with pytest.raises(ValueError, match="no object"):
        mean_area_share([])


def test_uncertainty_is_the_entropy_of_the_probability():
    logits, probability, uncertainty = DiskPredictor(0.05, 64).decode(
        None, np.full((2, 3, 2), 31.5, np.float32), np.ones((2, 3), np.int32)
    )
    assert logits.shape == (2, 16, 16)
    assert ((probability > 0.5) == (logits > 0)).all()
    p = probability.astype(np.float64)
    np.testing.assert_allclose(uncertainty, -(p * np.log2(p) + (1 - p) * np.log2(1 - p)), atol=1e-5)
