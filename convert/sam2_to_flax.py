"""Converts a SAM2 checkpoint to a model of this project.

    python -m convert.sam2_to_flax --checkpoint FILE --output DIR [--verify] [--overwrite]

FILE is a `.pt` or `.safetensors` file of SAM2.0 or SAM2.1 in any size, of a model fine-tuned here and exported, or the
published RUAC weights. Without arguments: `DEFAULT_CHECKPOINT` to `DEFAULT_OUTPUT`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags, logging
from tqdm import tqdm

from convert.carried import CARRIED, CARRIED_WITH_WEIBULL, DROPPED, carried_shapes, reason, sam2_version
from convert.checkpoint_files import SourceFile, read
from convert.head_tensors import match_head
from convert.names import (
    CLASS_BIAS,
    EVIDENTIAL_PREFIX,
    HYPERNETWORK_PREFIX,
    WEIBULL_PREFIX,
    Entry,
    Shape,
    table_of,
    to_flax,
)
from convert.recognise import recognise
from ruac_jax.errors import UserError, run_main
from ruac_jax.model import SAM2
from ruac_jax.weights import ModelMetadata, abstract_model, check_output, leaves, save_model, with_leaves

DEFAULT_OUTPUT = "checkpoints/sam2.1_hiera_base_plus"
DEFAULT_CHECKPOINT = f"{DEFAULT_OUTPUT}.pt"


class Conversion(NamedTuple):
    """A checkpoint's content, sorted.

    Attributes:
      model: the network holding the checkpoint's weights (numpy arrays).
      metadata: what it is; names no source yet.
      carried: tensors to keep for the way back, in PyTorch's layout.
      dropped: names of tensors left out, and why.
      notes: what else the user ought to know.
    """

    model: SAM2
    metadata: ModelMetadata
    carried: dict[str, np.ndarray]
    dropped: dict[str, str]
    notes: list[str]


def convert_tensors(tensors: Mapping[str, np.ndarray]) -> Conversion:
    """Converts a checkpoint's tensors.

    Args:
      tensors: float32 arrays by PyTorch name, in PyTorch's layout.

    Raises:
      UserError: unknown size; or missing, unexpected, wrongly shaped or ambiguous tensors, all of them listed.
    """
    dropped = {name: why for name in tensors if (why := reason(name, DROPPED))}
    tensors = {name: array for name, array in tensors.items() if name not in dropped}
    variant = recognise({name: array.shape for name, array in tensors.items()})
    version = sam2_version(set(tensors))
    marks = {"weibull": WEIBULL_PREFIX, "evidential": EVIDENTIAL_PREFIX}
    present = [head for head, prefix in marks.items() if any(name.startswith(prefix) for name in tensors)]
    head = next(iter(present), "hypernetwork")
    settings: dict[str, bool] = {}
    carried = carried_shapes(version, variant.d_model, variant.memory_dim)
    notes = []
    if head == "weibull":
        tensors, class_bias = _rename_head(tensors, _shapes(table_of(variant.name, head)))
        if class_bias is not None:
            settings = {"class_bias": True}
            notes.append(f"class bias {class_bias}: taken as (foreground, background)")
        if any(name.startswith(HYPERNETWORK_PREFIX) for name in tensors):
            hypernetwork = _shapes(table_of(variant.name, "hypernetwork"))
            carried |= {name: shape for name, shape in hypernetwork.items() if name.startswith(HYPERNETWORK_PREFIX)}
    if version is None:
        notes.append("no tensors of SAM2's video path: an export loads only where they are not needed")
    entries = table_of(variant.name, head, settings)
    _compare({name: array.shape for name, array in tensors.items()}, _shapes(entries) | carried)
    progress = tqdm(entries.items(), desc="converting", unit="tensor")
    values = {found.path: to_flax(tensors[name], found) for name, found in progress}
    metadata = ModelMetadata(variant=variant.name, head=head, head_settings=settings, sam2_version=version)
    model = with_leaves(abstract_model(variant.name, head, settings), values)
    return Conversion(model, metadata, {name: tensors[name] for name in sorted(carried)}, dropped, notes)


def _shapes(entries: Mapping[str, Entry]) -> dict[str, Shape]:
    return {name: found.torch_shape for name, found in entries.items()}


def _rename_head(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, Shape]
) -> tuple[dict[str, np.ndarray], str | None]:
    """Gives the head's tensors our names; also returns what the file called its class bias, None without one."""
    ours = {name: shape for name, shape in expected.items() if name.startswith(WEIBULL_PREFIX)}
    theirs = {name: array.shape for name, array in tensors.items() if name.startswith(WEIBULL_PREFIX)}
    names, class_biases = match_head(ours, theirs)
    renamed = {name: array for name, array in tensors.items() if name not in names}
    for name, new in names.items():
        array = tensors[name]
        same_size = array.size == np.prod(ours[new], dtype=int)
        renamed[new] = array.reshape(ours[new]) if name != new and same_size else array
    for name in class_biases:
        renamed[CLASS_BIAS] = renamed.pop(name).reshape(2)
    return renamed, next(iter(class_biases), None)


