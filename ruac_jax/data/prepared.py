"""Prepared datasets on disk: one TFDS dataset per split, written and read without TensorFlow.

`<data_dir>/<name>/<split>/<version>` holds one record per annotated image, in the listing's order, and `index.json`:
of which source files it was made, and each record's clip and number of objects. Images stay as published, masks are
run lengths (objects may overlap and be thousands), and the evaluation's fixed clicks are stored with them, so that
every method on every machine is judged by the same.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int

from ruac_jax.data.files import decode_rgb
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.record import Record
from ruac_jax.errors import UserError
from ruac_jax.prompts import CLICKS

VERSION, INDEX = "2.0.0", "index.json"
_RECORDS = "records"  # TFDS's only split; it reserves names such as "all"


class PreparedSample(NamedTuple):
    """What is stored of an image."""

    image_id: str
    image: bytes  # encoded
    masks: RunLengthMasks
    points: Int[np.ndarray, "n clicks 2"] | None  # fixed clicks (x, y), px; None where the image is not judged
    clip: str


class _Writer(tfds.core.GeneratorBasedBuilder):
    """Writes samples in the order in which they come."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, *, dataset: str, title: str, samples: Iterable[PreparedSample], **options: Any):
        self.name, self._title, self._samples = dataset, title, samples
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
            "masks": tfds.features.Sequence(tfds.features.Text()),
            "points": tfds.features.Tensor(shape=(None, CLICKS, 2), dtype=np.int32),
            "image_id": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self._title}: images with the masks of their objects.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        return {_RECORDS: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for sample in self._samples:
            points = np.zeros((0, CLICKS, 2), np.int32) if sample.points is None else sample.points
            yield (
                sample.image_id,
                {
                    "image": sample.image,
                    "size": np.array(sample.masks.size, np.int32),
                    "masks": sample.masks.counts,
                    "points": points.astype(np.int32),
                    "image_id": sample.image_id,
                },
            )


class PreparedSource:
    """Random access to the images that have objects. Masks come as run lengths, clicks where they are stored."""

    def __init__(self, folder: Path, index: dict[str, Any], positions: Sequence[int]):
        """Takes the records at `positions`; see `open_prepared`."""
        decoders = {"image": tfds.decode.SkipDecoding()}
        self._records = tfds.builder_from_directory(folder).as_data_source(split=_RECORDS, decoders=decoders)
        self._positions = list(positions)
        self.fingerprint: str = index["fingerprint"]

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Record:
        example = self._records[self._positions[index]]
        masks = RunLengthMasks(tuple(example["size"].tolist()), example["masks"])
        record = Record(image=decode_rgb(example["image"]), masks=masks, image_id=example["image_id"].decode())
        if len(example["points"]) == len(masks):
            record["points"] = example["points"]
        return record


class PreparedClipSource(PreparedSource):
    """Frames of videos: `clips` lists, per clip of `names`, the indices of its frames in order of time."""

    def __init__(self, folder: Path, index: dict[str, Any], positions: Sequence[int]):
        """See `PreparedSource`; every record has a clip."""
        super().__init__(folder, index, positions)
        frames: dict[str, list[int]] = {}
        for place, position in enumerate(positions):
            frames.setdefault(index["records"][position][0], []).append(place)
        self.names: list[str] = list(frames)
        self.clips: list[list[int]] = list(frames.values())


def dataset_folder(data_dir: Path, name: str, split: str) -> Path:
    """Where a prepared split lies."""
    return data_dir / name / split / VERSION


def write_prepared(
    folder: Path, name: str, split: str, title: str, samples: Iterable[PreparedSample], fingerprint: str
) -> int:
    """Writes a split to `dataset_folder(folder, name, split)`; returns its number of records.

    Args:
      folder: an empty folder.
      name: of the dataset.
      split: its split.
      title: one line for people.
      samples: consumed one at a time.
      fingerprint: of the source files.
    """
    records: list[tuple[str, int]] = []
    clicks = hashlib.sha256()

    def watched() -> Iterator[PreparedSample]:
        for sample in samples:
            records.append((sample.clip, len(sample.masks)))
            if sample.points is not None:
                clicks.update(f"{sample.image_id}\n".encode() + sample.points.astype("<i4").tobytes())
            yield sample

    config = tfds.core.BuilderConfig(name=split)
    writer = _Writer(
        dataset=name,
        title=title,
        samples=watched(),
        config=config,
        data_dir=str(folder),
        file_format="array_record",
    )
    writer.download_and_prepare()
    index = {"fingerprint": fingerprint, "prompts": clicks.hexdigest(), "records": records}
    (dataset_folder(folder, name, split) / INDEX).write_text(json.dumps(index) + "\n")
    return len(records)


def read_index(data_dir: Path, name: str, split: str) -> dict[str, Any] | None:
    """The index of a prepared split; None where it is not prepared."""
    file = dataset_folder(data_dir, name, split) / INDEX
    return json.loads(file.read_text()) if file.is_file() else None


def open_prepared(
    data_dir: str | Path, name: str, split: str, clips: str | Path | None = None
) -> PreparedSource | PreparedClipSource:
    """Opens a prepared split.

    Args:
      data_dir: the `--data_dir` it was prepared with.
      name: of the dataset.
      split: e.g. "train".
      clips: file of clip names to keep, one a line; None: all.

    Raises:
      UserError: it is not there (with the command that prepares it), or the list names unknown clips.
    """
    folder = dataset_folder(Path(data_dir), name, split)
    index = read_index(Path(data_dir), name, split)
    if index is None:
        raise UserError(
            f"no dataset {name}, split {split}: expected {folder / INDEX}. Prepare it with\n"
            f"  python -m ruac_jax.prepare_data {name} --source DIR --split {split} --data_dir {data_dir}\n"
            "where DIR is the unpacked download; python -m ruac_jax.prepare_data --list says where to get it"
        )
    records: list[tuple[str, int]] = index["records"]
    if clips is not None:
        wanted = set(read_clip_list(Path(clips)))
        if unknown := sorted(wanted - {clip for clip, _ in records}):
            raise UserError(f"{len(unknown)} clips are not in {folder}: {', '.join(unknown)}")
        records = [record if record[0] in wanted else (record[0], 0) for record in records]
    positions = [position for position, (_, objects) in enumerate(records) if objects]
    videos = bool(records) and all(clip for clip, _ in records)
    return (PreparedClipSource if videos else PreparedSource)(folder, index, positions)


def read_clip_list(file: Path) -> list[str]:
    """Clip names, one a line; empty lines and lines that begin with # are skipped.

    Raises:
      UserError: no such file, or it names no clip.
    """
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list of clips {file}: {error}") from error
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise UserError(f"{file} names no clip: expected one name a line")
    return names
