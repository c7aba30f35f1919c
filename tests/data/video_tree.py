"""Hand-made video trees with index masks, for the tests of readers, builders and commands."""

import numpy as np
from PIL import Image


def frame_image(seed, height=24, width=32):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def frame_labels(objects, height=24, width=32):
    """Object i covers a column band of three pixels."""
    labels = np.zeros((height, width), np.uint8)
    for number, value in enumerate(objects):
        labels[4:20, 2 + 5 * number : 5 + 5 * number] = value
    return labels


def write_image(file, seed):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame_image(seed)).save(file, quality=90)


def write_mask(file, objects):
    """A palette PNG, as MOSE has them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(frame_labels(objects))
    image.putpalette([channel for value in range(256) for channel in ((37 * value) % 256, (91 * value) % 256, value)])
    assert image.mode == "P"
    image.save(file)


CLIPS = {"aa11": [(1, 2), (2,), ()], "bb22": [(1,), (1, 3)], "cc33": [()]}


def write_mose(root, clips=CLIPS):
    """`clips`: name -> objects of each frame; None in place of objects: a frame without annotation."""
    for number, (clip, frames) in enumerate(sorted(clips.items())):
        for index, objects in enumerate(frames):
            write_image(root / "JPEGImages" / clip / f"{index:05d}.jpg", 100 * number + index)
            if objects is not None:
                write_mask(root / "Annotations" / clip / f"{index:05d}.png", objects)
    return root
