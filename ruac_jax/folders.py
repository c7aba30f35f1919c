"""Folders of results that appear whole or not at all, and locks for processes that write to one of them."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ruac_jax.errors import UserError


def check_output(folder: Path, *, overwrite: bool, marker: str, what: str) -> None:
    """Fails where results may not be written: something is there that may not be replaced.

    Args:
      folder: to be made.
      overwrite: a folder with `marker` in it may be replaced.
      marker: name of a file that every such folder has.
      what: such a folder is, for the message, e.g. "a saved model".

    Raises:
      UserError: there is a file or folder that stays.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise UserError(f"{folder}: exists already; --overwrite replaces it")
    if not (folder / marker).is_file():
        raise UserError(f"{folder}: is not {what}, so it is not replaced; choose another output or remove it")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder to fill, which takes the place of `folder` at the end; after an exception nothing has changed.

    Raises:
      UserError: there can be no such folder.
    """
    target = folder.absolute()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error}") from error
    try:
        yield unfinished
        if target.exists():
            shutil.rmtree(target)
        os.replace(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds a lock that no other process, and no other caller, holds; that of a process that ends is free again.

    Args:
      file: the lock, made with its folder where missing, and left there.
      wait: until it is free.

    Yields:
      Whether it is held: always, if waited for.

    Raises:
      OSError: the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
