"""What a dataset of original files has to say of itself, so that one command can prepare any of them.

A builder (`ruac_jax/data/builders`) describes its dataset by a `Dataset` whose `list_samples` walks the published
tree and returns one `Sample` per annotated image. Listing opens index files (JSON, split lists) but no image and no
mask; those are read later, sample by sample, in threads.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from zipfile import Path as ZipPath

from ruac_jax.data.masks import RunLengthMasks

Group = Literal["source", "objects", "scenes", "scientific", "egocentric"]  # table S6 of the paper


class BadFileError(Exception):
    """One file that cannot be used: its path and why."""


class Sample(NamedTuple):
    """An annotated image on disk.

    Attributes:
      image_id: unique in the split, independent of where the source lies; readable, e.g. `val/0001`.
      image: the file; of JPEG, PNG, TIFF or BMP.
      masks: called with the image's (height, width), reads the objects' masks in a fixed order. Raises `BadFileError`
        where the annotation is unreadable or does not fit that size.
      files: annotation files that `masks` depends on (index files included).
      clip: name of the video that it is a frame of; empty where there is none. Frames of a clip are listed in order
        of time, one after the other.
    """

    image_id: str
    image: Path | ZipPath
    masks: Callable[[tuple[int, int]], RunLengthMasks]
    files: tuple[Path, ...]
    clip: str = ""


class Listing(NamedTuple):
    """What a source folder offers."""

    samples: list[Sample]  # in the order of the prepared dataset: by name
    problems: list[str]  # files that cannot be used, each with its reason: "PATH: why"


class Counts(NamedTuple):
    """Images and masks of a split as published; None where not known."""

    images: int | None = None
    masks: int | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A published dataset.

    Attributes:
      name: what commands call it: lower case, digits and underscores.
      title: its own name and, in a few words, what it shows.
      group: the paper's group of domains.
      splits: name -> expected counts, as published.
      evaluation_split: the split that is judged unless another is named.
      license: terms of use, in a few words.
      download: where to get it, and whether it needs registration.
      layout: what `--source` has to hold, a line or a few.
      list_samples: (unpacked download, split) -> its samples. Raises `UserError` where the layout is not there.
      frames: "first" prepares only the first frame of each clip unless told otherwise, "all" every annotated frame.
      notes: what a user of the figures should know; empty or a sentence or two.
    """

    name: str
    title: str
    group: Group
    splits: Mapping[str, Counts]
    evaluation_split: str
    license: str
    download: str
    layout: str
    list_samples: Callable[[Path, str], Listing]
    frames: Literal["all", "first"] = "all"
    notes: str = ""


def first_frames(samples: list[Sample]) -> list[Sample]:
    """The first sample of each clip, and all samples without one."""
    seen: set[str] = set()
    kept = []
    for sample in samples:
        if not sample.clip or sample.clip not in seen:
            kept.append(sample)
        seen.add(sample.clip)
    return kept
