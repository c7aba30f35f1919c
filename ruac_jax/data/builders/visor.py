"""VISOR: hands and kitchen objects seen by the person who cooks, polygons in JSON, one file per video.

`annotations/<split>/<video>.json` with `rgb_frames/<split>/<Pxx>/<video>.zip`, one archive of frames per video, read
without unpacking; frames that are unpacked, in whatever folders below `rgb_frames/<split>`, are taken first. Points
are in pixels of 1920x1080.
"""

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile, ZipFile
from zipfile import Path as ZipPath

from ruac_jax.data.dataset import BadFileError, Counts, Dataset, Listing, Sample
from ruac_jax.data.files import IMAGE_ENDINGS, find_root, is_junk, list_files, read_json
from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.names import check_split, natural_key
from ruac_jax.data.readers.segmentation import read_listed_segmentations
from ruac_jax.errors import UserError

_WIDTH, _HEIGHT = 1920, 1080  # of the annotation


def list_samples(source: Path, split: str) -> Listing:
    """Annotated frames by subsequence, which is a stretch of a video with the same objects.

    Raises:
      UserError: no such split, or not the layout of VISOR.
    """
    check_split(DATASET, split)
    root = find_root(source, f"annotations/{split}/*.json", f"rgb_frames/{split}", name="VISOR")
    frames, problems = _find_frames(root / "rgb_frames" / split)
    samples: dict[str, Sample] = {}
    for file in list_files(root / "annotations" / split, (".json",)):
        for entry in _read_entries(file):
            try:
                name, clip, objects = _read_entry(entry)
                if name not in frames:
                    raise ValueError(f"no image {name} in or below {root / 'rgb_frames' / split}")
                image_id = f"{clip}/{PurePosixPath(name).stem}"
                if image_id in samples:
                    raise ValueError(f"frame {name} of {clip} comes twice")
            except ValueError as error:
                problems.append(f"{file}: {error}")
                continue
            masks = partial(_read_masks, frames[name], file, objects)
            samples[image_id] = Sample(image_id, frames[name], masks, (file,), clip)
    return Listing([samples[image_id] for image_id in sorted(samples, key=natural_key)], problems)


def _find_frames(folder: Path) -> tuple[dict[str, Path | ZipPath], list[str]]:
    """Frames by file name, which names the video too, and archives that cannot be read."""
    files = [file for file in sorted(folder.rglob("*")) if not _is_junk(file.relative_to(folder))]
    frames: dict[str, Path | ZipPath] = {}
    problems = []
    for file in files:
        if file.suffix.lower() == ".zip":
            try:
                archive = ZipFile(file)
            except (BadZipFile, OSError) as error:
                problems.append(f"{file}: not a readable zip ({error})")
                continue
            members = {PurePosixPath(name): name for name in archive.namelist()}
            frames |= {path.name: ZipPath(archive, name) for path, name in members.items() if _is_frame(path)}
    return frames | {file.name: file for file in files if _is_frame(file)}, problems


def _is_frame(path: PurePosixPath | Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS and not _is_junk(path)


def _is_junk(path: PurePosixPath | Path) -> bool:
    return any(is_junk(Path(part)) for part in path.parts)


def _read_entries(file: Path) -> list[Any]:
    content = read_json(file)
    entries = content.get("video_annotations") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(f"{file}: expected VISOR's list video_annotations")
    return entries


def _read_entry(entry: Any) -> tuple[str, str, list[Any]]:
    """A frame's file name, its subsequence, and rings of each object.

    Raises:
      ValueError: one of them is missing.
    """
    try:
        name, clip = entry["image"]["name"], entry["image"]["subsequence"]
        objects = [annotation["segments"] for annotation in entry["annotations"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"a frame without image name, subsequence or segments: {entry!r:.60}") from error
    if not isinstance(name, str) or not isinstance(clip, str) or not clip:
        raise ValueError(f"a frame whose image name or subsequence is no text: {entry!r:.60}")
    return name, clip, objects


def _read_masks(image: Path | ZipPath, annotations: Path, objects: list[Any], size: tuple[int, int]) -> RunLengthMasks:
    """Masks of the objects; an object's rings are united, at the image's own size."""
    scale_x, scale_y = size[1] / _WIDTH, size[0] / _HEIGHT
    try:
        scaled = [[[[x * scale_x, y * scale_y] for x, y in ring] for ring in rings] for rings in objects]
    except (TypeError, ValueError) as error:
        raise BadFileError(f"{image}: {annotations} has rings that are no lists of points ({error})") from error
    return read_listed_segmentations(image, annotations, scaled, size)


DATASET = Dataset(
    name="visor",
    title="VISOR, hands and objects in egocentric kitchen videos (Darkhalil et al., 2022)",
    group="egocentric",
    splits={"train": Counts(), "val": Counts()},
    evaluation_split="val",
    license="CC BY-NC 4.0",
    download="https://data.bris.ac.uk/data/dataset/2v6cgv1x04ol22qp9rm9x2j6a7 (GroundTruth-SparseAnnotations), no "
    "registration",
    layout="annotations/<split>/<video>.json and rgb_frames/<split>/<Pxx>/<video>.zip, packed or not",
    list_samples=list_samples,
    frames="first",
    notes="Outlines of 1920x1080 are scaled to frames of another size. The first frame is that of each subsequence, of "
    "which a video has several.",
)
