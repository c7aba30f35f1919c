"""Strict mode for the whole suite: eight fake CPU devices, no silent rank or dtype promotion, warnings are errors."""

import os
import shutil
import tempfile
from collections.abc import Iterator

# Most of the suite's time goes into compiling. So little is optimised, and what is compiled again comes from disk, here
# and in the processes that tests start. A folder per worker, for JAX does not write to it atomically.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ruac_jax-compiled-")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

_COMPILED = os.environ["JAX_COMPILATION_CACHE_DIR"]  # kept: whatever a test sets there is not ours to remove

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_unconfigure() -> None:
    """Removes what was compiled."""
    shutil.rmtree(_COMPILED, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs() -> Iterator[None]:
    """Programs of one module, kept in memory, seldom serve another, and hundreds of them fill it."""
    yield
    jax.clear_caches()


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh, seeded numpy generator."""
    return np.random.default_rng(0)
