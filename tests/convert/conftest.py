"""Random checkpoints of the nano size in PyTorch's layout, and the official ones' names and shapes."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from convert.carried import carried_shapes
from convert.names import table
from ruac_jax.sam2.variants import variant
from ruac_jax.weights import abstract_model, leaves


@pytest.fixture(scope="session")
def manifests() -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes by name of the four official SAM2.1 checkpoints, as their files' headers state them."""
    content = json.loads(gzip.decompress((Path(__file__).parent / "sam2.1_manifests.json.gz").read_bytes()))
    return {
        size: {name: tuple(map(int, shape.split("x"))) for shape, names in groups.items() for name in names}
        for size, groups in content.items()
    }


@pytest.fixture(scope="session")
def entries():
    """The table's entries of a size and head, by PyTorch name."""

    def build(size: str, head: str):
        return table({path: value.shape for path, value in leaves(abstract_model(size, head)).items()})

    return build


@pytest.fixture
def nano_tensors(entries, rng):
    """Makes a random nano checkpoint, with the carried tensors of a SAM2 version or none."""

    def build(head: str = "hypernetwork", version: str | None = None) -> dict[str, np.ndarray]:
        size = variant("nano")
        shapes = {name: found.torch_shape for name, found in entries("nano", head).items()}
        shapes |= carried_shapes(version, size.d_model, size.memory_dim)
        return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}

    return build
