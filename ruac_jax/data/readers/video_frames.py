"""Videos as folders of frames with index masks: MOSE, DAVIS and their kin.

Layouts, below a root that may be doubled by unpacking (`MOSE/MOSE/train`):
  `[SPLIT/]JPEGImages/[RESOLUTION/]CLIP/FRAME.jpg` with `Annotations/` alike (MOSE, DAVIS), or
  `CLIP/JPEGImages/FRAME.jpg` with `CLIP/Annotations/FRAME.png`.
A mask's pixel value is the object's number, 0 the ground, in a palette or 8-bit greyscale PNG; any other value
counts as an object, so that 0/255 masks hold one.
"""

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from ruac_jax.errors import UserError

IMAGES, MASKS = "JPEGImages", "Annotations"
_IMAGE_ENDINGS, _MASK_ENDINGS = (".jpg", ".jpeg", ".png"), (".png",)
_SPLITS = ("train", "valid", "val", "validation", "test")
_JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")
_MAX_DEPTH = 4


class BadFileError(Exception):
    """One file that cannot be used: its path and why."""


class Frame(NamedTuple):
    """An annotated frame on disk."""

    clip: str
    name: str  # without ending
    image: Path
    mask: Path


class FrameList(NamedTuple):
    """What a source folder offers."""

    frames: list[Frame]  # sorted by clip and name
    problems: list[str]  # masks without an image
    fingerprint: str  # of names and file sizes; does not depend on where the source lies


def list_frames(source: Path, split: str, clips: Iterable[str] | None = None) -> FrameList:
    """Finds the annotated frames of a split; frames without a mask are left out. No file is opened.

    Args:
      source: the unpacked download, or a folder inside it.
      split: sub-folder to look in where the source has several.
      clips: names to keep; None: all.

    Raises:
      UserError: no known layout, an ambiguous one, no such split, unknown clips.
    """
    if not source.is_dir():
        raise UserError(f"no folder {source}")
    folders = _clip_folders(source, split)
    if clips is not None:
        wanted = set(clips)
        if unknown := sorted(wanted - folders.keys()):
            raise UserError(f"{len(unknown)} clips are not in {source}: {', '.join(unknown)}")
        folders = {clip: folders[clip] for clip in sorted(wanted)}
    frames, problems, digest = [], [], hashlib.sha256()
    for clip, (image_folder, mask_folder) in sorted(folders.items()):
        images, masks = _files(image_folder, _IMAGE_ENDINGS), _files(mask_folder, _MASK_ENDINGS)
        for name, mask in sorted(masks.items()):
            image = images.get(name)
            if image is None:
                problems.append(f"{mask}: no image {image_folder / name}.jpg")
                continue
            frames.append(Frame(clip, name, image, mask))
            digest.update(f"{clip}/{name} {image.stat().st_size} {mask.stat().st_size}\n".encode())
    if not frames and not problems:
        raise UserError(f"{source} has no annotated frame: no PNG below {MASKS} belongs to an image below {IMAGES}")
    return FrameList(frames, problems, digest.hexdigest())


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


def check_frame(frame: Frame) -> int:
    """Decodes image and mask in full; returns the number of objects.

    Raises:
      BadFileError: unreadable or truncated, wrong kind of mask, sizes that differ.
    """
    image_size = _image_size(frame.image)
    labels = _read_mask(frame.mask)
    if labels.shape != image_size[::-1]:
        height, width = labels.shape
        raise BadFileError(f"{frame.mask}: {width}x{height} px, its image is {image_size[0]}x{image_size[1]}")
    return len(_objects(labels))


def encode_labels(mask: Path) -> bytes:
    """The index map as a one-channel PNG (a palette PNG handed on as it is would decode to colours)."""
    buffer = io.BytesIO()
    Image.fromarray(_read_mask(mask)).save(buffer, "PNG")
    return buffer.getvalue()


def decode(image: bytes, labels: bytes) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "n h w"]]:
    """RGB image and one mask per object, by rising object number."""
    picture = np.array(Image.open(io.BytesIO(image)).convert("RGB"))
    index = np.asarray(Image.open(io.BytesIO(labels)))
    return picture, index[None] == _objects(index)[:, None, None]


def _objects(labels: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "n"]:
    return (np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[1:]) + 1).astype(np.uint8)


def _image_size(file: Path) -> tuple[int, int]:
    try:
        with Image.open(file) as image:
            size = image.size
            image.draft("L", (size[0] // 8, size[1] // 8))  # reads every byte, but decodes few pixels
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise BadFileError(f"{file}: not a readable image ({error})") from error
    return size


def _read_mask(file: Path) -> UInt8[np.ndarray, "h w"]:
    try:
        with Image.open(file) as image:
            mode = image.mode
            labels = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise BadFileError(f"{file}: not a readable mask ({error})") from error
    if mode not in ("P", "L", "1"):
        raise BadFileError(f"{file}: mode {mode}, expected a palette or 8-bit greyscale PNG of object numbers")
    return labels.astype(np.uint8)


def _clip_folders(source: Path, split: str) -> dict[str, tuple[Path, Path]]:
    """Clip name -> its folders of images and of masks."""
    roots = _find_roots(source, _MAX_DEPTH)
    if not roots:
        raise UserError(
            f"{source} does not look like MOSE or DAVIS: expected {split}/{IMAGES} and {split}/{MASKS}, "
            f"or {IMAGES} and {MASKS}, in it or in one of its folders"
        )
    if named := [root for root in roots if root.name == split]:
        roots = named
    elif roots != [source] and (other := sorted({root.name for root in roots} & set(_SPLITS))):
        raise UserError(
            f"{source} holds {', '.join(other)}, but no {split}; to read one of them as {split}, give it as --source"
        )
    if all(_files(root / IMAGES, _IMAGE_ENDINGS) for root in roots):
        return {root.name: (root / IMAGES, root / MASKS) for root in roots}
    if len(roots) > 1:
        raise UserError(f"{source} is ambiguous, give one as --source: {', '.join(str(root) for root in roots)}")
    images, masks = roots[0] / IMAGES, roots[0] / MASKS
    levels = [folder for folder in _folders(images) if _folders(folder)]
    if len(levels) > 1:
        raise UserError(f"{images} holds several resolutions, keep one: {', '.join(level.name for level in levels)}")
    if levels:
        images, masks = levels[0], masks / levels[0].name
    names = {folder.name for parent in (images, masks) if parent.is_dir() for folder in _folders(parent)}
    return {name: (images / name, masks / name) for name in names}


def _find_roots(folder: Path, depth: int) -> list[Path]:
    if (folder / IMAGES).is_dir() and (folder / MASKS).is_dir():
        return [folder]
    if not depth:
        return []
    return [root for child in _folders(folder) if child.name != IMAGES for root in _find_roots(child, depth - 1)]


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not _is_junk(child))


def _files(folder: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    files = (file for file in folder.iterdir() if file.suffix.lower() in endings and not _is_junk(file))
    return {file.stem: file for file in files if file.is_file()}


def _is_junk(path: Path) -> bool:
    return path.name.startswith(".") or path.name in _JUNK
