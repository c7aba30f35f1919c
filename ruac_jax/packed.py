"""One small file for one network: a `.safetensors` file of 16-bit parameters with what they are in its header.

A parameter of two or more axes is int16 times a float32 scale for each index of its last axis (a layer's output):

    scale = max |value| / 32767,   stored = round(value / scale),   read back = stored * scale

so that each value is off by half a scale at most. Vectors, a hundredth of the values, stay float32. A float16 spends
bits on an exponent that such values do not need, and is off ten times as much (docs/checkpoints.md).
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ruac_jax.errors import UserError

SUFFIX = ".safetensors"
_DESCRIPTION = "ruac_jax"  # key of the header's entry that tells such a file from others
_SCALE = ".scale"
_LARGEST = 32767


def pack(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rounds float32 arrays by name to what is stored.

    Raises:
      ValueError: a value is not finite.
    """
    stored = {}
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name} holds values that are not finite")
        if value.ndim < 2:
            stored[name] = np.ascontiguousarray(value, np.float32)
            continue
        scale = (np.abs(value).max(axis=tuple(range(value.ndim - 1))) / _LARGEST).astype(np.float32)
        scale = np.where(scale > 0, scale, np.float32(1))
        rounded = np.clip(np.round(value / scale), -_LARGEST, _LARGEST)
        stored[name], stored[name + _SCALE] = np.ascontiguousarray(rounded, np.int16), scale
    return stored


def unpack(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Float32 arrays by name from what is stored; bit for bit the same everywhere.

    Raises:
      KeyError: a scale is missing.
    """
    scales = {name + _SCALE for name, array in stored.items() if array.dtype == np.int16}
    return {
        name: array.astype(np.float32) * stored[name + _SCALE] if array.dtype == np.int16 else array
        for name, array in stored.items()
        if name not in scales
    }


def write_packed(path: Path, description: str, stored: Mapping[str, np.ndarray]) -> None:
    """Writes what `pack` gave, all or nothing; replaces what is there.

    Args:
      path: of the file.
      description: text for the header.
      stored: by name.

    Raises:
      UserError: there can be no such file.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(dict(stored), unfinished, metadata={_DESCRIPTION: description})
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {path}: {error}") from error


def read_description(path: Path) -> str | None:
    """The text in a file's header; None where the file is none of ours.

    Raises:
      UserError: not a safetensors file, or a damaged one.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get(_DESCRIPTION)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable safetensors file, perhaps cut short ({error})") from error


def read_packed(path: Path) -> dict[str, np.ndarray]:
    """Reads float32 arrays by name.

    Raises:
      UserError: not such a file, or a damaged one.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            return unpack({name: file.get_tensor(name) for name in names})
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path}: damaged: {error}") from error
