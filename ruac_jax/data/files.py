"""Finding and reading the files of published datasets, whatever unpacking has done to their folders."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zipfile import Path as ZipPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ruac_jax.data.dataset import BadFileError
from ruac_jax.errors import UserError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
_JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")
_MAX_DEPTH = 4
_STORED = {"JPEG", "PNG"}  # kept as published


def is_junk(path: Path) -> bool:
    """Whether an unpacker or file manager left it there."""
    return path.name.startswith(".") or path.name in _JUNK


def list_folders(folder: Path) -> list[Path]:
    """Sub-folders by name, without junk; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(child for child in folder.iterdir() if child.is_dir() and not is_junk(child))


def list_files(folder: Path, endings: Sequence[str]) -> list[Path]:
    """Files of these endings (lower case; those on disk in any case) by name, without junk; none without a folder."""
    if not folder.is_dir():
        return []
    files = (file for file in folder.iterdir() if file.suffix.lower() in endings and not is_junk(file))
    return sorted(file for file in files if file.is_file())


def find_roots(source: Path, *markers: str) -> list[Path]:
    """Folders at or below `source` (at most four levels) that hold a match of every glob pattern, outermost first.

    Below a root nothing further is searched.
    """
    if not source.is_dir():
        raise UserError(f"no folder {source}")

    def search(folder: Path, depth: int) -> list[Path]:
        if all(any(not is_junk(match) for match in folder.glob(marker)) for marker in markers):
            return [folder]
        return [root for child in list_folders(folder) for root in search(child, depth - 1)] if depth else []

    return search(source, _MAX_DEPTH)


def find_root(source: Path, *markers: str, name: str) -> Path:
    """The one folder at or below `source` that holds a match of every glob pattern.

    Raises:
      UserError: none (says what was expected: `name` is the dataset's), or several.
    """
    roots = find_roots(source, *markers)
    if not roots:
        raise UserError(f"{source} does not look like {name}: expected {' and '.join(markers)} in it or below it")
    if len(roots) > 1:
        raise UserError(f"{source} is ambiguous, give one as --source: {', '.join(str(root) for root in roots)}")
    return roots[0]


def read_json(path: Path) -> Any:
    """Parses a JSON file: UTF-8, or else Windows-1252 or Latin-1.

    Raises:
      UserError: unreadable, or no JSON.
    """
    try:
        data = path.read_bytes()
        for encoding in ("utf-8-sig", "cp1252", "latin-1"):
            try:
                return json.loads(data.decode(encoding))
            except UnicodeDecodeError:
                continue
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a readable JSON file ({error})") from error
    raise AssertionError("latin-1 decodes anything")


def image_size(path: Path) -> tuple[int, int]:
    """Height and width from the header.

    Raises:
      BadFileError: not an image.
    """
    try:
        with Image.open(path) as image:
            return image.size[1], image.size[0]
    except (OSError, SyntaxError, ValueError) as error:
        raise BadFileError(f"{path}: not a readable image ({error})") from error


def read_pixels(path: Path) -> np.ndarray:
    """Pixel values of an annotation image as stored: palette indices stay indices, 16-bit values keep all bits.

    Returns:
      [h w] of uint8, uint16, int32 or bool, or [h w c] uint8.

    Raises:
      BadFileError: unreadable or truncated.
    """
    try:
        with Image.open(path) as image:
            return np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise BadFileError(f"{path}: not a readable mask ({error})") from error


def read_image(path: Path | ZipPath) -> tuple[bytes, tuple[int, int]]:
    """An image checked to its last byte, as JPEG or PNG that any reader turns into RGB, and its (height, width).

    JPEG and PNG of 8 bits stay as published; anything else becomes a PNG. Orientation tags are ignored, as the
    annotation tools of these datasets ignored them.

    Raises:
      BadFileError: unreadable, truncated, or of a kind that is not a picture.
    """
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            size = (image.size[1], image.size[0])
            image.draft("L", (image.size[0] // 8, image.size[1] // 8))  # reads every byte, but decodes few pixels
            image.load()
            kept = image.format in _STORED and image.mode in ("RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr", "1")
            if image.mode.startswith(("I", "F")):
                raise BadFileError(f"{path}: {image.mode} pixels, expected 8 bits a channel")
        return data if kept else _to_png(data), size
    except (OSError, SyntaxError, ValueError, KeyError, BadZipFile) as error:
        raise BadFileError(f"{path}: not a readable image ({error})") from error


def decode_rgb(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels of an encoded image; transparency is dropped, not blended."""
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def _to_png(data: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
