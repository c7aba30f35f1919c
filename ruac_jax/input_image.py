"""From a user's picture to the network's input: RGB, stretched to a square as PyTorch's SAM2 does it."""

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps

from ruac_jax.errors import UserError


def to_rgb(image: Any) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels of a picture: grey becomes three equal channels, transparency is dropped, not blended.

    Args:
      image: uint8 numpy array `[h, w]` (grey), `[h, w, 1]`, `[h, w, 3]` (RGB) or `[h, w, 4]` (RGBA), or a PIL image
        of 8 bits a channel, which is turned upright by its orientation tag.

    Raises:
      UserError: anything else, or an image without a pixel.
    """
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if not isinstance(image, np.ndarray):
        raise UserError(f"image: expected a numpy array or a PIL image, found {type(image).__name__}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        hint = "; move the channels last: image.transpose(1, 2, 0)" if image.ndim == 3 and image.shape[0] == 3 else ""
        raise UserError(f"image: expected shape (H, W), (H, W, 3) or (H, W, 4), found {image.shape}{hint}")
    if image.dtype != np.uint8:
        raise UserError(
            f"image: expected uint8 from 0 to 255, found {image.dtype}; convert values from 0 to 1 by "
            "(255 * image).round().astype(np.uint8)"
        )
    if not image.size:
        raise UserError(f"image: expected at least one pixel, found shape {image.shape}")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[:, :, :3])


def _from_pil(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if image.mode.startswith(("I", "F")):
        raise UserError(f"image: expected 8 bits a channel, found a PIL image of mode {image.mode!r}; convert it first")
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "P":
            upright = upright.convert("RGBA")  # by way of it, since palettes may hold transparency
        return np.array(upright.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"image: not a readable PIL image ({error})") from error


def network_input(image: UInt8[np.ndarray, "h w 3"], size: int) -> Float[np.ndarray, "{size} {size} 3"]:
    """Stretches an image to a square, bilinearly, with antialiasing where it shrinks; float32 in [0, 255].

    Without rounding, as torchvision resizes floating point tensors; so up to half a grey level from the stretched
    images that datasets keep.
    """
    if image.shape[:2] == (size, size):
        return image.astype(np.float32)
    planes = [
        Image.fromarray(image[:, :, channel].astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
        for channel in range(3)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)
