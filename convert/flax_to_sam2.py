"""Converts a model of this project back to a PyTorch SAM2 checkpoint, bit for bit.

    python -m convert.flax_to_sam2 --checkpoint MODEL --output FILE [--overwrite]

MODEL is a folder or a name (docs/checkpoints.md). FILE ends in `.pt` (holding `{"model": tensors}`, needs torch) or
`.safetensors`. A Weibull head goes under `sam_mask_decoder.pixel_bndl.`, an evidential head's convolution under
`sam_mask_decoder.ur_ern_head.`; what conversion had carried comes back as it was.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags, logging
from tqdm import tqdm

from convert.checkpoint_files import check_output, write
from convert.names import table, to_torch
from ruac_jax.errors import UserError, run_main
from ruac_jax.hub import find_checkpoint
from ruac_jax.weights import leaves, load_carried, load_model


def sam2_tensors(directory: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a saved model by PyTorch name, in PyTorch's layout, float32.

    Raises:
      UserError: not a saved model, or a damaged one.
    """
    model, _ = load_model(directory)
    values = leaves(model)
    entries = table({path: value.shape for path, value in values.items()})
    progress = tqdm(entries.items(), desc="converting", unit="tensor")
    tensors = {name: to_torch(np.asarray(values[found.path]), found) for name, found in progress}
    return tensors | load_carried(directory)


def convert_directory(checkpoint: str | Path, output: str | Path, *, overwrite: bool = False) -> None:
    """Converts a saved model and prints a summary. Writes everything or nothing.

    Raises:
      UserError: anything wrong with the model or the output.
    """
    start = time.monotonic()
    check_output(Path(output), overwrite)
    tensors = sam2_tensors(checkpoint)
    write(Path(output), tensors, overwrite)
    print(
        f"{checkpoint} -> {output}\n"
        f"  {len(tensors)} tensors, {sum(array.size for array in tensors.values()):,} values, "
        f"{Path(output).stat().st_size:,} bytes, {time.monotonic() - start:.1f} s"
    )


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step it takes
    options = flags.FLAGS
    if not (options.checkpoint and options.output):
        raise UserError("both --checkpoint MODEL and --output FILE are needed")
    convert_directory(find_checkpoint(options.checkpoint), options.output, overwrite=options.overwrite)


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", None, "folder or name of a model (docs/checkpoints.md)")
    flags.DEFINE_string("output", None, "file to write, .pt or .safetensors")
    flags.DEFINE_bool("overwrite", False, "replace the output if it exists")
    run_main(main)
