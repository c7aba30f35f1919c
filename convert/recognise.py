"""Tells the network's size from the shapes of a checkpoint's tensors."""

import re
from collections import Counter
from collections.abc import Mapping
from itertools import groupby

from convert.names import Shape
from ruac_jax.errors import UserError
from ruac_jax.sam2.variants import VARIANTS, Variant

# Tensors whose first axis is a block's width; most votes win, so that one bad tensor is reported as such later on.
_WIDTH = re.compile(
    r"image_encoder\.trunk\.blocks\.(\d+)\.(?:norm2\.weight|norm2\.bias|attn\.proj\.bias|mlp\.layers\.1\.bias)"
)


def recognise(shapes: Mapping[str, Shape]) -> Variant:
    """Finds the variant with the same trunk: width of the first block and number of blocks at each width.

    Args:
      shapes: shape of every tensor by PyTorch name.

    Raises:
      UserError: no trunk at all, or one that no variant has; lists what was found and what is known.
    """
    votes: dict[int, Counter[int]] = {}
    for name, shape in shapes.items():
        if (match := _WIDTH.fullmatch(name)) and len(shape) == 1:
            votes.setdefault(int(match[1]), Counter())[shape[0]] += 1
    if not votes:
        names = ", ".join(sorted({name.split(".")[0] for name in shapes})[:8])
        raise UserError(f"not a SAM2 checkpoint: no tensors image_encoder.trunk.blocks.*; names begin with {names}")
    widths = [votes[block].most_common(1)[0][0] for block in sorted(votes)]
    stages = tuple(len(list(blocks)) for _, blocks in groupby(widths))
    for variant in VARIANTS.values():
        if (variant.embed_dim, variant.stages) == (widths[0], stages):
            return variant
    background = shapes.get("image_encoder.trunk.pos_embed", ())
    window = shapes.get("image_encoder.trunk.pos_embed_window", ())
    known = "\n".join(f"  {v.name}: embedding {v.embed_dim}, stages {v.stages}" for v in VARIANTS.values())
    raise UserError(
        f"unknown size of SAM2: embedding {widths[0]}, stages {stages}, "
        f"background position map {background[2:]}, window position map {window[2:]}; known are\n{known}"
    )
