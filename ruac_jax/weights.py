"""Saves and loads a model: its variant, its head, its parameters and where they came from. Knows nothing of training.

A saved model is a folder: `metadata.json`; `parameters/`, an Orbax checkpoint of the model's arrays under their paths;
and, for a converted SAM2, `carried.safetensors`: the tensors that only SAM2's video path uses, for the way back.
Or it is one file, smaller and rounded, see `ruac_jax.packed`: the metadata are in its header, nothing is carried.
"""

import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from safetensors.numpy import load_file, save_file

from ruac_jax import folders
from ruac_jax.errors import UserError
from ruac_jax.folders import new_folder
from ruac_jax.heads.evidential import EvidentialHead
from ruac_jax.heads.hypernetwork import SAM2_PREFIX, HypernetworkHead
from ruac_jax.heads.weibull import WeibullHead
from ruac_jax.model import SAM2
from ruac_jax.packed import pack, read_description, read_packed, unpack, write_packed
from ruac_jax.sam2.variants import variant

LeafPath = tuple[str | int, ...]

FORMAT_VERSION = 1
HEADS = {"hypernetwork": HypernetworkHead, "weibull": WeibullHead, "evidential": EvidentialHead}


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """What a saved model is.

    Attributes:
      variant: name of the network's size, see `ruac_jax.sam2.variants`.
      head: name of the head, a key of `HEADS`.
      head_settings: the head's own constructor arguments, where they differ from the defaults.
      sam2_version: "2.0" or "2.1" for weights that came from SAM2.
      source: name of the file or run that the weights came from.
      source_sha256: SHA-256 of that file.
      fingerprint: of the parameters, see `fingerprint`.
      carried: names of the SAM2 tensors kept beside the parameters.
      format_version: of the folder's layout.
    """

    variant: str
    head: str
    head_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    sam2_version: str | None = None
    source: str | None = None
    source_sha256: str | None = None
    fingerprint: str = ""
    carried: tuple[str, ...] = ()
    format_version: int = FORMAT_VERSION


def create_model(
    variant_name: str, head_name: str, head_settings: Mapping[str, Any] | None = None, *, rngs: nnx.Rngs
) -> SAM2:
    """Builds a network with random weights.

    Args:
      variant_name: a key of `ruac_jax.sam2.variants.VARIANTS`.
      head_name: a key of `HEADS`.
      head_settings: the head's own constructor arguments.
      rngs: for the initial weights.

    Raises:
      ValueError: no such variant or head; names the nearest one.
    """
    size = variant(variant_name)
    if head_name not in HEADS:
        near = difflib.get_close_matches(head_name, HEADS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(HEADS)}"
        raise ValueError(f"unknown head {head_name!r}; {hint}")
    # JSON knows no tuples, and a head's settings have to be hashable.
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in (head_settings or {}).items()}
    head = HEADS[head_name](size.d_model, **settings, rngs=rngs)
    return SAM2(size, head, rngs=rngs)


def abstract_model(variant_name: str, head_name: str, head_settings: Mapping[str, Any] | None = None) -> SAM2:
    """Builds a network of shapes without memory behind them; arguments and errors as in `create_model`."""
    return nnx.eval_shape(lambda: create_model(variant_name, head_name, head_settings, rngs=_OneKey(0)))


class _OneKey(nnx.Rngs):
    """One key again and again: where only shapes matter, counting keys takes most of the time."""

    def params(self) -> jax.Array:
        return self.default.key[...]


def replace_head(
    model: SAM2,
    metadata: ModelMetadata,
    carried: Mapping[str, np.ndarray],
    head_name: str,
    head_settings: Mapping[str, Any],
    *,
    rngs: nnx.Rngs,
) -> tuple[SAM2, ModelMetadata, dict[str, np.ndarray]]:
    """Gives a model another kind of head, in place.

    SAM2's own mask head stays where the old and the new kind both contain it; where only the old one does, its tensors
    are carried along for the way back. All else of the new head is fresh.

    Args:
      model: the network.
      metadata: what it is.
      carried: SAM2 tensors kept beside its parameters.
      head_name: a key of `HEADS`.
      head_settings: the new head's own constructor arguments.
      rngs: for its initial weights.

    Returns:
      The model, what it is now, and the tensors to keep beside it.
    """
    old, new = model.head, HEADS[head_name](variant(metadata.variant).d_model, **head_settings, rngs=rngs)
    carried = {name: array for name, array in carried.items() if not name.startswith(SAM2_PREFIX)}
    if isinstance(old, HypernetworkHead):
        if isinstance(new, HypernetworkHead):
            new.output_hypernetworks_mlps = old.output_hypernetworks_mlps
        else:
            carried |= old.sam2_tensors()
    model.head = new
    return model, dataclasses.replace(metadata, head=head_name, head_settings=dict(head_settings)), carried


