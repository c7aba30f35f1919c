"""From a source of records to an endless, checkpointable stream of training batches (Grain).

Shuffle anew each epoch, draw a frame where the source has clips, draw objects, augment, pad to slots, split over
processes, batch. Every random number follows from the seed and the sample's place in the stream, so that batch t
holds the same samples however many threads, worker processes or hosts read them.
"""

import dataclasses
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags

from ruac_jax.data.record import Batch, ClipSource, Record, Source, pad_objects, select_objects
from ruac_jax.data.transforms import FULL_AUGMENTATION, Augmentation, augment

_REDRAWS = 100
_THREADS = 8


@dataclasses.dataclass(frozen=True)
class PipelineSettings:
    """What a batch looks like."""

    image_size: int  # side of the square images, px
    batch_size: int  # images per batch on this process
    max_objects: int  # object slots of an image
    seed: int
    augmentation: Augmentation = FULL_AUGMENTATION
    samples_per_clip: int = 1  # visits of a clip per epoch; an image without clip is visited once
    workers: int = 0  # processes that prepare samples; 0: threads


class Shard(NamedTuple):
    """This process takes samples index, index + count, index + 2 count, ..."""

    index: int = 0
    count: int = 1


_WHOLE = Shard()


class FrameSampler:
    """Index of an epoch's samples: visit v of clip c, c = v modulo the number of clips; each visit draws a frame.

    In a source without clips every image is visited once.
    """

    def __init__(self, source: Source, samples_per_clip: int):
        """Takes any source; one with `clips` is sampled by clip."""
        clips = source.clips if isinstance(source, ClipSource) else None
        self.frames = None if clips is None else [np.asarray(frames, np.int64) for frames in clips]
        self.clips = len(source) if self.frames is None else len(self.frames)
        self._visits = 1 if clips is None else samples_per_clip

    def __len__(self) -> int:
        return self.clips * self._visits

    def __getitem__(self, visit: int) -> int:
        return int(visit) % self.clips

    def draw(self, clip: int, rng: np.random.Generator) -> int:
        """Index, in the source, of a frame of the clip."""
        return clip if self.frames is None else int(rng.choice(self.frames[clip]))


class _PrepareSample(grain.transforms.RandomMap):
    """Clip -> one padded sample; a frame without objects is replaced by another of the clip, then of any clip."""

    def __init__(self, source: Source, sampler: FrameSampler, settings: PipelineSettings):
        self._source, self._sampler, self._settings = source, sampler, settings

    def random_map(self, element: int, rng: np.random.Generator) -> Batch:
        settings, clip = self._settings, element
        for redraw in range(_REDRAWS):
            if redraw > _REDRAWS // 10:
                clip = int(rng.integers(self._sampler.clips))
            record = self._source[self._sampler.draw(clip, rng)]
            record = select_objects(record, settings.max_objects, rng)
            if len(record["masks"]):
                record = augment(record, settings.augmentation, settings.image_size, rng)
                if (sample := _pad(record, settings.max_objects, rng)) is not None:
                    return sample
        raise ValueError(f"{_REDRAWS} draws in a row found no object: is the dataset annotated?")


def _pad(record: Record, slots: int, rng: np.random.Generator) -> Batch | None:
    record = select_objects(record, slots, rng)  # shrinking may have emptied a mask
    if not len(record["masks"]):
        return None
    return Batch(record["image"], *pad_objects(record["masks"], slots))


def _stack(samples: list[Batch]) -> Batch:
    return Batch(*(np.stack(parts) for parts in zip(*samples, strict=True)))


class TrainingIterator:
    """Endless batches; `get_state` and `set_state` continue exactly where a run stopped."""

    def __init__(self, source: Source, settings: PipelineSettings, shard: Shard):
        """See `training_iterator`."""
        sampler = FrameSampler(source, settings.samples_per_clip)
        self.samples_per_epoch = len(sampler)
        if not self.samples_per_epoch:
            raise ValueError("the source is empty")
        # What the meaning of a state depends on; Grain itself accepts a state of other workers and goes astray.
        self._identity = {
            "workers": settings.workers,
            "samples_per_epoch": self.samples_per_epoch,
            "batch_size": settings.batch_size,
            "seed": settings.seed,
            "shard_index": shard.index,
            "shard_count": shard.count,
        }
        samples = grain.MapDataset.source(sampler).seed(settings.seed).shuffle().repeat()
        samples = samples.random_map(_PrepareSample(source, sampler, settings))[shard.index :: shard.count]
        ahead = 2 * settings.batch_size
        reading = grain.ReadOptions(num_threads=min(_THREADS, ahead), prefetch_buffer_size=ahead)
        stream = samples.to_iter_dataset(reading)
        if settings.workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain's worker processes read absl flags
            # Before batching: batches then do not depend on the number of workers.
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(settings.workers, settings.batch_size))
        self._iterator = iter(stream.batch(settings.batch_size, drop_remainder=True, batch_fn=_stack))

    def __iter__(self) -> "TrainingIterator":
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)

    def get_state(self) -> dict[str, Any]:
        """Position in the stream, as a JSON-able tree."""
        return {"identity": dict(self._identity), "position": self._iterator.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues after the batch that preceded `get_state`.

        Raises:
          ValueError: the state is of another stream (workers, seed, batch size, data, number of processes).
        """
        then, now = state["identity"], self._identity
        if then != now:
            changes = [f"{name} was {then.get(name)}, is {now[name]}" for name in now if then.get(name) != now[name]]
            raise ValueError("the data stream cannot continue, its settings changed: " + "; ".join(changes))
        self._iterator.set_state(state["position"])

    def close(self) -> None:
        """Ends threads and worker processes."""
        self._iterator.close()


def training_iterator(source: Source, settings: PipelineSettings, shard: Shard = _WHOLE) -> TrainingIterator:
    """Endless training batches.

    Args:
      source: records; with `clips` (see `ClipSource`) an epoch has `samples_per_clip` random frames of every clip.
      settings: see there.
      shard: this process's share of every global batch.

    Returns:
      An iterator over `Batch`, with uint8 images and at least one valid object in each.
    """
    return TrainingIterator(source, settings, shard)
