"""Training images beside stylised copies of them (StyleGen, paper appendix P.2): a folder, and a source that reads it.

`FOLDER/<style>/<image_id>.png` (or .jpg) is the copy of an image in a style, `FOLDER/manifest.json` says how the copies
were made and of which images. `python -m ruac_jax.stylise` writes such a folder (docs/stylised.md).
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ruac_jax.data.files import decode_rgb
from ruac_jax.data.record import ClipSource, Record, Source
from ruac_jax.errors import UserError

MANIFEST = "manifest.json"
ENDINGS = (".png", ".jpg", ".jpeg")
_AGAIN = "run python -m ruac_jax.stylise again with the same settings: it adds what is missing"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a folder of copies says of itself.

    Attributes:
      dataset: name and split of the originals, "shapes/source, train".
      model: what made the copies.
      prompts: style (a folder's name) -> the text that it was made from.
      strength: how far the copies may leave the originals, in (0, 1].
      seed: of all random numbers.
      images: image_id -> (height, width) of the original; None while the copies are being made.
    """

    dataset: str
    model: str
    prompts: Mapping[str, str]
    strength: float
    seed: int
    images: Mapping[str, tuple[int, int]] | None = None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Puts the manifest into the folder, in one move."""
    partial = folder / f".{MANIFEST}.partial"
    partial.write_text(json.dumps(dataclasses.asdict(manifest), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of copies.

    Raises:
      UserError: there is none, or it cannot be used.
    """
    file = folder / MANIFEST
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["images"] is not None:
            found["images"] = {name: (int(height), int(width)) for name, (height, width) in found["images"].items()}
        if not found["prompts"] or not isinstance(found["prompts"], dict):
            raise ValueError("it names no prompt")
        return Manifest(**found)
    except FileNotFoundError as error:
        raise UserError(
            f"no stylised copies in {folder}: expected {file}, as python -m ruac_jax.stylise writes it"
        ) from error
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: not a manifest of stylised copies ({error}); make them again") from error


def find_copy(folder: Path, style: str, image_id: str) -> Path | None:
    """File of a copy; None where there is none."""
    # Not `with_suffix`: names may hold dots.
    files = (folder / style / f"{image_id}{ending}" for ending in ENDINGS)
    return next((file for file in files if file.is_file()), None)


class StyledSource:
    """A source's records, then those of its stylised copies, style by style, with the originals' masks and clicks.

    Index v n + i, of n originals, is record i in style v, where style 0 is the original. See `styled_source`.
    """

    def __init__(self, source: Source, folder: Path, manifest: Manifest):
        self._source, self._folder, self._manifest = source, folder, manifest
        self.styles = list(manifest.prompts)

    def __len__(self) -> int:
        return (1 + len(self.styles)) * len(self._source)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        version, base = divmod(index, len(self._source))
        record = self._source[base]
        if not version:
            return record
        size, name = record["image"].shape[:2], record["image_id"]
        self._check(name, size)
        style = self.styles[version - 1]
        copy = _read_copy(self._folder, style, name, size)
        return Record(**{**record, "image": copy, "image_id": f"{name}@{style}"})

    def check(self) -> None:
        """Looks for every copy on disk, and for the first and the last original in the manifest.

        Raises:
          UserError: copies are missing, or they are of other images.
        """
        images = self._manifest.images or {}
        if len(images) < len(self._source):
            raise UserError(
                f"{self._folder} has copies of {len(images)} images of {self._manifest.dataset}, expected those of "
                f"{len(self._source)}; {_AGAIN}"
            )
        missing = [
            f"{style}/{name}" for style in self.styles for name in images if not find_copy(self._folder, style, name)
        ]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(images) * len(self.styles)} stylised copies are missing from {self._folder}, "
                f"the first is {missing[0]}; {_AGAIN}"
            )
        for index in {0, len(self._source) - 1} if len(self._source) else ():
            record = self._source[index]
            self._check(record["image_id"], record["image"].shape[:2])

    def _check(self, name: str, size: tuple[int, ...]) -> None:
        """Other images of the same name, or generated ones of another size, would not fit the masks."""
        known = (self._manifest.images or {}).get(name)
        if known != size:
            of = f"one of {known[1]}x{known[0]} px" if known else "other images"
            raise UserError(
                f"the copies in {self._folder} (of {self._manifest.dataset}) are not of the training image {name} of "
                f"{size[1]}x{size[0]} px but of {of}; stylise the training data itself (docs/stylised.md)"
            )


class StyledClipSource(StyledSource):
    """Frames of videos and their copies: a clip has its frames in order of time, then their copies, style by style."""

    def __init__(self, source: ClipSource, folder: Path, manifest: Manifest):
        super().__init__(source, folder, manifest)
        offsets = [version * len(source) for version in range(1 + len(self.styles))]
        self.clips = [[offset + frame for offset in offsets for frame in frames] for frames in source.clips]


def styled_source(source: Source, folder: str | Path) -> StyledSource:
    """A source and its stylised copies, of which `check` has found every one.

    A source of still images becomes (1 + styles) times as long; one with `clips` keeps its clips, and a random frame of
    a clip may be any of its copies.

    Args:
      source: originals; the folder may have copies of more images than these.
      folder: made by `python -m ruac_jax.stylise`.

    Raises:
      UserError: no such folder, copies are missing (counted), or they are of other images.
    """
    manifest = read_manifest(Path(folder))
    kind = StyledClipSource if isinstance(source, ClipSource) else StyledSource
    styled = kind(source, Path(folder), manifest)
    styled.check()
    return styled


def _read_copy(folder: Path, style: str, name: str, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    file = find_copy(folder, style, name)
    if file is None:
        raise UserError(f"the stylised copy {style}/{name} is missing from {folder}")
    try:
        pixels = decode_rgb(file.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{file}: not a readable image ({error}); delete it and run stylise again") from error
    if pixels.shape[:2] == size:
        return pixels
    return np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC))


def settings_of(manifest: Manifest) -> dict[str, Any]:
    """What must be equal for two runs to write into one folder."""
    return {name: value for name, value in dataclasses.asdict(manifest).items() if name != "images"}