def leaves(model: SAM2) -> dict[LeafPath, Any]:
    """All arrays of a model (or their shapes, for an abstract one) by path."""
    return {tuple(path): variable.get_value() for path, variable in nnx.to_flat_state(nnx.state(model))}


def with_leaves(model: SAM2, values: Mapping[LeafPath, Any]) -> SAM2:
    """A model like `model` (which may be abstract) holding `values`, which has to have every path."""
    graph, state = nnx.split(model)
    nnx.replace_by_pure_dict(state, _nested(values))
    return nnx.merge(graph, state)


def fingerprint(values: Mapping[LeafPath, Any]) -> str:
    """SHA-256 over the paths, types, shapes and bytes of all arrays, in the order of their dotted paths."""
    digest = hashlib.sha256()
    for name, array in sorted((_dotted(path), np.asarray(value)) for path, value in values.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def save_model(
    directory: str | os.PathLike[str],
    model: SAM2,
    metadata: ModelMetadata,
    carried: Mapping[str, np.ndarray] | None = None,
    *,
    overwrite: bool = False,
) -> ModelMetadata:
    """Writes a model, all or nothing. With several processes one of them calls it.

    Args:
      directory: the folder to make.
      model: the network; every array has to be whole on this process. Written as float32.
      metadata: what it is; `fingerprint`, `carried` and `format_version` are filled in.
      carried: SAM2 tensors to keep beside the parameters, in PyTorch's layout.
      overwrite: replace a model that is there.

    Returns:
      The metadata as written.

    Raises:
      UserError: the folder exists and may not be replaced.
    """
    target = Path(directory).absolute()
    check_output(target, overwrite)
    values = {path: np.asarray(value, np.float32) for path, value in leaves(model).items()}
    carried = dict(carried or {})
    metadata = dataclasses.replace(
        metadata, fingerprint=fingerprint(values), carried=tuple(sorted(carried)), format_version=FORMAT_VERSION
    )
    with new_folder(target) as folder:
        with _checkpointer() as checkpointer:
            checkpointer.save(folder / "parameters", _nested({_keys(path): value for path, value in values.items()}))
        if carried:
            save_file(
                {name: np.ascontiguousarray(array) for name, array in carried.items()}, folder / "carried.safetensors"
            )
        (folder / "metadata.json").write_text(json.dumps(dataclasses.asdict(metadata), indent=2) + "\n")
    return metadata


def check_output(directory: str | os.PathLike[str], overwrite: bool) -> None:
    """Fails early where `save_model` would fail.

    Raises:
      UserError: something is there that may not be replaced; with `overwrite`, a saved model may.
    """
    folders.check_output(Path(directory), overwrite=overwrite, marker="metadata.json", what="a saved model")


def packed_model(model: SAM2) -> tuple[SAM2, dict[str, np.ndarray]]:
    """Rounds a network as a packed file does.

    Returns:
      The rounded network, and the arrays that such a file stores, by name.

    Raises:
      UserError: a parameter is not finite.
    """
    values = {path: np.asarray(value, np.float32) for path, value in leaves(model).items()}
    try:
        stored = pack({_dotted(path): value for path, value in values.items()})
    except ValueError as error:
        raise UserError(f"cannot pack the model: {error}") from error
    rounded = unpack(stored)
    return with_leaves(model, {path: jnp.asarray(rounded[_dotted(path)]) for path in values}), stored


def save_packed(
    file: str | os.PathLike[str], rounded: SAM2, stored: Mapping[str, np.ndarray], metadata: ModelMetadata
) -> ModelMetadata:
    """Writes what `packed_model` gave as one file, all or nothing; replaces a file that is there.

    Returns:
      The metadata as written: its fingerprint is of the rounded parameters, and nothing is carried.

    Raises:
      UserError: there can be no such file.
    """
    written = dataclasses.replace(
        metadata, fingerprint=fingerprint(leaves(rounded)), carried=(), format_version=FORMAT_VERSION
    )
    write_packed(Path(file), json.dumps(dataclasses.asdict(written)), stored)
    return written


def load_model(directory: str | os.PathLike[str]) -> tuple[SAM2, ModelMetadata]:
    """Reads a model, a folder or a packed file, onto the default device.

    Raises:
      UserError: nothing there, not a saved model, made by a newer version, other arrays than the network has, or
        damaged.
    """
    path = Path(directory).absolute()
    metadata = load_metadata(path)
    try:
        model = abstract_model(metadata.variant, metadata.head, metadata.head_settings)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot build the model it describes: {error}") from error
    values = _unpacked(path, leaves(model)) if path.is_file() else _restore(path / "parameters", leaves(model))
    if fingerprint(values) != metadata.fingerprint:
        raise UserError(f"{path}: damaged: the parameters are not those that were saved (fingerprint differs)")
    return with_leaves(model, values), metadata


def _unpacked(path: Path, expected: Mapping[LeafPath, Any]) -> dict[LeafPath, jax.Array]:
    values = read_packed(path)
    _compare(
        path,
        {_dotted(leaf): value.shape for leaf, value in expected.items()},
        {name: value.shape for name, value in values.items()},
    )
    return {leaf: jax.device_put(values[_dotted(leaf)], jax.local_devices()[0]) for leaf in expected}


def _restore(path: Path, expected: Mapping[LeafPath, Any]) -> dict[LeafPath, jax.Array]:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = {
        _keys(leaf): jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=device) for leaf, value in expected.items()
    }
    if not path.is_dir():
        raise UserError(f"{path}: missing; expected the parameters of the model")
    try:
        with _checkpointer() as checkpointer:
            description = checkpointer.metadata(path).item_metadata
            if description is None:
                raise UserError(f"{path}: damaged: its list of arrays cannot be read")
            found = {item.name: item.shape for item in jax.tree.leaves(description.tree)}
            _compare(path, {_dotted(leaf): value.shape for leaf, value in expected.items()}, found)
            restored = dict(_flat(checkpointer.restore(path, _nested(target))))
    except UserError:
        raise
    except Exception as error:  # Orbax raises nothing narrower for a file that it cannot decode
        what = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path}: damaged: {what}") from error
    return {leaf: restored[_keys(leaf)] for leaf in expected}


