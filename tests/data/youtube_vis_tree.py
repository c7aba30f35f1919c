"""Hand-made YouTube-VIS files and frames, for the tests of the reader and of the builder of OVIS."""

import json

from .coco_tree import SIZE, write_image


def frame_names(video, frames):
    """Names of a video's frames as OVIS has them: from 1, seven digits."""
    return [f"{video}/img_{number:07d}.jpg" for number in range(1, frames + 1)]


def video_entry(number, names, size=SIZE):
    """An entry of `videos`."""
    return {"id": number, "height": size[0], "width": size[1], "length": len(names), "file_names": names}


def track(number, video, segmentations, **more):
    """An entry of `annotations`."""
    return {"id": number, "video_id": video, "category_id": 1, "iscrowd": 0, "segmentations": segmentations, **more}


def write_youtube_vis(file, videos, tracks, frames=None):
    """An annotation file, and below the folder `frames` the frames that it names."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"info": {}, "videos": videos, "annotations": tracks, "categories": []}))
    for video in videos if frames is not None else ():
        for name in video["file_names"]:
            write_image(frames / name)
    return file
