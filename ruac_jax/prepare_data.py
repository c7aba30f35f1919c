"""Prepares a dataset for training: `python -m ruac_jax.prepare_data mose --source DIR --data_dir datasets`.

Every file is checked before anything is written, and all that cannot be used are named in one error. The dataset
appears under its name in one move when it is complete: a run that was killed leaves nothing that could be mistaken
for one, and the next run starts cleanly. `--list` names the datasets.
"""

import contextlib
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from absl import flags, logging
from tqdm import tqdm

from ruac_jax.data.readers.video_frames import BadFileError, Frame, check_frame, list_frames, read_clip_list
from ruac_jax.errors import UserError, run_main

DATASETS = {"mose": "MOSE (mose.video), or any videos in the layout of MOSE or DAVIS: frames and index masks"}


class Prepared(NamedTuple):
    """What `prepare_mose` did."""

    folder: Path
    frames: int  # written; 0 where the dataset was there already
    skipped: list[str]  # bad files, each with its reason


def prepare_mose(
    source: Path,
    data_dir: Path,
    *,
    split: str = "train",
    clips: Path | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> Prepared:
    """Checks the frames of a split and writes them to `<data_dir>/mose/<split>`.

    Args:
      source: the unpacked download.
      data_dir: where prepared datasets lie; made if missing.
      split: name of the split, and of the source's folder where it has several.
      clips: file of clip names to keep, one a line; None: all.
      skip_bad: leave bad files out instead of failing.
      overwrite: replace what is there, once the new dataset is complete.

    Raises:
      UserError: bad files (all of them), another dataset is there, unknown clips or layout, no space.
    """
    from ruac_jax.data.builders import mose  # TFDS is slow to import

    listing = list_frames(source, split, None if clips is None else read_clip_list(clips))
    final = mose.dataset_folder(data_dir, split)
    if final.exists() and not overwrite:
        index = final / mose.INDEX
        there = json.loads(index.read_text())["fingerprint"] if index.is_file() else None
        if there == listing.fingerprint:
            return Prepared(final, 0, [])
        raise UserError(f"{final} holds a dataset of other files; --overwrite replaces it")
    frames, problems = _check(listing.frames)
    problems = listing.problems + problems
    if problems and not skip_bad:
        raise UserError(
            f"{len(problems)} of {len(listing.frames) + len(listing.problems)} frames cannot be used, nothing was "
            "written (--skip_bad leaves them out):\n  " + "\n  ".join(problems)
        )
    if not frames:
        raise UserError(f"no frame of {source} can be used:\n  " + "\n  ".join(problems))
    try:
        with _staging(data_dir, f"{mose.NAME}_{split}") as staging:
            _build(frames, staging, split)
            mose.write_index(mose.dataset_folder(staging, split), frames, listing.fingerprint)
            if final.parent.exists():
                shutil.rmtree(final.parent)
            final.parent.parent.mkdir(parents=True, exist_ok=True)
            os.replace(mose.dataset_folder(staging, split).parent, final.parent)
    except OSError as error:
        raise UserError(f"cannot write to {data_dir}: {error}") from error
    return Prepared(final, len(frames), problems)


def _check(frames: Sequence[Frame]) -> tuple[list, list[str]]:
    from ruac_jax.data.builders.mose import CheckedFrame

    def check(frame: Frame) -> int | str:
        try:
            return check_frame(frame)
        except BadFileError as error:
            return str(error)

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        bar = tqdm(pool.map(check, frames), "checking", len(frames), unit="frame", dynamic_ncols=True)
        results = list(zip(frames, bar, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted check does not go on to the end
    good = [CheckedFrame(frame, result) for frame, result in results if isinstance(result, int)]
    return good, [result for _, result in results if isinstance(result, str)]


def _build(frames: Sequence, staging: Path, split: str) -> None:
    import tensorflow_datasets as tfds

    from ruac_jax.data.builders.mose import Mose

    tfds.disable_progress_bar()  # ours shows the same with an estimate of the time left
    progress = partial(tqdm, desc="writing", unit="frame", dynamic_ncols=True)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces the staging folder
            config = tfds.core.BuilderConfig(name=split)
            builder = Mose(
                frames=frames, progress=progress, config=config, data_dir=str(staging), file_format="array_record"
            )
            builder.download_and_prepare()
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


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    options = flags.FLAGS
    known = "\n".join(f"  {name}: {text}" for name, text in DATASETS.items())
    if options.list:
        print(known)
        return
    if len(argv) < 2 or argv[1] not in DATASETS:
        found = f"no dataset {argv[1]!r}" if len(argv) > 1 else "which dataset?"
        raise UserError(f"{found}; known are\n{known}")
    if not options.source:
        raise UserError("--source DIR is needed: the folder with the unpacked download")
    result = prepare_mose(
        Path(options.source),
        Path(options.data_dir),
        split=options.split,
        clips=Path(options.clips) if options.clips else None,
        skip_bad=options.skip_bad,
        overwrite=options.overwrite,
    )
    if result.skipped:
        print(f"left out {len(result.skipped)} frames:\n  " + "\n  ".join(result.skipped))
    if result.frames:
        print(f"{result.frames} frames written to {result.folder}")
    else:
        print(f"{result.folder} is there already, made of the same files; --overwrite builds it anew")


if __name__ == "__main__":
    flags.DEFINE_string("source", None, "Folder with the unpacked download.")
    flags.DEFINE_string("data_dir", "datasets", "Where prepared datasets lie.")
    flags.DEFINE_string("split", "train", "Split to prepare; also the folder to read where the source has several.")
    flags.DEFINE_string("clips", None, "File of clip names to keep, one a line.")
    flags.DEFINE_bool("skip_bad", False, "Leave files out that cannot be used, instead of failing.")
    flags.DEFINE_bool("overwrite", False, "Replace a dataset that is there.")
    flags.DEFINE_bool("list", False, "Name the datasets.")
    run_main(main, positional=1)
