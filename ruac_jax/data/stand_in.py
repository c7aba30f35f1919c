"""A stand-in for diffusion: restyles an image by filters, so that StyleGen's rows can be run where no checkpoint is.

It does not read the prompt: another text is another style, drawn once from the text (palette, texture, softness,
outlines), and varied a little from image to image. Shapes and positions stay, so it has none of the semantic drift that
the paper blames for StyleGen's results (appendix P.2): it says nothing about diffusion.
"""

import dataclasses
import math
import zlib

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter

from ruac_jax.data.drawing.surfaces import Picture, Plane, checks, fractal, hsv, stripes

STAND_IN = "stand-in"
_TEXTURES = ("clouds", "strokes", "weave", "grain")


@dataclasses.dataclass(frozen=True)
class Style:
    """What a prompt stands for. Lengths in 1/128 of the image's shorter side."""

    hue: float  # of the middle tones
    turn: float  # of the hue from dark to bright, in full circles
    saturation: float
    dark: float  # brightness of the darkest and the brightest tone
    bright: float
    texture: str
    period: float
    contrast: float  # of the texture
    softness: float  # sigma of the blur
    outlines: float  # negative: bright outlines
    levels: int  # of brightness; 0: no steps


def style_of(prompt: str) -> Style:
    """The style of a text: the same on every machine."""
    rng = np.random.default_rng([zlib.crc32(prompt.encode())])
    return Style(
        hue=rng.uniform(),
        turn=rng.uniform(-0.4, 0.4),
        saturation=rng.uniform(0.15, 0.75),
        dark=rng.uniform(0.0, 0.3),
        bright=rng.uniform(0.7, 1.0),
        texture=_TEXTURES[rng.integers(len(_TEXTURES))],
        period=rng.uniform(2.5, 7.0),
        contrast=rng.uniform(0.08, 0.3),
        softness=rng.uniform(0.0, 1.3),
        outlines=rng.uniform(-0.5, 0.9),
        levels=int(rng.choice([0, 0, 5, 8])),
    )


def stand_in_stylisation(
    image: UInt8[np.ndarray, "h w 3"], prompt: str, seed: int, strength: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Restyles an image; the same arguments give the same pixels.

    Args:
      image: RGB.
      prompt: stands for a style, see `style_of`.
      seed: of this copy's variation within the style.
      strength: share of the new colours, texture and outlines, in (0, 1].
    """
    rng = np.random.default_rng(seed)
    style = _varied(style_of(prompt), rng)
    unit = min(image.shape[:2]) / 128
    original = image.astype(np.float32) / 255
    soft = gaussian_filter(original, (style.softness * unit, style.softness * unit, 0), mode="nearest")
    tone = _tone(soft, style.levels)
    painted = _palette(tone, style) * (1 + style.contrast * _texture(tone.shape, style, unit, rng))[..., None]
    painted += 0.35 * (soft - soft.mean(axis=2, keepdims=True))  # some of its own colours, else same tones would merge
    lines = np.clip(6 * unit * _edges(gaussian_filter(tone, 0.6 * unit)), 0, 1)[..., None]
    painted = painted * (1 - max(style.outlines, 0.0) * lines) + max(-style.outlines, 0.0) * lines
    share = np.float32(0.3 + 0.7 * strength)
    return np.rint(255 * np.clip(original + share * (painted - original), 0, 1)).astype(np.uint8)


def _varied(style: Style, rng: np.random.Generator) -> Style:
    return dataclasses.replace(
        style,
        hue=style.hue + rng.normal(0, 0.02),
        saturation=style.saturation * rng.uniform(0.85, 1.15),
        period=style.period * rng.uniform(0.85, 1.2),
        contrast=style.contrast * rng.uniform(0.8, 1.2),
        softness=style.softness * rng.uniform(0.8, 1.2),
    )


def _tone(image: Picture, levels: int) -> Plane:
    """Brightness stretched to [0, 1] between its 1st and 99th percentile, in steps where the style has them."""
    light = image @ np.array([0.299, 0.587, 0.114], np.float32)
    low, high = np.percentile(light, [1, 99]).tolist()
    tone = np.clip((light - low) / max(high - low, 1e-3), 0, 1)
    return np.rint(tone * (levels - 1)) / (levels - 1) if levels else tone


def _palette(tone: Plane, style: Style) -> Picture:
    """Colours from dark to bright."""
    at = np.linspace(0, 1, 5)
    colors = np.stack(
        [
            hsv(style.hue + style.turn * (x - 0.5), style.saturation, style.dark + (style.bright - style.dark) * x)
            for x in at.tolist()
        ]
    )
    return np.stack([np.interp(tone, at, channel) for channel in colors.T], axis=2).astype(np.float32)


def _texture(shape: tuple[int, int], style: Style, unit: float, rng: np.random.Generator) -> Float[np.ndarray, "h w"]:
    """About [-1, 1]."""
    y, x = (np.arange(n, dtype=np.float32) / unit for n in shape)
    x, y = np.meshgrid(x, y)
    angle, phase = rng.uniform(0, math.pi), rng.uniform(0, 2 * math.pi)
    if style.texture == "strokes":
        bend = 2 * style.period * fractal(rng, shape, 3, 2)
        return 2 * stripes(x + bend, y, angle, style.period, phase) - 1
    if style.texture == "weave":
        return 2 * checks(x, y, angle, style.period, phase) - 1
    if style.texture == "grain":
        grain = gaussian_filter(rng.standard_normal(shape, np.float32), 0.4 * unit)
        return np.clip(grain / max(float(grain.std()), 1e-6), -2, 2)
    return 1.5 * fractal(rng, shape, max(2, round(128 / style.period / 3)), 4)


def _edges(tone: Plane) -> Plane:
    down, right = np.gradient(tone)
    return np.hypot(down, right)
