"""Metric states on disk: what a finished part of an evaluation leaves, to be resumed from, merged, computed again."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np

from ruac_jax.errors import UserError

State = TypeVar("State")
_IDENTITY = "identity"
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, BadZipFile)
Identity = dict[str, Any]


def save_state(file: Path, state: Any, identity: Identity) -> None:
    """Writes a state and what it is a state of; whole or not at all.

    A state is a nested dataclass, or mapping of such, of arrays and integers.
    """
    arrays = _flatten(state) | {_IDENTITY: np.array(json.dumps(identity, sort_keys=True))}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{os.getpid()}.{file.name}")
    with partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    partial.replace(file)


def load_state(file: Path, empty: State) -> tuple[State, Identity]:
    """Reads a state of the kind of `empty`, and its identity.

    Raises:
      UserError: damaged, or of a version with other fields.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return _restore(empty, arrays), json.loads(str(arrays[_IDENTITY]))
    except _UNREADABLE as error:
        raise UserError(
            f"{file}: not a readable state of an evaluation ({error}); delete it to compute it anew"
        ) from error


def load_identity(file: Path) -> Identity | None:
    """What a file is a state of; None where that cannot be told."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return json.loads(str(arrays[_IDENTITY]))
    except _UNREADABLE:
        return None


def _flatten(state: Any, prefix: str = "") -> dict[str, np.ndarray]:
    result = {}
    for field in dataclasses.fields(state):
        value, name = getattr(state, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            result |= _flatten(value, f"{name}.")
        elif isinstance(value, Mapping):
            for key, part in value.items():
                result |= _flatten(part, f"{name}.{key}.")
        else:  # integers may exceed 64 bits
            result[name] = value if isinstance(value, np.ndarray) else np.array(str(value))
    return result


def _restore(empty: Any, arrays: Any, prefix: str = "") -> Any:
    values = {}
    for field in dataclasses.fields(empty):
        value, name = getattr(empty, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            values[field.name] = _restore(value, arrays, f"{name}.")
        elif isinstance(value, Mapping):
            values[field.name] = {key: _restore(part, arrays, f"{name}.{key}.") for key, part in value.items()}
        else:
            values[field.name] = arrays[name] if isinstance(value, np.ndarray) else int(str(arrays[name]))
    return dataclasses.replace(empty, **values)
