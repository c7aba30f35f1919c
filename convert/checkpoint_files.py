"""Reads and writes `.safetensors` and PyTorch `.pt` files of named tensors; only `.pt` needs torch.

Every way a file can be bad ends in one `UserError`. A `.pt` file is a pickle: it is read with `weights_only=True`, so
nothing in it can run.
"""

import hashlib
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ruac_jax.errors import UserError

PYTORCH_SUFFIXES = (".pt", ".pth", ".bin")
SUFFIXES = (".safetensors", *PYTORCH_SUFFIXES)
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


class SourceFile(NamedTuple):
    """What a file holds.

    Attributes:
      tensors: float32 arrays by name, in PyTorch's layout.
      casts: how many tensors had another floating type, by that type's name.
      sha256: of the file's bytes.
      size: of the file in bytes.
    """

    tensors: dict[str, np.ndarray]
    casts: dict[str, int]
    sha256: str
    size: int


def read(path: Path) -> SourceFile:
    """Reads all tensors of a file.

    Args:
      path: a `.safetensors` file, or a `.pt` file holding `{"model": tensors}` or the tensors themselves.

    Raises:
      UserError: the file is missing, cut short, no checkpoint, holds code or something that is not a real number,
        or is a `.pt` while torch is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of file; expected one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    arrays = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pytorch(path)
    if not arrays:
        raise UserError(f"{path}: holds no tensors")
    odd = sorted(f"  {name}: {array.dtype}" for name, array in arrays.items() if array.dtype not in _FLOATS)
    if odd:
        raise UserError("\n".join([f"{path}: tensors that are not floating-point:", *odd]))
    casts: dict[str, int] = {}
    for array in arrays.values():
        if array.dtype != np.float32:
            casts[array.dtype.name] = casts.get(array.dtype.name, 0) + 1
    tensors = {name: np.asarray(array, np.float32) for name, array in without_wrapper(arrays).items()}
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceFile(tensors, casts, sha256, path.stat().st_size)


def without_wrapper(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes `module.` and `model.` from the front of the names as long as all of them share it."""
    for prefix in ("module.", "model."):
        if all(name.startswith(prefix) for name in arrays):
            return without_wrapper({name.removeprefix(prefix): array for name, array in arrays.items()})
    return dict(arrays)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file, perhaps cut short ({error})") from error


def import_torch(need: str) -> Any:
    """Imports torch, an optional dependency.

    Args:
      need: what it is needed for, as the start of the error's sentence.

    Raises:
      UserError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{need} needs torch, which is not installed: `pip install torch==2.13.0` (the CPU build is enough), "
            "or use a .safetensors file, which needs none"
        ) from error
    return torch


def _read_pytorch(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04" and not zipfile.is_zipfile(path):
        raise UserError(f"{path}: the file is cut short; download or copy it again")
    if not start.startswith((b"PK\x03\x04", b"\x80")):
        raise UserError(f"{path}: not a PyTorch checkpoint")
    torch = import_torch(f"{path}: reading a {path.suffix} file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        names = re.findall(r"GLOBAL (\S+)", str(error))
        what = f" ({names[0]})" if names else ""
        raise UserError(
            f"{path}: refused, because it is damaged or holds Python objects{what} beside tensors, "
            "and loading those could run code"
        ) from error
    except Exception as error:  # the unpickler fails with whatever the missing bytes happen to break
        raise UserError(f"{path}: not a readable PyTorch checkpoint, perhaps cut short") from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: holds a {type(content).__name__}, expected named tensors or {{'model': named tensors}}"
        )
    others = [f"  {name}: {type(value).__name__}" for name, value in content.items() if not torch.is_tensor(value)]
    if others:
        raise UserError("\n".join([f"{path}: entries that are not tensors:", *others]))
    return {str(name): _to_numpy(torch, value) for name, value in content.items()}


def _to_numpy(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:  # numpy has no such type of its own
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def write(path: Path, tensors: Mapping[str, np.ndarray], overwrite: bool = False) -> None:
    """Writes tensors, all or nothing.

    Args:
      path: `.safetensors`, or `.pt` for `{"model": tensors}`.
      tensors: arrays by name, in PyTorch's layout.
      overwrite: replace a file that is there.

    Raises:
      UserError: unknown suffix, the file exists, or torch is missing for `.pt`.
    """
    check_output(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        if path.suffix == ".safetensors":
            save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, unfinished)
        else:
            torch = import_torch(f"{path}: writing a {path.suffix} file")
            torch.save({"model": {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}}, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def check_output(path: Path, overwrite: bool) -> None:
    """Fails early where `write` would fail.

    Raises:
      UserError: unknown suffix, or the file exists and may not be replaced.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of file; expected one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise UserError(f"{path}: is a directory, expected a file name")
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists already; --overwrite replaces it")
