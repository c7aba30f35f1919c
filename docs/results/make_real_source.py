"""Puts DAVIS-2016 frames and the photos of COCO128-seg and BSDS500 into two COCO datasets, `train` and `validation`.

`python docs/results/make_real_source.py --data SAMPLES --output DIR`; SAMPLES holds `davis2016_val` (JPEGImages and
Annotations in 480p), `coco128_seg` (images, and labels in YOLO's format: class and polygon per line, in fractions)
and `bsds500` (images, and groundTruth in MATLAB files). For validation: every fourth DAVIS sequence, every fifth COCO
photo, BSDS's split of that name. All are reduced to 256 px, twice what the small network sees: at their own size one
CPU core spends ten times longer on augmenting a batch than on the step.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco
from scipy.io import loadmat

MIN_SHARE = 0.005  # of the image: smaller objects are dropped, 9 x 9 of the small network's 128 x 128 px
LONGER_EDGE = 256  # px
SPLITS = ("train", "validation")
FOLDERS = ("davis2016_val", "coco128_seg", "bsds500")
FRAME_STEP = 6  # neighbouring frames differ too little


def davis(folder: Path) -> Iterator[tuple[bool, Path, list[np.ndarray]]]:
    """(for validation, image, masks) of every frame."""
    for number, sequence in enumerate(sorted((folder / "JPEGImages/480p").iterdir())):
        for image in sorted(sequence.glob("*.jpg")):
            if int(image.stem) % FRAME_STEP == 0:
                label = Image.open(folder / "Annotations/480p" / sequence.name / f"{image.stem}.png")
                yield number % 4 == 3, image, [np.asarray(label.convert("L")) > 127]


def coco128(folder: Path) -> Iterator[tuple[bool, Path, list[np.ndarray]]]:
    """(for validation, image, masks) of every photo."""
    for number, image in enumerate(sorted((folder / "images/train2017").glob("*.jpg"))):
        width, height = Image.open(image).size
        label = folder / "labels/train2017" / f"{image.stem}.txt"
        masks = []
        for line in label.read_text().splitlines() if label.exists() else []:
            points = np.array(line.split()[1:], float).reshape(-1, 2) * (width, height)
            if len(points) >= 3:
                masks.append(coco.decode(coco.frPyObjects([points.ravel().tolist()], height, width)[0]) > 0)
        yield number % 5 == 4, image, masks


def bsds500(folder: Path) -> Iterator[tuple[bool, Path, list[np.ndarray]]]:
    """(for validation, image, masks) of every photo: the regions of the person who drew the fewest."""
    for split in ("train", "test", "val"):
        for image in sorted((folder / "images" / split).glob("*.jpg")):
            drawn = loadmat(folder / "groundTruth" / split / f"{image.stem}.mat")["groundTruth"].ravel()
            labels = min((person["Segmentation"][0, 0] for person in drawn), key=np.max)
            yield split == "val", image, [labels == number for number in np.unique(labels)]


def reduced(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels of the smaller image that are covered by half or more."""
    return np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)) >= 0.5


def main() -> None:
    """Writes both datasets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    for folder in FOLDERS:
        if not (options.data / folder).is_dir():
            parser.error(f"expected {', '.join(FOLDERS)} in --data {options.data}; found no {folder}")
    splits = {name: {"images": [], "annotations": [], "categories": [{"id": 1, "name": "object"}]} for name in SPLITS}
    for folder, read in zip(FOLDERS, (davis, coco128, bsds500), strict=True):
        prefix = folder.partition("_")[0]
        for validation, image, masks in read(options.data / folder):
            name = SPLITS[validation]
            content, number = splits[name], len(splits[name]["images"]) + 1
            file = f"{prefix}-{image.parent.name}-{image.name}"
            (options.output / name / "images").mkdir(parents=True, exist_ok=True)
            picture = Image.open(image).convert("RGB")
            scale = LONGER_EDGE / max(picture.size)
            width, height = size = tuple(round(edge * scale) for edge in picture.size)
            resized = picture.resize(size, Image.Resampling.BICUBIC)
            resized.save(options.output / name / "images" / file, quality=95)
            content["images"].append({"id": number, "file_name": file, "width": width, "height": height})
            for mask in (reduced(mask, size) for mask in masks):
                if mask.mean() < MIN_SHARE:
                    continue
                runs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
                runs["counts"] = runs["counts"].decode()
                annotation = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
                content["annotations"].append({**annotation, "area": int(mask.sum()), "segmentation": runs})
    for name, content in splits.items():
        (options.output / name / "annotations.json").write_text(json.dumps(content))
        print(f"{name}: {len(content['images'])} images, {len(content['annotations'])} objects")


if __name__ == "__main__":
    main()
