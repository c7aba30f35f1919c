"""MOSE (and data in DAVIS's layout) as a TFDS dataset of frames, written and read without TensorFlow.

One record per annotated frame, in order of clip and frame. Each split is a builder config of its own, so that
splits are prepared and replaced one by one: `<data_dir>/mose/<split>/1.0.0`. Beside TFDS's files lies `index.json`:
which records make up which clip, and how many objects each has.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from ruac_jax.data.readers.video_frames import Frame, decode, encode_labels, read_clip_list
from ruac_jax.data.record import Record
from ruac_jax.errors import UserError

NAME, VERSION, INDEX = "mose", "1.0.0", "index.json"


class CheckedFrame(NamedTuple):
    """A frame known to be readable, and its number of objects."""

    frame: Frame
    objects: int


class Mose(tfds.core.GeneratorBasedBuilder):
    """Writes frames that `check_frame` has passed; JPEG bytes stay as published."""

    VERSION = tfds.core.Version(VERSION)
    name = NAME

    def __init__(self, *, frames: Sequence[CheckedFrame], progress: Callable[[Any], Any] = iter, **options: Any):
        """`progress` wraps the iteration over frames, e.g. in a bar; the rest goes to TFDS."""
        self._frames, self._progress = frames, progress
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "labels": tfds.features.Image(shape=(None, None, 1)),
            "clip": tfds.features.Text(),
            "frame": tfds.features.Text(),
            "image_id": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Complex video object segmentation (Ding et al., ICCV 2023): frames with object numbers.",
            features=tfds.features.FeaturesDict(features),
            homepage="https://mose.video",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        return {self.builder_config.name: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for frame, _ in self._progress(self._frames):
            key = f"{frame.clip}/{frame.name}"
            yield (
                key,
                {
                    "image": frame.image.read_bytes(),
                    "labels": encode_labels(frame.mask),
                    "clip": frame.clip,
                    "frame": frame.name,
                    "image_id": key,
                },
            )


def write_index(folder: Path, frames: Sequence[CheckedFrame], fingerprint: str) -> None:
    """Stores the clips' frames and object counts beside the records."""
    clips: dict[str, list[int]] = {}
    for frame, objects in frames:
        clips.setdefault(frame.clip, []).append(objects)
    (folder / INDEX).write_text(json.dumps({"fingerprint": fingerprint, "objects": clips}) + "\n")


class MoseSource:
    """Random access to the frames that have objects; `clips` lists, per clip, their indices in order of time."""

    def __init__(self, folder: Path, split: str, clips: Sequence[str] | None):
        """See `load_source`."""
        skip = tfds.decode.SkipDecoding()
        builder = tfds.builder_from_directory(folder)
        self._records = builder.as_data_source(split=split, decoders={"image": skip, "labels": skip})
        objects: dict[str, list[int]] = json.loads((folder / INDEX).read_text())["objects"]
        if clips is not None and (unknown := sorted(set(clips) - objects.keys())):
            raise UserError(f"{len(unknown)} clips are not in {folder}: {', '.join(unknown)}")
        chosen = objects.keys() if clips is None else set(clips)
        self._positions: list[int] = []  # of the usable frames among all records
        self.names: list[str] = []
        self.clips: list[range] = []
        first = 0
        for clip, counts in objects.items():
            if clip in chosen and any(counts):
                start = len(self._positions)
                self._positions += [first + offset for offset, count in enumerate(counts) if count]
                self.names.append(clip)
                self.clips.append(range(start, len(self._positions)))
            first += len(counts)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Record:
        example = self._records[self._positions[index]]
        image, masks = decode(example["image"], example["labels"])
        return Record(image=image, masks=masks, image_id=example["image_id"].decode())


def dataset_folder(data_dir: Path, split: str) -> Path:
    """Where a prepared split lies."""
    return data_dir / NAME / split / VERSION


def load_source(data_dir: str | Path, split: str, clips: str | Path | None = None) -> MoseSource:
    """Opens a prepared split.

    Args:
      data_dir: the `--data_dir` it was prepared with.
      split: e.g. "train".
      clips: file of clip names to keep, one a line; None: all.

    Raises:
      UserError: it is not there (with the command that prepares it), or the list names unknown clips.
    """
    folder = dataset_folder(Path(data_dir), split)
    if not (folder / INDEX).is_file():
        raise UserError(
            f"no dataset mose, split {split}: expected {folder / INDEX}. Prepare it with\n"
            f"  python -m ruac_jax.prepare_data mose --source DIR --split {split} --data_dir {data_dir}\n"
            "where DIR is the unpacked MOSE download"
        )
    return MoseSource(folder, split, None if clips is None else read_clip_list(Path(clips)))
