"""SHA-256 of files and lists of them as `sha256sum` writes them: `HASH  NAME` a line, names relative to the list."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ruac_jax.errors import UserError

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([\w.@+/-]+)")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_sums(path: Path) -> dict[str, str]:
    """SHA-256 by name; empty lines and lines that begin with # are skipped.

    Raises:
      UserError: no such list, another line, a name twice, or one that leads out of the folder.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable list of SHA-256 sums ({error})") from error
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or match[2] in sums or match[2].startswith("/") or ".." in PurePosixPath(match[2]).parts:
            raise UserError(
                f"{path}, line {number}: expected a SHA-256, two spaces and a new name, found {line[:200]!r}"
            )
        sums[match[2]] = match[1]
    return sums


def check_sums(folder: Path, sums: Mapping[str, str], remedy: str) -> None:
    """Compares files with their sums.

    Args:
      folder: that the names are relative to.
      sums: SHA-256 by name.
      remedy: how to mend it, for the message.

    Raises:
      UserError: a file is missing or differs; names the first one.
    """
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing, though {SUMS} lists it; {remedy}")
        if (found := sha256(path)) != expected:
            raise UserError(f"{path}: damaged: its SHA-256 is {found}, expected {expected}; {remedy}")


def add_sum(path: Path) -> str:
    """Puts a file's sum into the list beside it, in place of an older one.

    Returns:
      The sum.

    Raises:
      UserError: there is a list that cannot be read.
    """
    listing = path.with_name(SUMS)
    lines: list[str] = []
    if listing.exists():
        others = read_sums(listing).keys() - {path.name}
        lines = [x for x in listing.read_text().splitlines() if x.startswith("#") or x.partition("  ")[2] in others]
    found = sha256(path)
    listing.write_text("".join(f"{line}\n" for line in [*lines, f"{found}  {path.name}"]))
    return found
