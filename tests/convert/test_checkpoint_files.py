import hashlib
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from convert.checkpoint_files import check_output, read, without_wrapper, write
from ruac_jax.errors import UserError


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


def test_what_is_written_is_read(tmp_path, rng):
    tensors = {"a.weight": rng.standard_normal((3, 4), np.float32), "b": np.float32([np.inf, -0.0, 1e-40])}
    write(tmp_path / "x.safetensors", tensors)
    source = read(tmp_path / "x.safetensors")
    assert source.tensors.keys() == tensors.keys()
    for name, array in tensors.items():
        assert source.tensors[name].tobytes() == array.tobytes()
        assert source.tensors[name].dtype == np.float32
    content = (tmp_path / "x.safetensors").read_bytes()
    assert (source.size, source.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert source.casts == {}
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_transposed_view_is_written_in_its_own_order(tmp_path, rng):
    array = rng.standard_normal((3, 4), np.float32).T
    write(tmp_path / "x.safetensors", {"a": array})
    np.testing.assert_array_equal(read(tmp_path / "x.safetensors").tensors["a"], array)


def test_other_floats_become_float32_and_are_counted(tmp_path):
    values = {
        "a": np.float16([0.1]),
        "b": np.float64([0.1]),
        "c": np.array([0.1], ml_dtypes.bfloat16),
        "d": np.float16([2]),
    }
    save_file(values, tmp_path / "x.safetensors")
    source = read(tmp_path / "x.safetensors")
    assert source.casts == {"float16": 2, "float64": 1, "bfloat16": 1}
    assert {array.dtype.name for array in source.tensors.values()} == {"float32"}
    assert [source.tensors[name].item() for name in "abcd"] == [0.0999755859375, np.float32(0.1), 0.10009765625, 2.0]


def test_whole_numbers_are_refused_by_name(tmp_path):
    save_file({"steps": np.int64([3]), "flag": np.array([True]), "a": np.float32([1])}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"not floating-point:\n  flag: bool\n  steps: int64"):
        read(tmp_path / "x.safetensors")


def test_shared_wrapper_names_are_removed():
    assert without_wrapper({"module.model.a": np.ones(1), "module.model.b": np.ones(1)}).keys() == {"a", "b"}
    assert without_wrapper({"module.a": np.ones(1), "b": np.ones(1)}).keys() == {"module.a", "b"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.safetensors", None, r"x\.safetensors: no such file"),
        ("x.ckpt", b"", r"x\.ckpt: unknown kind of file; expected one of \.safetensors"),
        ("x.safetensors", b"plain text that is no header", "not a readable safetensors file"),
        ("x.safetensors", b"", "not a readable safetensors file"),
        ("x.pt", b"plain text", "not a PyTorch checkpoint"),
        ("x.pt", b"", "not a PyTorch checkpoint"),
        ("x.pt", b"PK\x03\x04 and no directory at the end", "the file is cut short"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path, name, content, message, no_torch):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_truncated_safetensors(tmp_path):
    save_file({"a": np.ones(1000, np.float32)}, tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    for length in (4, 40, len(content) - 1):
        (tmp_path / "x.safetensors").write_bytes(content[:length])
        with pytest.raises(UserError, match="perhaps cut short"):
            read(tmp_path / "x.safetensors")


def test_file_without_tensors(tmp_path):
    save_file({}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="holds no tensors"):
        read(tmp_path / "x.safetensors")


def test_without_torch_the_error_says_what_to_do(tmp_path, no_torch):
    (tmp_path / "x.pt").write_bytes(b"\x80\x02}.")
    with pytest.raises(UserError, match=r"needs torch.*pip install torch.*safetensors"):
        read(tmp_path / "x.pt")
    with pytest.raises(UserError, match="needs torch"):
        write(tmp_path / "y.pt", {"a": np.ones(1, np.float32)})
    assert not (tmp_path / "y.pt").exists()


def test_output_is_protected(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already; --overwrite replaces it"):
        write(tmp_path / "x.safetensors", {"a": np.ones(1, np.float32)})
    assert (tmp_path / "x.safetensors").read_bytes() == b"mine"
    write(tmp_path / "x.safetensors", {"a": np.ones(1, np.float32)}, overwrite=True)
    assert read(tmp_path / "x.safetensors").tensors["a"] == 1
    with pytest.raises(UserError, match="unknown kind of file"):
        check_output(tmp_path / "folder", False)
    (tmp_path / "y.pt").mkdir()
    with pytest.raises(UserError, match="is a directory"):
        check_output(tmp_path / "y.pt", True)
