"""Names in listings: the order of images, and splits that exist."""

import re

from ruac_jax.data.dataset import Dataset
from ruac_jax.errors import UserError


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Sort key by which numbers in names count as numbers: `b2` before `b10`; total, as `b2` and `b02` differ."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def check_split(dataset: Dataset, split: str) -> None:
    """Checks that a dataset has a split.

    Raises:
      UserError: it has not; names those that it has.
    """
    if split not in dataset.splits:
        raise UserError(f"{dataset.name} has no split {split!r}; known are {', '.join(dataset.splits)}")
