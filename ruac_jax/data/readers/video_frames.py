"""Videos as folders of frames with index masks: MOSE, DAVIS and their kin.

Layouts, below a root that may be doubled by unpacking (`MOSE/MOSE/train`):
  `[SPLIT/]JPEGImages/[RESOLUTION/]CLIP/FRAME.jpg` with `Annotations/` alike (MOSE, DAVIS), or
  `CLIP/JPEGImages/FRAME.jpg` with `CLIP/Annotations/FRAME.png`.
A mask's pixel value is the object's number, 0 the ground, in a palette or 8-bit greyscale PNG; any other value
counts as an object, so that 0/255 masks hold one.
"""

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ruac_jax.data.dataset import BadFileError, Listing, Sample
from ruac_jax.data.files import is_junk, list_folders
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.readers.label_map import check_size, encode_labels
from ruac_jax.errors import UserError

IMAGES, MASKS = "JPEGImages", "Annotations"
_IMAGE_ENDINGS, _MASK_ENDINGS = (".jpg", ".jpeg", ".png"), (".png",)
_SPLITS = ("train", "valid", "val", "validation", "test")
_MAX_DEPTH = 4


def list_frames(source: Path, split: str) -> Listing:
    """Finds the annotated frames of a split, by clip and name; frames without a mask are left out.

    Args:
      source: the unpacked download, or a folder inside it.
      split: sub-folder to look in where the source has several.

    Raises:
      UserError: no known layout, an ambiguous one, no such split, no annotated frame.
    """
    if not source.is_dir():
        raise UserError(f"no folder {source}")
    samples, problems = [], []
    for clip, (image_folder, mask_folder) in sorted(_clip_folders(source, split).items()):
        images, masks = _files(image_folder, _IMAGE_ENDINGS), _files(mask_folder, _MASK_ENDINGS)
        for name, mask in sorted(masks.items()):
            if name in images:
                samples.append(Sample(f"{clip}/{name}", images[name], partial(read_masks, mask), (mask,), clip))
            else:
                problems.append(f"{mask}: no image {image_folder / name}.jpg")
    if not samples and not problems:
        raise UserError(f"{source} has no annotated frame: no PNG below {MASKS} belongs to an image below {IMAGES}")
    return Listing(samples, problems)


def read_masks(file: Path, size: tuple[int, int]) -> RunLengthMasks:
    """One mask per object of an index mask, by rising object number.

    Raises:
      BadFileError: unreadable or truncated, wrong kind of mask, another size than (height, width).
    """
    labels = _read_labels(file)
    check_size(file, labels.shape, size)
    return encode_labels(labels)


def _read_labels(file: Path) -> UInt8[np.ndarray, "h w"]:
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
    levels = [folder for folder in list_folders(images) if list_folders(folder)]
    if len(levels) > 1:
        raise UserError(f"{images} holds several resolutions, keep one: {', '.join(level.name for level in levels)}")
    if levels:
        images, masks = levels[0], masks / levels[0].name
    names = {folder.name for parent in (images, masks) if parent.is_dir() for folder in list_folders(parent)}
    return {name: (images / name, masks / name) for name in names}


def _find_roots(folder: Path, depth: int) -> list[Path]:
    if (folder / IMAGES).is_dir() and (folder / MASKS).is_dir():
        return [folder]
    if not depth:
        return []
    return [root for child in list_folders(folder) if child.name != IMAGES for root in _find_roots(child, depth - 1)]


def _files(folder: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    files = (file for file in folder.iterdir() if file.suffix.lower() in endings and not is_junk(file))
    return {file.stem: file for file in files if file.is_file()}
