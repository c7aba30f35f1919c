"""OVIS: videos of heavily occluded objects, as YouTube-VIS JSON with run lengths.

The folder of frames is called `train`, `OVIS_train` or `train_images` depending on the copy; only the annotations of
train are public.
"""

from pathlib import Path

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.files import find_root
from ruac_jax.data.names import check_split
from ruac_jax.data.readers.youtube_vis import list_youtube_vis


def list_samples(source: Path, split: str) -> Listing:
    """All annotated frames by video.

    Raises:
      UserError: no such split, or not the layout of OVIS.
    """
    check_split(DATASET, split)
    file = f"annotations_{split}.json"
    return list_youtube_vis(find_root(source, file, name="OVIS") / file, source)


DATASET = Dataset(
    name="ovis",
    title="OVIS, videos of heavily occluded objects (Qi et al., 2022)",
    group="egocentric",
    splits={"train": Counts()},
    evaluation_split="train",
    license="CC BY-NC-SA 4.0 by third parties' account",
    download="https://songbai.site/ovis, no registration",
    layout="annotations_train.json and a folder of <video>/img_0000001.jpg ...",
    list_samples=list_samples,
    frames="first",
    notes="valid and test have no public annotations. Half of MOSE's videos come from OVIS, so that a model trained on "
    "MOSE has seen some of these.",
)
