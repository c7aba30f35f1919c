"""Maps of object numbers in HDF5 files with one array named `dataset`, as Hypersim stores them."""

from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Bool, Int, Int64

from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.readers.label_map import check_size, encode_labels

_KEY = "dataset"


def read_masks(file: Path, size: tuple[int, int]) -> RunLengthMasks:
    """One mask per object by rising number; numbers are from 1, and -1 means no object.

    Args:
      file: holds signed integers of shape [h w].
      size: the image's height and width.

    Raises:
      BadFileError: unreadable or truncated, other contents, another size than the image.
    """
    numbers = _read_map(file)
    check_size(file, numbers.shape, size)
    try:
        return encode_labels(numbers, _is_object)
    except ValueError as error:
        raise BadFileError(f"{file}: {error}") from error


def _is_object(values: Int64[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    unknown = values[(values < 1) & (values != -1)]
    if len(unknown):
        raise ValueError(f"expected -1 for no object and numbers from 1, found {unknown[0]}")
    return values > 0


def _read_map(file: Path) -> Int[np.ndarray, "h w"]:
    try:
        with h5py.File(file, "r") as content:
            numbers = np.asarray(content[_KEY][()])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise BadFileError(f"{file}: not a readable HDF5 file with an array {_KEY!r} ({error})") from error
    if numbers.ndim != 2 or not np.issubdtype(numbers.dtype, np.signedinteger):
        raise BadFileError(f"{file}: expected a map of signed integers, found {numbers.shape} of {numbers.dtype}")
    return numbers
