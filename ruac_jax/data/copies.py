"""Makes a folder of stylised copies; a run that was stopped is continued by the same command."""

import dataclasses
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tqdm import tqdm

from ruac_jax.data.record import Source
from ruac_jax.data.styled import (
    MANIFEST,
    Manifest,
    find_copy,
    read_manifest,
    settings_of,
    write_manifest,
)
from ruac_jax.errors import UserError

JPEG_QUALITY = 95

# (image, prompt, seed) -> the image in another style, of the same size
Stylise = Callable[[UInt8[np.ndarray, "h w 3"], str, int], UInt8[np.ndarray, "h w 3"]]


def copy_seed(seed: int, prompt: str, image_id: str) -> int:
    """A seed of 63 bits that follows from the three alone."""
    words = (seed, zlib.crc32(prompt.encode()), zlib.crc32(image_id.encode()))
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def make_copies(source: Source, count: int, stylise: Stylise, manifest: Manifest, folder: Path, ending: str) -> int:
    """Stylises the first images of a source; copies that are there are kept.

    Args:
      source: originals.
      count: how many of them.
      stylise: makes one copy.
      manifest: its `images` are set here, at the end to all that the folder has copies of.
      folder: where to, made if needed.
      ending: ".png", or ".jpg" for smaller files (quality 95, full colour).

    Returns:
      The number of copies made now.

    Raises:
      UserError: the folder holds copies of other settings, or something else.
    """
    earlier = _claim(folder, manifest)
    images, made = dict(earlier.images or {}), 0
    with tqdm(total=count * len(manifest.prompts), unit="copy", file=sys.stderr, smoothing=0) as bar:
        for index in range(count):
            record = source[index]
            name, image = record["image_id"], record["image"]
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise UserError(f"image {name!r} cannot be the name of a copy inside {folder}")
            for style, prompt in manifest.prompts.items():
                if find_copy(folder, style, name) is None:
                    copy = stylise(image, prompt, copy_seed(manifest.seed, prompt, name))
                    _save(copy, folder / style / f"{name}{ending}")
                    made += 1
                bar.update()
            images[name] = (image.shape[0], image.shape[1])
    write_manifest(folder, dataclasses.replace(manifest, images=images))
    return made


def _claim(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest that is there, of the same settings, or a new one without images."""
    if (folder / MANIFEST).exists():
        earlier = read_manifest(folder)
        then, now = settings_of(earlier), settings_of(manifest)
        if changes := [f"{name} was {then[name]!r}, is {now[name]!r}" for name in now if then[name] != now[name]]:
            raise UserError(f"{folder} has copies of other settings, choose another --output: {'; '.join(changes)}")
        return earlier
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--output {folder}: expected a new or empty folder, or one with stylised copies")
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, manifest)
    return manifest


def _save(pixels: UInt8[np.ndarray, "h w 3"], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    options = {} if file.suffix == ".png" else {"quality": JPEG_QUALITY, "subsampling": 0}
    Image.fromarray(pixels).save(partial, "PNG" if file.suffix == ".png" else "JPEG", **options)
    partial.replace(file)
