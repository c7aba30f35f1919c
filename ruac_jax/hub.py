"""Finds a model by name: a folder or file here, a checkpoint that comes with the package, or a repository of a hub.

Commands and `Predictor.from_checkpoint` call this at their edge; all below them takes the path that it gives. It stands
at the top of this package, and the one thing it needs from above, `convert`, is imported when a SAM2 file is met.
"""

import difflib
import functools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ruac_jax.errors import UserError
from ruac_jax.folders import locked
from ruac_jax.packed import SUFFIX, read_description
from ruac_jax.sums import SUMS, check_sums, read_sums, sha256
from ruac_jax.weights import FORMAT_VERSION, load_metadata

CACHE_VARIABLE = "RUAC_JAX_CACHE"
_SHIPPED = Path(__file__).with_name("shipped")
_FILES = (SUFFIX, ".pt", ".pth", ".bin")
_REPOSITORY = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?", re.ASCII)
_INSTALL = "`pip install 'huggingface_hub>=2,<3'`"

# By the name of the exception's class: the library moves them between its modules.
_HUB_ERRORS = {
    "GatedRepoError": "its owner grants access on request; ask there and log in with `hf auth login`",
    "RepositoryNotFoundError": "the hub has no such repository, or it is private",
    "RevisionNotFoundError": "the repository has no such revision",
    "LocalEntryNotFoundError": "the network does not let us reach the hub, and it was not downloaded before",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE forbids to download it",
}


def find_checkpoint(name: str | os.PathLike[str]) -> Path:
    """Finds a model that `ruac_jax.weights.load_model` reads.

    Args:
      name: the first of these that it is:

        1. a folder of a saved model;
        2. a file: packed by `ruac_jax.ship`, or a SAM2 checkpoint (`.safetensors`; `.pt`, which needs torch), which is
           converted into the cache when it is first seen;
        3. the name of a checkpoint that comes with the package, see `shipped_names`;
        4. `OWNER/NAME` or `OWNER/NAME@REVISION` of the Hugging Face hub, which needs huggingface_hub. Without a
           revision, it is taken for a mistyped path where there is a folder OWNER.

    Returns:
      A folder or a packed file.

    Raises:
      UserError: nothing of that name, or something wrong with it; says what was looked for.
    """
    text = os.fspath(name)
    path = Path(text)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _file(path)
    if text in shipped_names():
        return _shipped(text)
    match = _REPOSITORY.fullmatch(text)
    if match and not text.endswith(_FILES) and (match["revision"] or not path.parent.is_dir()):
        return _from_hub(match["id"], match["revision"])
    raise UserError(f"{text}: {_not_here(text)}; a repository of the Hugging Face hub is named OWNER/NAME[@REVISION]")


def shipped_names() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return [name.removesuffix(SUFFIX) for name in read_sums(_SHIPPED / SUMS) if "/" not in name]


def cache_folder() -> Path:
    """Where converted files are kept: $RUAC_JAX_CACHE, by default ~/.cache/ruac_jax."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "ruac_jax")


def _not_here(text: str) -> str:
    shipped = shipped_names()
    if not shipped:
        known = "none comes with this version"
    elif near := difflib.get_close_matches(text, shipped, n=1):
        known = f"did you mean {near[0]!r}?"
    else:
        known = f"there are {', '.join(shipped)}"
    return f"no such folder or file, and no shipped checkpoint ({known})"


def _folder(path: Path) -> Path:
    if not (path / "metadata.json").exists() and (path / "model" / "metadata.json").exists():
        raise UserError(f"{path}: the folder of a run, not of a model; its model is {path / 'model'}")
    load_metadata(path)
    return path


def _file(path: Path) -> Path:
    if path.suffix == SUFFIX and read_description(path) is not None:
        load_metadata(path)
        return path
    return _converted(path)


def _converted(path: Path) -> Path:
    """Converts a SAM2 checkpoint, unless this was done before; the cache knows it by its bytes, not by its name."""
    from convert.checkpoint_files import SUFFIXES
    from convert.sam2_to_flax import convert_file

    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of file; expected one of {', '.join(SUFFIXES)}, or a folder")
    target = cache_folder() / "converted" / f"{sha256(path)}-{FORMAT_VERSION}"
    if not target.is_dir():
        try:
            with locked(target.parent / ".lock"):
                if not target.is_dir():  # else another process made it while we waited
                    # Standard output is the commands' own.
                    convert_file(path, target, show=functools.partial(print, file=sys.stderr))
        except OSError as error:
            raise UserError(
                f"cannot convert {path} into the cache ({error}); ${CACHE_VARIABLE} names another folder"
            ) from error
    try:
        load_metadata(target)
    except UserError as error:
        raise UserError(f"{error}; remove {target} to have {path} converted again") from error
    return target


def _shipped(name: str) -> Path:
    file = name + SUFFIX
    check_sums(_SHIPPED, {file: read_sums(_SHIPPED / SUMS)[file]}, "install the package again")
    return _SHIPPED / file


def _from_hub(repository: str, revision: str | None) -> Path:
    """Downloads the files that have a SHA-256, and no others.

    The sums are in the package's list, as `OWNER/NAME/FILE`, or else in the repository's own, which tells a damaged
    file, but not a forged repository.
    """
    name = f"{repository}@{revision}" if revision else repository
    start = f"{repository}/"
    sums = {file.removeprefix(start): s for file, s in read_sums(_SHIPPED / SUMS).items() if file.startswith(start)}
    if not sums:
        listing = _download(name, repository, revision, [SUMS])
        if not (listing / SUMS).is_file():
            raise UserError(
                f"{name}: the repository has no {SUMS}, so its files cannot be checked; "
                "download the checkpoint by hand and name the file"
            )
        sums = read_sums(listing / SUMS)
        revision = listing.name  # the commit, so that the files are of the list's own version
    folder = _download(name, repository, revision, sorted(sums))
    check_sums(folder, sums, "remove it to have it downloaded again")
    if "metadata.json" in sums:
        return _folder(folder)
    files = [file for file in sums if file.endswith(_FILES)]
    if len(files) != 1:
        raise UserError(
            f"{name}: expected metadata.json of a saved model or exactly one checkpoint file in {SUMS}, "
            f"found {', '.join(sums) or 'nothing'}"
        )
    return _file(folder / files[0])


def _download(name: str, repository: str, revision: str | None, files: Sequence[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise UserError(
            f"{name}: {_not_here(name)}; the Hugging Face hub was not asked, since huggingface_hub is not installed: "
            f"{_INSTALL}"
        ) from error
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # the library's own classes, and those of its HTTP client
        reasons = [_HUB_ERRORS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _HUB_ERRORS]
        said = (str(error).splitlines() or [""])[0][:200]
        reason = reasons[0] if reasons else f"{type(error).__name__}: {said}"
        raise UserError(f"{name}: {_not_here(name)}; from the Hugging Face hub: {reason}") from error
