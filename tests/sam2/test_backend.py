import jax
import pytest

from ruac_jax.sam2.backend import target_backend, traced_for


def test_the_target_is_the_default_until_one_is_named():
    assert target_backend() == jax.default_backend()
    with traced_for("gpu"):
        assert target_backend() == "gpu"
        with traced_for("tpu"):
            assert target_backend() == "tpu"
        assert target_backend() == "gpu"
    with pytest.raises(KeyError), traced_for("gpu"):
        raise KeyError
    assert target_backend() == jax.default_backend()
