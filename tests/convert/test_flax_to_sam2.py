import numpy as np
import pytest
from safetensors.numpy import save_file

from convert.checkpoint_files import read
from convert.flax_to_sam2 import convert_directory
from convert.sam2_to_flax import convert_file
from ruac_jax.errors import UserError


@pytest.mark.parametrize("head", ["hypernetwork", "weibull", "evidential"])
@pytest.mark.parametrize("version", [None, "2.0", "2.1"])
def test_round_trip_is_bitwise_equal(tmp_path, nano_tensors, head, version):
    tensors = nano_tensors(head, version)
    tensors["no_mem_embed"][0, 0, :3] = [-0.0, 1e-42, np.inf]
    save_file(tensors, tmp_path / "there.safetensors")
    convert_file(tmp_path / "there.safetensors", tmp_path / "model")
    convert_directory(tmp_path / "model", tmp_path / "back.safetensors")
    back = read(tmp_path / "back.safetensors").tensors
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


def test_existing_file_and_missing_model(tmp_path):
    (tmp_path / "back.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already"):
        convert_directory(tmp_path / "model", tmp_path / "back.safetensors")
    with pytest.raises(UserError, match="model: no such folder"):
        convert_directory(tmp_path / "model", tmp_path / "back.safetensors", overwrite=True)
    assert (tmp_path / "back.safetensors").read_bytes() == b"mine"
