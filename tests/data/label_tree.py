"""Hand-made images, label maps and masks of one object, for the tests of readers and builders of such trees."""

import numpy as np
from PIL import Image

SIZE = (24, 32)  # height, width


def box(top, left, bottom, right, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


# Four objects that do not touch; the third is in two pieces.
OBJECTS = (
    box(2, 2, 9, 8),
    box(2, 12, 6, 30),
    box(12, 0, 15, 5) | box(20, 25, 24, 32),
    box(10, 10, 19, 20),
)


def label_map(values, dtype=np.uint8):
    """Object i of `OBJECTS` has the i-th value; 0 elsewhere."""
    labels = np.zeros(SIZE, dtype)
    for value, mask in zip(values, OBJECTS, strict=False):
        labels[mask] = value
    return labels


def write_image(file, seed=0, size=SIZE):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(file)


def write_labels(file, labels):
    """Grey of 8 or 16 bits, 32-bit numbers or colours, as the array is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(labels)).save(file)


def write_palette(file, labels):
    """Indices into a palette whose colours are far from the indices, some of them equally dark in grey."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    image.putpalette([channel for value in range(256) for channel in ((37 * value) % 256, (91 * value) % 256, value)])
    assert image.mode == "P"
    image.save(file)


def check_masks(sample, expected):
    """Reads a sample's masks, and compares them with those expected in this order."""
    masks = sample.masks(SIZE)
    assert masks.shape == (len(expected), *SIZE)
    np.testing.assert_array_equal(masks[:], np.array(list(expected)).reshape(len(expected), *SIZE))


def truncate(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
