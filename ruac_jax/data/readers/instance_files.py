"""Objects kept one to a file: a black and white image for each."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Integer

from ruac_jax.data.dataset import BadFileError
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.readers.label_map import read_colours

# Which pixels are the object; raises ValueError with the reason if a mask cannot have such values.
Foreground = Callable[[Integer[np.ndarray, "h w"]], Bool[np.ndarray, "h w"]]


def above_zero(pixels: Integer[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The usual rule: black is ground, whatever stands for the object."""
    return pixels > 0


def read_instance_files(
    files: Sequence[Path], size: tuple[int, int], foreground: Foreground = above_zero
) -> RunLengthMasks:
    """One mask per file in the order given; files without a pixel of the object are left out.

    Raises:
      BadFileError: a file is missing, unreadable, truncated, of another size than (height, width), or has values that
        the rule rejects.
    """

    def masks() -> Iterator[Bool[np.ndarray, "h w"]]:
        for file in files:
            try:
                mask = foreground(read_colours(file, size))
            except ValueError as error:
                raise BadFileError(f"{file}: {error}") from error
            if mask.any():
                yield mask

    return RunLengthMasks.encode(size, masks())