def load_metadata(directory: str | os.PathLike[str]) -> ModelMetadata:
    """Reads what a saved model, a folder or a packed file, is.

    Raises:
      UserError: nothing there, not a saved model, or made by a newer version.
    """
    path = Path(directory)
    if not path.exists():
        raise UserError(
            f"{path}: no such folder; expected a model saved by this project; "
            "`python -m convert.sam2_to_flax` makes one from a SAM2 checkpoint"
        )
    try:
        content = json.loads(_description(path))
        version = content["format_version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise UserError(f"{path}: saved in format {version}, newer than {FORMAT_VERSION}; update ruac_jax")
        return ModelMetadata(**{**content, "carried": tuple(content["carried"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a model saved by this project (metadata.json is missing or damaged)") from error


def _description(path: Path) -> str:
    if path.is_dir():
        return (path / "metadata.json").read_text()
    text = read_description(path)
    if text is None:
        raise UserError(f"{path}: not a model packed by this project (its header does not say what it is)")
    return text


def load_carried(directory: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the SAM2 tensors kept beside a model's parameters; empty where there are none, as for a packed file."""
    path = Path(directory) / "carried.safetensors"
    return load_file(path) if path.exists() else {}


def _compare(directory: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    problems = [f"  missing {name} {expected[name]}" for name in sorted(expected.keys() - found.keys())]
    problems += [f"  unexpected {name} {found[name]}" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"  {name}: expected {expected[name]}, found {found[name]}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(expected[name]) != tuple(found[name])
    ]
    if problems:
        raise UserError("\n".join([f"{directory}: the parameters do not fit the network:", *problems]))


def _checkpointer() -> ocp.StandardCheckpointer:
    # Each process for itself: a barrier would wait for processes that do not save.
    process = jax.process_index()
    return ocp.StandardCheckpointer(
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"weights_{process}"
        )
    )


def _dotted(path: LeafPath) -> str:
    return ".".join(str(part) for part in path)


def _keys(path: LeafPath) -> tuple[str, ...]:
    return tuple(str(part) for part in path)  # Orbax would turn whole numbers into strings anyway


def _nested(values: Mapping[LeafPath, Any]) -> dict[str | int, Any]:
    tree: dict[str | int, Any] = {}
    for path, value in values.items():
        branch = tree
        for part in path[:-1]:
            branch = branch.setdefault(part, {})
        branch[path[-1]] = value
    return tree


def _flat(tree: Mapping[str | int, Any], start: LeafPath = ()) -> Iterator[tuple[LeafPath, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, (*start, key))
        else:
            yield (*start, key), value