def _compare(found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    problems = [f"  missing: {name} {expected[name]}" for name in sorted(expected.keys() - found.keys())]
    problems += [f"  unexpected: {name} {found[name]}" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"  wrong shape: {name}: expected {expected[name]}, found {found[name]}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    if problems:
        raise UserError("\n".join([f"{len(problems)} tensors do not fit SAM2:", *problems]))


def convert_file(
    checkpoint: str | Path | None = None,
    output: str | Path | None = None,
    *,
    verify: bool = False,
    overwrite: bool = False,
    show: Callable[[str], None] = print,
) -> ModelMetadata:
    """Converts a file and shows a summary. Writes everything or nothing.

    Args:
      checkpoint: the file; `DEFAULT_CHECKPOINT` if not given.
      output: the folder to make; `checkpoint` without its ending if not given.
      verify: compare with PyTorch sam2 on a seeded image before writing.
      overwrite: replace a model that is there.
      show: gets the summary.

    Raises:
      UserError: anything wrong with the file, the output or the comparison.
    """
    start = time.monotonic()
    source = Path(checkpoint or DEFAULT_CHECKPOINT)
    if checkpoint is None and not source.exists():
        raise UserError(_how_to_get(source))
    target = Path(output) if output else source.with_suffix("")
    check_output(target, overwrite)
    file = read(source)
    conversion = convert_tensors(file.tensors)
    if verify:
        from convert.verify import verify_conversion  # needs torch and sam2

        verify_conversion(conversion.model, conversion.metadata, file.tensors)
    metadata = ModelMetadata(
        variant=conversion.metadata.variant,
        head=conversion.metadata.head,
        head_settings=conversion.metadata.head_settings,
        sam2_version=conversion.metadata.sam2_version,
        source=source.name,
        source_sha256=file.sha256,
    )
    metadata = save_model(target, conversion.model, metadata, conversion.carried, overwrite=overwrite)
    show(_summary(source, target, file, conversion, metadata, time.monotonic() - start))
    return metadata


def _how_to_get(source: Path) -> str:
    return (
        f"{source}: not here. Download {source.name} from SAM2's official project, facebookresearch/sam2 on GitHub "
        "(its README links the checkpoints, its checkpoints/download_ckpts.sh fetches them: "
        f"https://dl.fbaipublicfiles.com/segment_anything_2/092824/{source.name}), "
        f"put it at {source}, or name another file with --checkpoint"
    )


def _summary(
    source: Path, target: Path, file: SourceFile, conversion: Conversion, metadata: ModelMetadata, seconds: float
) -> str:
    arrays, carried = list(leaves(conversion.model).values()), conversion.carried
    version = f"SAM{metadata.sam2_version}" if metadata.sam2_version else "single-frame SAM2"
    lines = [
        f"{source} -> {target}",
        f"  model        {version}, {metadata.variant}, {metadata.head} head",
        f"  converted    {len(arrays)} tensors, {sum(a.size for a in arrays):,} values, "
        f"{sum(a.nbytes for a in arrays):,} bytes",
        f"  carried      {len(carried)} tensors, {sum(a.size for a in carried.values()):,} values",
        *_by_reason(carried, CARRIED | CARRIED_WITH_WEIBULL),
        f"  dropped      {len(conversion.dropped)} tensors",
        *_by_reason(conversion.dropped, DROPPED),
        *(f"  cast         {count} {kind} tensors to float32" for kind, count in file.casts.items()),
        f"  source       {file.size:,} bytes, SHA-256 {file.sha256}",
        f"  fingerprint  {metadata.fingerprint}",
        *(f"  note         {note}" for note in conversion.notes),
        f"  time         {seconds:.1f} s",
    ]
    return "\n".join(lines)


def _by_reason(names: Mapping[str, object], reasons: dict[str, str]) -> list[str]:
    counts = {prefix: sum(name.startswith(prefix) for name in names) for prefix in reasons}
    return [f"    {count:4d}  {prefix:44s} {reasons[prefix]}" for prefix, count in counts.items() if count]


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step it takes
    options = flags.FLAGS
    convert_file(options.checkpoint, options.output, verify=options.verify, overwrite=options.overwrite)


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", None, f"PyTorch checkpoint to convert (default: {DEFAULT_CHECKPOINT})")
    flags.DEFINE_string("output", None, "folder to write (default: the checkpoint's path without its ending)")
    flags.DEFINE_bool("verify", False, "compare with PyTorch sam2 on a seeded image; needs torch and sam2")
    flags.DEFINE_bool("overwrite", False, "replace the output if it exists")
    run_main(main)
