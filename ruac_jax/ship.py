"""Packs a model into one small file: `python -m ruac_jax.ship --checkpoint MODEL --output FILE.safetensors`.

Also puts the file's SHA-256 into `SHA256SUMS` beside it. A file in `ruac_jax/shipped` comes with the package, under its
name without the ending (docs/checkpoints.md).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from ruac_jax.data.shapes import ShapesSource
from ruac_jax.errors import UserError, run_main
from ruac_jax.hub import find_checkpoint
from ruac_jax.model import SAM2
from ruac_jax.packed import SUFFIX
from ruac_jax.predictor import Predictor
from ruac_jax.sums import SUMS, add_sum
from ruac_jax.weights import load_model, packed_model, save_packed

LIMIT = 1e-2
_DOMAINS = ("source", "xray", "lowlight")
_IMAGES = 4  # of each domain


def ship(checkpoint: Path, output: Path, *, overwrite: bool = False) -> str:
    """Packs a saved model.

    Args:
      checkpoint: folder of the model.
      output: the file, `.safetensors`.
      overwrite: replace a file that is there.

    Returns:
      A summary.

    Raises:
      UserError: no model, no such output, or the rounding moves a logit by more than `LIMIT`; then nothing is written.
    """
    if output.suffix != SUFFIX:
        raise UserError(f"{output}: expected a name that ends in {SUFFIX}")
    if output.exists() and not overwrite:
        raise UserError(f"{output}: exists already; --overwrite replaces it")
    model, metadata = load_model(checkpoint)
    rounded, stored = packed_model(model)
    difference = logit_difference(model, rounded)
    if difference > LIMIT:
        raise UserError(f"{checkpoint}: rounded to 16 bits, its logits differ by {difference:.2g}, over {LIMIT:g}")
    written = save_packed(output, rounded, stored, metadata)
    left = f"\n  left out     {len(metadata.carried)} tensors of SAM2's video path" if metadata.carried else ""
    return (
        f"{checkpoint} -> {output}\n"
        f"  model        {written.variant}, {written.head} head\n"
        f"  size         {output.stat().st_size:,} bytes\n"
        f"  logits       differ by {difference:.2g} at most ({_IMAGES} generated images of each of "
        f"{', '.join(_DOMAINS)})\n"
        f"  fingerprint  {written.fingerprint}, from {metadata.fingerprint}\n"
        f"  SHA-256      {add_sum(output)}, in {output.with_name(SUMS)}" + left
    )


def logit_difference(first: SAM2, second: SAM2) -> float:
    """Largest difference of two networks' mask logits: one click on each object of generated images.

    All three masks of a click are compared: choosing one comes after, and a rounding error can tip a close choice.
    """
    predictors = [Predictor(model) for model in (first, second)]
    largest = 0.0
    for domain in _DOMAINS:
        source = ShapesSource(domain, "validation", size=predictors[0].image_size, num_images=_IMAGES)
        for record in source:
            for predictor in predictors:
                predictor.set_image(record["image"])
            clicks = np.stack([_inside(mask) for mask in record["masks"] if mask.any()])[:, None]
            answers = [p.predict(clicks, np.ones(clicks.shape[:2], int), return_logits=True) for p in predictors]
            largest = max(largest, float(np.abs(answers[0].masks - answers[1].masks).max()))
    return largest


def _inside(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns[len(rows) // 2], rows[len(rows) // 2]], np.float32)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv
    options = flags.FLAGS
    if not (options.checkpoint and options.output):
        raise UserError("both --checkpoint MODEL and --output FILE are needed")
    print(ship(find_checkpoint(options.checkpoint), Path(options.output), overwrite=options.overwrite))


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", None, "folder or name of a model")
    flags.DEFINE_string("output", None, "file to write, .safetensors")
    flags.DEFINE_bool("overwrite", False, "replace the output if it exists")
    run_main(main)
