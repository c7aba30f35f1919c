"""A fresh nano network and small subjects of the embedded dataset, at 64 px."""

import pytest
from flax import nnx

from ruac_jax.data.shapes import ShapesSource
from ruac_jax.evaluation.run import Subject
from ruac_jax.model import SAM2
from ruac_jax.weights import create_model

SIZE = 64


@pytest.fixture(scope="package")
def model() -> SAM2:
    return create_model("nano", "weibull", rngs=nnx.Rngs(0))


@pytest.fixture(scope="package")
def subjects() -> list[Subject]:
    """Source and one target."""
    return [
        Subject(f"shapes/{domain}", "validation", ShapesSource(domain, "validation", size=SIZE, num_images=3), [0, 2])
        for domain in ("source", "xray")
    ]
