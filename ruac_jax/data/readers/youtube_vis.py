"""YouTube-VIS JSON: `videos` with their frames, and `annotations`, each the track of one object.

A track holds one segmentation per frame, null where the object is not to be seen.
"""

from collections import Counter
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ruac_jax.data.dataset import Listing, Sample
from ruac_jax.data.files import list_folders, read_json
from ruac_jax.data.names import natural_key
from ruac_jax.data.readers.segmentation import read_listed_segmentations
from ruac_jax.errors import UserError

_MAX_DEPTH = 4
Entry = dict[str, Any]


def list_youtube_vis(annotations: Path, source: Path) -> Listing:
    """Every frame of every video, in order of time; a frame's objects are the tracks that have a shape in it.

    Frames are looked for in the folder at or below `source` where the names that the file lists exist. Crowds
    (`iscrowd` 1) are left out. A video that cannot be read in full is a problem and left out as a whole.

    Raises:
      UserError: no YouTube-VIS file, no tracks in it, no folder with its frames, or several.
    """
    videos, tracks = _read_index(annotations)
    problems = _find_strays(annotations, videos, tracks)
    by_video: dict[Any, list[Entry]] = {}
    for track in tracks:
        by_video.setdefault(track.get("video_id"), []).append(track)
    ids = Counter(video["id"] for video in videos)
    clips = Counter(_clip(video) for video in videos)
    root = _find_frames(annotations, source, videos)
    samples = []
    for video in sorted(videos, key=lambda video: natural_key(_clip(video))):
        try:
            if ids[video["id"]] > 1 or clips[_clip(video)] > 1:
                raise ValueError("another video has its id or folder")
            shapes = _shapes_by_frame(video, by_video.get(video["id"], []))
        except ValueError as error:
            problems.append(f"{annotations}: video {video['id']} ({_clip(video)}): {error}")
            continue
        listed = (video.get("height"), video.get("width"))
        there = {file.name for file in (root / _clip(video)).iterdir()} if (root / _clip(video)).is_dir() else set()
        for name, segmentations in zip(video["file_names"], shapes, strict=True):
            file = root / name
            if file.name not in there:
                problems.append(f"{file}: no such image, {annotations} lists it")
                continue
            masks = partial(read_listed_segmentations, file, annotations, segmentations, listed=listed)
            image_id = PurePosixPath(name).with_suffix("").as_posix()
            samples.append(Sample(image_id, file, masks, (annotations,), _clip(video)))
    return Listing(samples, problems)


def _read_index(annotations: Path) -> tuple[list[Entry], list[Entry]]:
    """`videos` and `annotations`."""
    index = read_json(annotations)
    videos, tracks = (index.get(key) for key in ("videos", "annotations")) if isinstance(index, dict) else (None, None)
    if not isinstance(videos, list) or not all(isinstance(entry, dict) for entry in videos):
        raise UserError(f"{annotations}: expected YouTube-VIS' lists videos and annotations, found no list of videos")
    for video in videos:
        names = video.get("file_names")
        if not isinstance(video.get("id"), int | str) or not isinstance(names, list) or not names:
            raise UserError(f"{annotations}: a video without id or file_names: {video!r:.60}")
        if not all(isinstance(name, str) and PurePosixPath(name).parent.name for name in names):
            raise UserError(f"{annotations}: expected file_names like <video>/<frame>.jpg in video {video['id']}")
    if not isinstance(tracks, list) or not tracks or not all(isinstance(entry, dict) for entry in tracks):
        raise UserError(f"{annotations}: no tracks; the file of a split with public annotations is needed")
    return videos, tracks


def _find_strays(annotations: Path, videos: list[Entry], tracks: list[Entry]) -> list[str]:
    known = {video["id"] for video in videos}
    strays = [str(track.get("id")) for track in tracks if track.get("video_id") not in known]
    return [f"{annotations}: tracks of videos that it does not list: {', '.join(strays)}"] if strays else []


def _clip(video: Entry) -> str:
    return PurePosixPath(video["file_names"][0]).parent.as_posix()


def _find_frames(annotations: Path, source: Path, videos: list[Entry]) -> Path:
    """The folder that frames' names are relative to; told by the first video that has its first frame there."""

    def folders(folder: Path, depth: int) -> list[Path]:
        below = list_folders(folder) if depth else []
        return [folder, *(deeper for child in below for deeper in folders(child, depth - 1))]

    places = folders(source, _MAX_DEPTH)
    for video in videos:
        found = [folder for folder in places if (folder / video["file_names"][0]).is_file()]
        if len(found) > 1:
            raise UserError(f"{source} holds the frames more than once, keep one of {', '.join(map(str, found))}")
        if found:
            return found[0]
    raise UserError(f"{source} has no folder with the frames of {annotations}, such as {videos[0]['file_names'][0]}")


def _shapes_by_frame(video: Entry, tracks: list[Entry]) -> list[list[Any]]:
    """Segmentations of each frame.

    Raises:
      ValueError: frames of several folders or twice the same, or a track that does not have an entry for each frame.
    """
    names = video["file_names"]
    if len(set(names)) < len(names) or {PurePosixPath(name).parent.as_posix() for name in names} != {_clip(video)}:
        raise ValueError("its file_names repeat, or lie in several folders")
    shapes: list[list[Any]] = [[] for _ in names]
    for track in tracks:
        segmentations = track.get("segmentations")
        if not isinstance(segmentations, list) or len(segmentations) != len(names):
            found = len(segmentations) if isinstance(segmentations, list) else "no"
            raise ValueError(f"track {track.get('id')} has {found} segmentations for {len(names)} frames")
        if not track.get("iscrowd"):
            for frame, segmentation in zip(shapes, segmentations, strict=True):
                if segmentation is not None:
                    frame.append(segmentation)
    return shapes
