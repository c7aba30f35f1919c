"""MOSE (and data in DAVIS's layout): `<split>/JPEGImages/<video>/*.jpg` with index masks in `Annotations`.

Training uses every annotated frame, evaluation the first frame of each video.
"""

from ruac_jax.data.dataset import Counts, Dataset
from ruac_jax.data.readers.video_frames import list_frames

DATASET = Dataset(
    name="mose",
    title="MOSE, complex scenes with crowds and occlusion (Ding et al., 2023)",
    group="source",
    splits={"train": Counts(), "valid": Counts(images=311)},
    evaluation_split="valid",
    license="CC BY-NC-SA 4.0",
    download="https://mose.video, no registration",
    layout="train/ and valid/, each with JPEGImages/<video>/*.jpg and Annotations/<video>/*.png; or videos in DAVIS's "
    "layout",
    list_samples=list_frames,
    frames="all",
    notes="Only the first frames of valid are published with masks. Half of MOSE's videos come from OVIS. A part of "
    "train can be prepared under a split name of its own with --clips, e.g. SAM2's list of 200 clips for validation.",
)
