"""Augmentations of the training recipe (appendix C.2, as in SAM2), each a pure function of its generator.

Order: flip, affine, resize to a square, colour jitter, greyscale, a second colour jitter. Images are
interpolated bilinearly (with antialiasing where they shrink), masks by nearest neighbour; both share one
geometry, in which pixel (0, 0) covers the square from (0, 0) to (1, 1). Normalisation happens on the device.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageEnhance

from ruac_jax.data.record import Record

FILL = (123, 116, 103)  # ImageNet's mean colour, for what an affine map uncovers
_AFFINE_ATTEMPTS = 8


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Largest relative change of each property: factors are drawn from [1 - x, 1 + x]."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Strength of each step; all zeros is a plain resize."""

    flip: float = 0.5  # probability
    rotation: float = 25.0  # degrees, either way
    shear: float = 20.0  # degrees, either way
    jitter: Jitter = Jitter(0.1, 0.03, 0.03)
    greyscale: float = 0.05  # probability
    second_jitter: Jitter = Jitter(0.1, 0.05, 0.05)


FULL_AUGMENTATION = Augmentation()
NO_AUGMENTATION = Augmentation(0.0, 0.0, 0.0, Jitter(), 0.0, Jitter())


def augment(record: Record, settings: Augmentation, size: int, rng: np.random.Generator) -> Record:
    """Applies the whole recipe.

    Args:
      record: image and masks of any size.
      settings: strengths.
      size: side of the square that comes out, px.
      rng: source of every random number.

    Returns:
      The record at size x size. A mask may have become empty by shrinking.
    """
    image, masks = record["image"], record["masks"]
    if rng.random() < settings.flip:
        image, masks = flip(image, masks)
    if settings.rotation or settings.shear:
        image, masks = random_affine(image, masks, settings.rotation, settings.shear, rng)
    image, masks = resize(image, masks, size)
    image = color_jitter(image, settings.jitter, rng)
    if rng.random() < settings.greyscale:
        image = greyscale(image)
    image = color_jitter(image, settings.second_jitter, rng)
    return Record(image=image, masks=masks, image_id=record["image_id"])


def flip(
    image: UInt8[np.ndarray, "h w 3"], masks: Bool[np.ndarray, "n h w"]
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "n h w"]]:
    """Mirrors left and right."""
    return np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(masks[:, :, ::-1])


def affine_matrix(rotation: float, shear: float) -> Float[np.ndarray, "2 2"]:
    """Linear map of image coordinates (x right, y down): a shear along x, then a clockwise rotation.

    Both in degrees; the same map as torchvision's `affine(angle=rotation, shear=(shear, 0))`.
    """
    turn, slant = math.radians(rotation), math.radians(shear)
    rotate = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return rotate @ np.array([[1.0, -math.tan(slant)], [0.0, 1.0]])


def affine(
    image: UInt8[np.ndarray, "h w 3"], masks: Bool[np.ndarray, "n h w"], rotation: float, shear: float
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "n h w"]]:
    """Rotates and shears about the image's centre; uncovered pixels get `FILL` and belong to no object."""
    height, width = image.shape[:2]
    center = np.array([width / 2, height / 2])
    inverse = np.linalg.inv(affine_matrix(rotation, shear))
    offset = center - inverse @ center
    coefficients = (*inverse[0], offset[0], *inverse[1], offset[1])
    moved = Image.fromarray(image).transform(
        (width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=FILL
    )
    planes = [
        Image.fromarray(plane).transform((width, height), Image.Transform.AFFINE, coefficients)
        for plane in _pack(masks)
    ]
    return np.array(moved), _unpack(planes, len(masks), height, width)


def random_affine(
    image: UInt8[np.ndarray, "h w 3"],
    masks: Bool[np.ndarray, "n h w"],
    rotation: float,
    shear: float,
    rng: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "n h w"]]:
    """Draws rotation and shear within the bounds (degrees), anew where an object would vanish.

    After 8 draws that each lose an object the input comes back as it is.
    """
    for _ in range(_AFFINE_ATTEMPTS):
        angles = rng.uniform(-rotation, rotation), rng.uniform(-shear, shear)
        moved_image, moved_masks = affine(image, masks, *angles)
        if (moved_masks.any(axis=(1, 2)) == masks.any(axis=(1, 2))).all():
            return moved_image, moved_masks
    return image, masks


def resize(
    image: UInt8[np.ndarray, "h w 3"], masks: Bool[np.ndarray, "n h w"], size: int
) -> tuple[UInt8[np.ndarray, "{size} {size} 3"], Bool[np.ndarray, "n {size} {size}"]]:
    """Stretches to a square: the image bilinearly with antialiasing, masks by nearest neighbour."""
    if image.shape[:2] == (size, size):
        return image, masks
    planes = [Image.fromarray(plane).resize((size, size), Image.Resampling.NEAREST) for plane in _pack(masks)]
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(resized), _unpack(planes, len(masks), size, size)


def color_jitter(
    image: UInt8[np.ndarray, "h w 3"], jitter: Jitter, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Changes brightness, contrast and saturation by random factors, in random order.

    As torchvision's ColorJitter: brightness blends with black, contrast with the mean luminance, saturation
    with the pixel's own luminance.
    """
    if jitter == Jitter():
        return image
    enhancers = (
        (ImageEnhance.Brightness, jitter.brightness),
        (ImageEnhance.Contrast, jitter.contrast),
        (ImageEnhance.Color, jitter.saturation),
    )
    picture = Image.fromarray(image)
    for index in rng.permutation(3):
        enhancer, strength = enhancers[index]
        picture = enhancer(picture).enhance(rng.uniform(1 - strength, 1 + strength))
    return np.array(picture)


def greyscale(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Luminance (ITU-R 601) in all three channels."""
    return np.array(Image.fromarray(image).convert("L").convert("RGB"))


def _pack(masks: Bool[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "m h w"]:
    """Eight masks to a byte: nearest-neighbour resampling treats bits alike, overlaps included."""
    return np.packbits(masks, axis=0)


def _unpack(planes: list[Image.Image], count: int, height: int, width: int) -> Bool[np.ndarray, "n h w"]:
    if not planes:
        return np.zeros((0, height, width), bool)
    return np.unpackbits(np.stack([np.asarray(plane) for plane in planes]), axis=0, count=count).astype(bool)
