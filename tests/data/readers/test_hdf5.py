import pickle
from functools import partial

import h5py
import numpy as np
import pytest

from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.readers.hdf5 import read_masks

from ...real_data import real_data

SIZE = (24, 32)


def write_map(file, values, key="dataset", **options):
    with h5py.File(file, "w") as content:
        content.create_dataset(key, data=values, **options)
    return file


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "chunks": (8, 8)}])
def test_one_mask_per_number_by_rising_number(tmp_path, dtype, options):
    values = np.full(SIZE, -1, dtype)
    values[2:9, 3:12], values[10:, 20:], values[0, 0] = 4166, 1, 300
    masks = read_masks(write_map(tmp_path / "map.hdf5", values, **options), SIZE)
    np.testing.assert_array_equal(masks[:], [values == 1, values == 300, values == 4166])


def test_more_objects_than_a_byte_can_number(tmp_path):
    values = np.arange(24 * 32, dtype=np.int16).reshape(SIZE) + 1
    masks = read_masks(write_map(tmp_path / "map.hdf5", values), SIZE)
    assert len(masks) == 768
    np.testing.assert_array_equal(np.argmax(masks[:].reshape(768, -1), axis=1), np.arange(768))
    assert (masks.areas() == 1).all()


def test_no_object(tmp_path):
    file = write_map(tmp_path / "map.hdf5", np.full(SIZE, -1, np.int16))
    assert read_masks(file, SIZE).shape == (0, *SIZE)
    assert pickle.loads(pickle.dumps(partial(read_masks, file)))(SIZE).shape == (0, *SIZE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((32, 24), -1, np.int16), "24x32 px, its image is 32x24"),
        (np.full(SIZE, -2, np.int16), "expected -1 for no object and numbers from 1, found -2"),
        (np.zeros(SIZE, np.int16), "found 0"),
        (np.ones(SIZE, np.float16), r"expected a map of signed integers, found \(24, 32\) of float16"),
        (np.ones((*SIZE, 1), np.int16), r"found \(24, 32, 1\) of int16"),
        (np.int16(1), r"found \(\) of int16"),
        ("text", r"found \(\) of"),
    ],
)
def test_other_contents_are_bad_files(tmp_path, values, message):
    file = write_map(tmp_path / "map.hdf5", values)
    with pytest.raises(BadFileError, match=f"map.hdf5: .*({message})"):
        read_masks(file, SIZE)


def test_unreadable_files_are_bad_files(tmp_path):
    values = np.random.default_rng(0).integers(1, 999, SIZE).astype(np.int16)
    file = write_map(tmp_path / "map.hdf5", values, compression="gzip", chunks=(8, 8))
    data = file.read_bytes()
    for broken in (data[: len(data) // 2], data[:100], b"", b"not HDF5", data.replace(b"dataset\0", b"datatet\0")):
        assert broken != data
        file.write_bytes(broken)
        with pytest.raises(BadFileError, match=r"map\.hdf5: not a readable HDF5 file with an array 'dataset'"):
            read_masks(file, SIZE)
    with pytest.raises(BadFileError, match="not a readable"):
        read_masks(tmp_path / "missing.hdf5", SIZE)
    with h5py.File(file, "w") as content:
        content.create_group("dataset")
    with pytest.raises(BadFileError, match="not a readable"):
        read_masks(file, SIZE)


def test_a_published_map_of_another_kind_is_read_and_refused():
    scene = real_data("format_fixtures/hypersim") / "contrib/mikeroberts3000/jupyter/ai_037_002/images"
    file = scene / "scene_cam_00_geometry_hdf5" / "frame.0000.depth_meters.hdf5"
    with pytest.raises(BadFileError, match=r"expected a map of signed integers, found \(768, 1024\) of float16"):
        read_masks(file, (768, 1024))
