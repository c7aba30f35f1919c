"""Prints how far this network is from PyTorch's sam2: `python -m tests.parity.measure --sizes tiny,large`.

Random weights that hit every parameter, one image at the size's own resolution, nine prompts of all kinds, float32.
The table is Markdown.
"""

import argparse
from typing import NamedTuple

import numpy as np

from ruac_jax.sam2.variants import Variant, variant
from tests.parity import oracle, scenes, weights


class Deviation(NamedTuple):
    """Differences from PyTorch. Relative ones are root mean squares, the others maxima of absolute values."""

    embedding: float
    high_res: float
    logits: float
    iou: float
    object_score: float
    pixels_flipped: int
    pixels: int
    largest_logit: float


def compare(size: Variant, seed: int = 0) -> Deviation:
    """Image to masks, with both networks, each on its own features."""
    image = scenes.images(size.image_size, seed=seed)
    prompts = scenes.prompts(size.image_size, seed=seed)
    rows = np.zeros(len(prompts.labels), int)

    reference = oracle.torch_model(size, seed)
    theirs = oracle.torch_encode(reference, image)
    truth = oracle.torch_decode(reference, theirs, prompts, rows)
    del reference

    model = weights.jax_model(size, seed=seed)
    ours = oracle.jax_encode(model, image)
    output = oracle.jax_decode(model, ours, prompts, rows)

    def largest(*names: str) -> float:
        return max(float(np.abs(getattr(output, n) - getattr(truth, n)).max()) for n in names)

    return Deviation(
        embedding=oracle.relative_rms(ours.embedding, theirs.embedding),
        high_res=max(oracle.relative_rms(a, b) for a, b in zip(ours[1:], theirs[1:], strict=True)),
        logits=largest("raw", "several", "single"),
        iou=largest("several_iou", "single_iou"),
        object_score=largest("object_score"),
        pixels_flipped=int(((output.raw > 0) != (truth.raw > 0)).sum()),
        pixels=truth.raw.size,
        largest_logit=float(np.abs(truth.raw).max()),
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="tiny,small,base_plus,large", help="comma-separated variants")
    parser.add_argument("--seeds", type=int, default=1, help="random networks per size")
    arguments = parser.parse_args()
    print("| size | seed | embedding, rel. RMS | stride 4 and 8, rel. RMS | logits, max | IoU, max |", end="")
    print(" object score, max | mask pixels flipped | largest logit |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.sizes.split(","):
        for seed in range(arguments.seeds):
            size = weights.REDUCED if name == weights.REDUCED.name else variant(name)
            d = compare(size, seed)
            print(f"| {name} | {seed} | {d.embedding:.1e} | {d.high_res:.1e} | {d.logits:.1e} | {d.iou:.1e} |", end="")
            print(f" {d.object_score:.1e} | {d.pixels_flipped} of {d.pixels} | {d.largest_logit:.1f} |", flush=True)


if __name__ == "__main__":
    main()
