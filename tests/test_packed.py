import numpy as np
import pytest
from safetensors.numpy import save_file

from ruac_jax.errors import UserError
from ruac_jax.packed import pack, read_description, read_packed, unpack, write_packed


@pytest.fixture
def values(rng):
    return {
        "kernel": rng.standard_normal((3, 3, 8, 5)).astype(np.float32) * np.float32([1e-3, 1, 10, 0, 1e3]),
        "matrix": rng.standard_normal((7, 4)).astype(np.float32),
        "bias": rng.standard_normal(9).astype(np.float32),
        "scalar": np.full((), 0.1, np.float32),
    }


def test_a_value_is_off_by_half_a_step_of_its_channel_at_most(values):
    back = unpack(pack(values))
    assert back.keys() == values.keys()
    for name in ("kernel", "matrix"):
        flat, found = values[name].reshape(-1, values[name].shape[-1]), back[name].reshape(-1, values[name].shape[-1])
        for channel in range(flat.shape[1]):
            step = np.abs(flat[:, channel].astype(np.float64)).max() / 32767
            error = np.abs(found[:, channel].astype(np.float64) - flat[:, channel])
            # Beside the rounding to a whole number, float32 has a relative error of its own.
            assert error.max() <= step / 2 + 2**-23 * np.abs(flat[:, channel]).max()
    assert not back["kernel"][..., 3].any()


def test_vectors_and_scalars_stay_as_they_are(values):
    back = unpack(pack(values))
    for name in ("bias", "scalar"):
        assert back[name].tobytes() == values[name].tobytes()


def test_packing_again_changes_nothing(values):
    once = unpack(pack(values))
    twice = unpack(pack(once))
    for name, value in once.items():
        np.testing.assert_allclose(twice[name], value, rtol=2**-22, atol=0)


def test_matrices_take_two_bytes_a_value(values):
    stored = pack(values)
    assert stored["kernel"].nbytes == 2 * values["kernel"].size
    assert stored["kernel.scale"].shape == (5,)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(values, bad):
    values["matrix"][2, 1] = bad
    with pytest.raises(ValueError, match="matrix holds values that are not finite"):
        pack(values)


def test_a_file_gives_back_what_was_packed(values, tmp_path):
    path = tmp_path / "new" / "m.safetensors"
    write_packed(path, "what it is", pack(values))
    assert read_description(path) == "what it is"
    found, expected = read_packed(path), unpack(pack(values))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        assert found[name].tobytes() == value.tobytes()
    assert [file.name for file in path.parent.iterdir()] == ["m.safetensors"]


def test_the_same_values_make_the_same_bytes(values, tmp_path):
    for name in ("a", "b"):
        write_packed(tmp_path / name, "x", pack(dict(sorted(values.items(), reverse=name == "b"))))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_files_have_no_description(tmp_path):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "plain.safetensors")
    assert read_description(tmp_path / "plain.safetensors") is None


def test_damaged_files(values, tmp_path):
    path = tmp_path / "m.safetensors"
    write_packed(path, "x", pack(values))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="perhaps cut short"):
        read_description(path)
    with pytest.raises(UserError, match="damaged"):
        read_packed(path)
    stored = pack(values)
    del stored["matrix.scale"]
    write_packed(path, "x", stored)
    with pytest.raises(UserError, match=r"damaged: 'matrix\.scale'"):
        read_packed(path)


def test_a_place_that_cannot_be(values, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_packed(tmp_path / "file" / "m.safetensors", "x", pack(values))
