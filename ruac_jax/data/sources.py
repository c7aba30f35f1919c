"""Datasets by name: those prepared on disk, and `shapes/DOMAIN`, generated on the fly."""

import difflib
from pathlib import Path

import jax

from ruac_jax.config import DataConfig
from ruac_jax.data.catalog import DATASETS
from ruac_jax.data.pipeline import PipelineSettings, Shard, TrainingIterator, training_iterator
from ruac_jax.data.record import Source
from ruac_jax.data.shapes import ShapesSource
from ruac_jax.data.styled import styled_source
from ruac_jax.data.transforms import NO_AUGMENTATION, Augmentation
from ruac_jax.errors import UserError

GENERATED = "shapes/"


def load_source(name: str, split: str, *, data_dir: str, size: int, num_images: int, clips: str = "") -> Source:
    """Opens a dataset.

    Args:
      name: `shapes/DOMAIN` or the name of a prepared dataset.
      split: "train" or "validation" of a generated dataset; a split of a prepared one.
      data_dir: where prepared datasets lie.
      size: side of generated images, px.
      num_images: number of generated images.
      clips: file of clip names to keep, one a line; empty: all.

    Raises:
      UserError: no such dataset, or it is not prepared; says how to get it.
    """
    if name.startswith(GENERATED):
        return ShapesSource(name.removeprefix(GENERATED), split, size=size, num_images=num_images)
    known = list(DATASETS)
    if name not in known and not (Path(data_dir) / name).is_dir():
        near = difflib.get_close_matches(name, known, 1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"no dataset {name!r}{hint}: expected '{GENERATED}' and a domain, the name of a folder in {data_dir}, "
            f"or one of {', '.join(known)}"
        )
    from ruac_jax.data.prepared import open_prepared  # TFDS is slow to import

    return open_prepared(data_dir, name, split, clips or None)


def training_batches(config: DataConfig, size: int, seed: int) -> TrainingIterator:
    """This process's share of the training batches, images of `size` px; errors as `load_source`, `styled_source`."""
    source = load_source(
        config.dataset,
        config.split,
        data_dir=config.data_dir,
        size=size,
        num_images=config.num_images,
        clips=config.clips,
    )
    if config.stylised:
        source = styled_source(source, config.stylised)
    settings = PipelineSettings(
        image_size=size,
        batch_size=config.batch_size // jax.process_count(),
        max_objects=config.max_objects,
        seed=seed,
        augmentation=Augmentation() if config.augment else NO_AUGMENTATION,
        samples_per_clip=config.samples_per_clip,
        workers=config.workers,
    )
    return training_iterator(source, settings, Shard(jax.process_index(), jax.process_count()))
