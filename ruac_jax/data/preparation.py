"""From a published dataset to a prepared one: lists, reads and checks every file, then appears in one move or not."""

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging
from tqdm import tqdm

from ruac_jax.data.dataset import BadFileError, Dataset, Sample, first_frames
from ruac_jax.data.files import read_image
from ruac_jax.data.prepared import (
    PreparedSample,
    dataset_folder,
    read_clip_list,
    read_index,
    write_prepared,
)
from ruac_jax.errors import UserError
from ruac_jax.prompts import fixed_points
from ruac_jax.threads import map_in_threads

_SHOWN_PROBLEMS = 50  # in an error or summary; more are counted


class Prepared(NamedTuple):
    """What `prepare` did."""

    folder: Path
    images: int  # written; 0 where the dataset was there already
    objects: int
    skipped: list[str]  # bad files, each with its reason


def prepare(
    dataset: Dataset,
    source: Path,
    data_dir: Path,
    *,
    split: str,
    clips: Path | None = None,
    all_frames: bool | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> Prepared:
    """Checks the images and annotations of a split and writes them to `<data_dir>/<name>/<split>`.

    Args:
      dataset: what to prepare.
      source: the unpacked download.
      data_dir: where prepared datasets lie; made if missing.
      split: one of the dataset's.
      clips: file of clip names to keep, one a line; None: all.
      all_frames: of videos, every annotated frame instead of the first; None: as the dataset says.
      skip_bad: leave bad files out instead of failing.
      overwrite: replace what is there, once the new dataset is complete.

    Raises:
      UserError: bad files (all of them), another dataset is there, unknown clips or layout, no space.
    """
    samples, problems = dataset.list_samples(source, split)
    if clips is not None:
        samples = _keep_clips(samples, read_clip_list(clips), source)
    if not (dataset.frames == "all" if all_frames is None else all_frames):
        samples = first_frames(samples)
    if not samples and not problems:
        raise UserError(f"{source} has no annotated image of {dataset.name}, split {split}")
    if len({sample.image_id for sample in samples}) != len(samples):
        raise AssertionError(f"{dataset.name}: image ids are not unique")
    final, fingerprint = dataset_folder(data_dir, dataset.name, split), _fingerprint(samples)
    there = read_index(data_dir, dataset.name, split)
    if final.exists() and not overwrite:
        if there is not None and there["fingerprint"] == fingerprint:
            return Prepared(final, 0, 0, [])
        raise UserError(f"{final} holds a dataset of other files; --overwrite replaces it")
    problems, objects = list(problems), 0

    def good() -> Iterator[PreparedSample]:
        nonlocal objects
        judged = {sample.image_id for sample in first_frames(samples)}
        tasks = [(sample, sample.image_id in judged) for sample in samples]
        for result in tqdm(
            map_in_threads(_read, tasks, os.cpu_count() or 1),
            "preparing",
            len(samples),
            unit="image",
            dynamic_ncols=True,
        ):
            if isinstance(result, str):
                problems.append(result)
            else:
                objects += len(result.masks)
                yield result

    usable = good()
    first = next(usable, None)
    if first is None:
        raise UserError(f"no image of {source} can be used:\n{_lines(problems)}")
    try:
        with _staging(data_dir, f"{dataset.name}_{split}") as staging, _quiet_tfds():
            images = write_prepared(staging, dataset.name, split, dataset.title, _chain(first, usable), fingerprint)
            if problems and not skip_bad:
                raise UserError(
                    f"{len(problems)} files cannot be used, nothing was written (--skip_bad leaves them out):\n"
                    + _lines(problems)
                )
            if final.parent.exists():
                shutil.rmtree(final.parent)
            final.parent.parent.mkdir(parents=True, exist_ok=True)
            os.replace(dataset_folder(staging, dataset.name, split).parent, final.parent)
    except OSError as error:
        raise UserError(f"cannot write to {data_dir}: {error}") from error
    return Prepared(final, images, objects, problems)


def _keep_clips(samples: Sequence[Sample], names: Sequence[str], source: Path) -> list[Sample]:
    if unknown := sorted(set(names) - {sample.clip for sample in samples}):
        raise UserError(f"{len(unknown)} clips are not in {source}: {', '.join(unknown)}")
    wanted = set(names)
    return [sample for sample in samples if sample.clip in wanted]


def _fingerprint(samples: Sequence[Sample]) -> str:
    """Of names and file sizes; does not depend on where the source lies."""
    digest, sizes = hashlib.sha256(), {}
    for sample in samples:
        own = [sample.image] if isinstance(sample.image, Path) else []
        for file in (*own, *sample.files):
            if file not in sizes:
                sizes[file] = file.stat().st_size if file.is_file() else -1
        digest.update(f"{sample.image_id} {[sizes[file] for file in (*own, *sample.files)]}\n".encode())
    return digest.hexdigest()


def _read(task: tuple[Sample, bool]) -> PreparedSample | str:
    sample, judged = task
    try:
        image, size = read_image(sample.image)
        masks = sample.masks(size)
    except BadFileError as error:
        return str(error)
    points = fixed_points(masks) if judged else None
    return PreparedSample(sample.image_id, image, masks, points, sample.clip)


def _chain(first: PreparedSample, rest: Iterator[PreparedSample]) -> Iterator[PreparedSample]:
    yield first
    yield from rest


def _lines(problems: Sequence[str]) -> str:
    shown = [f"  {problem}" for problem in problems[:_SHOWN_PROBLEMS]]
    more = len(problems) - len(shown)
    return "\n".join(shown + ([f"  and {more} more"] if more else []))


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """TFDS announces the staging folder and shows a bar of its own."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _staging(data_dir: Path, name: str) -> Iterator[Path]:
    """An empty folder on the same disk, locked against a second run and removed at the end."""
    data_dir.mkdir(parents=True, exist_ok=True)
    lock_file = data_dir / f".{name}.lock"
    with lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another run is preparing {name} in {data_dir}") from error
        staging = data_dir / f".{name}.incomplete"
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            lock_file.unlink()
