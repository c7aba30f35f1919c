"""Grounds and paints of generated images: colours, noise, light. Lengths in 1/128 of the image's side."""

import colorsys
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

Plane = Float[np.ndarray, "h w"]
Picture = Float[np.ndarray, "h w 3"]
Color = Float[np.ndarray, "3"]


class Patch(NamedTuple):
    """The surroundings of one object, as its paint sees them."""

    x: Plane  # the object's own coordinates, turned with it
    y: Plane
    field: Plane  # distance to the edge, negative inside
    thickness: float  # largest depth inside
    under: Picture  # what lies below, in [0, 1]
    light: Float[np.ndarray, "3"]  # unit vector towards the light: right, down, out of the image


def hsv(hue: float, saturation: float, value: float) -> Color:
    """RGB in [0, 1]; the hue wraps."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32)


def fractal(rng: np.random.Generator, shape: tuple[int, int], cells: int, octaves: int = 4) -> Plane:
    """Smooth noise of about [-1, 1]: octaves of halving size and amplitude, the largest `cells` to a side."""
    total, amplitude = np.zeros(shape, np.float32), 0.6
    for octave in range(octaves):
        count = min(max(2, cells * 2**octave), max(shape))
        grid = rng.uniform(-1, 1, (count, count)).astype(np.float32)
        total += amplitude * np.asarray(Image.fromarray(grid).resize(shape[::-1], Image.Resampling.BICUBIC))
        amplitude *= 0.55
    return total


def mix(low: Color, high: Color, share: Plane) -> Picture:
    """Blends two colours pixel by pixel."""
    return low + (high - low) * share[..., None]


def smooth_ground(rng: np.random.Generator, size: int, low: Color, high: Color, cells: int = 3) -> Picture:
    """Cloudy noise between two colours, under an uneven light."""
    clouds = np.clip(0.5 + 0.55 * fractal(rng, (size, size), cells), 0, 1)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    slope = 1 + 0.45 * (math.cos(angle) * ramp[None, :] + math.sin(angle) * ramp[:, None])
    return mix(low, high, clouds) * slope[..., None]


def matte(patch: Patch, rng: np.random.Generator, color: Color, mottle: float = 0.12, gloss: float = 0.25) -> Picture:
    """A domed body of one colour: lit from one side, faintly mottled, with a soft highlight."""
    height, diffuse, shine = lit_dome(patch)
    spots = 1 + mottle * fractal(rng, patch.x.shape, 3, 3)
    shade = (0.45 + 0.62 * diffuse + 0.08 * height) * spots
    return color * shade[..., None] + gloss * (shine**12)[..., None]


def lit_dome(patch: Patch, steepness: float = 0.9) -> tuple[Plane, Plane, Plane]:
    """Relief of a cushion over the outline: its height in [0, 1], diffuse light and mirror light, in [0, 1]."""
    depth = np.clip(-patch.field / patch.thickness, 0, 1)
    height = np.sqrt(depth * (2 - depth))
    spacing = math.hypot(patch.x[0, 1] - patch.x[0, 0], patch.y[0, 1] - patch.y[0, 0])
    down, right = np.gradient(height * (patch.thickness * steepness / spacing))
    norm = 1 / np.sqrt(1 + down * down + right * right)
    towards = (patch.light[2] - right * patch.light[0] - down * patch.light[1]) * norm
    mirrored = np.clip(2 * towards * norm - patch.light[2], 0, 1)
    return height, np.clip(towards, 0, 1), mirrored


def stripes(x: Plane, y: Plane, angle: float, period: float, phase: float) -> Plane:
    """Soft-edged stripes in [0, 1]."""
    wave = np.sin((x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / period) + phase)
    return 0.5 + 0.5 * np.tanh(2.5 * wave)


def checks(x: Plane, y: Plane, angle: float, period: float, phase: float) -> Plane:
    """A soft-edged chequerboard in [0, 1]."""
    first, second = stripes(x, y, angle, period, phase), stripes(x, y, angle + math.pi / 2, period, phase)
    return first + second - 2 * first * second


def log_end(patch: Patch, rng: np.random.Generator, wood: Color, bark: Color) -> Picture:
    """Sawn wood: growth rings, a few radial cracks, a rim of bark."""
    pith = rng.normal(0, 0.08 * patch.thickness, 2).tolist()
    x, y = patch.x - pith[0], patch.y - pith[1]
    radius = np.hypot(x, y) + 0.9 * fractal(rng, x.shape, 3, 2)
    rings = 0.5 + 0.5 * np.sin(radius * (2 * math.pi / rng.uniform(2.4, 4.0)))
    cracks = np.zeros_like(x)
    for direction in rng.uniform(-math.pi, math.pi, rng.integers(1, 4)).tolist():
        along, across = (
            x * math.cos(direction) + y * math.sin(direction),
            y * math.cos(direction) - x * math.sin(direction),
        )
        end = rng.uniform(0.4, 0.9) * patch.thickness
        np.maximum(cracks, np.clip(1.2 - np.abs(across), 0, 1) * ((along > 0) & (along < end)), out=cracks)
    heart = np.clip(1.15 - radius / patch.thickness, 0, 1)
    face = (
        wood
        * (0.98 - 0.2 * rings - 0.5 * cracks - 0.22 * heart)[..., None]
        * (1 + 0.1 * fractal(rng, x.shape, 8, 2))[..., None]
    )
    rim = np.clip((patch.field + rng.uniform(1.8, 2.8)) / 0.8, 0, 1)[..., None]
    rough = bark * (1 + 0.5 * fractal(rng, x.shape, 10, 2))[..., None]
    return face * (1 - rim) + rough * rim


def cell(patch: Patch, rng: np.random.Generator, body: Color, nucleus: Color) -> Picture:
    """A stained cell: translucent body, granules, a darker membrane and an off-centre nucleus."""
    grain = fractal(rng, patch.x.shape, 7, 3)
    center = rng.normal(0, 0.16 * patch.thickness, 2).tolist()
    radius = patch.thickness * rng.uniform(0.38, 0.5)
    squeeze = rng.uniform(0.8, 1.25)
    core = np.hypot((patch.x - center[0]) * squeeze, (patch.y - center[1]) / squeeze) - radius + 0.8 * grain
    membrane = np.exp(-(((patch.field + 1.0) / 1.1) ** 2))
    picture = 0.4 * patch.under + 0.6 * body * (1 + 0.13 * grain)[..., None]
    picture = picture * (1 - 0.38 * membrane)[..., None]
    inside = np.clip(0.5 - core / 1.5, 0, 1)[..., None]
    return picture * (1 - inside) + nucleus * (1 + 0.25 * grain)[..., None] * inside


def veined(patch: Patch, rng: np.random.Generator, color: Color) -> Picture:
    """A leaf: a pale midrib along the x axis, slanting side veins, blotches."""
    slant, period = rng.uniform(0.5, 0.9), rng.uniform(4.0, 6.5)
    side = stripes(patch.x - np.abs(patch.y) / slant, patch.y, 0.0, period, 0.0) ** 6
    midrib = np.exp(-((patch.y / 0.9) ** 2))
    blotches = 1 + 0.22 * fractal(rng, patch.x.shape, 4, 3)
    _, diffuse, _ = lit_dome(patch, 0.35)
    return color * ((0.6 + 0.45 * diffuse) * blotches * (1 + 0.25 * side + 0.5 * midrib))[..., None]


def brushed(patch: Patch, rng: np.random.Generator, color: Color) -> Picture:
    """Turned metal: fine circular scratches, two bright sectors that follow the light, a dark bevel at the edge."""
    radius, angle = np.hypot(patch.x, patch.y), np.arctan2(patch.y, patch.x)
    scratches = 0.06 * np.sin(radius * (2 * math.pi / rng.uniform(1.4, 2.2)))
    sectors = 0.3 * np.cos(2 * (angle - rng.uniform(0, math.pi)))
    bevel = 0.35 * np.exp(-(((patch.field + 0.6) / 0.9) ** 2))
    return color * (0.8 + scratches + sectors - bevel)[..., None]


def translucent(patch: Patch, rng: np.random.Generator, color: Color, density: float) -> Picture:
    """Absorption as in an X-ray image: thicker in the middle, with a denser rim; multiplies what lies below."""
    depth = np.clip(-patch.field / patch.thickness, 0, 1)
    rim = np.exp(-((patch.field + 0.8) ** 2))
    amount = density * (0.65 + 0.5 * depth + 0.35 * rim + 0.1 * fractal(rng, patch.x.shape, 4, 2))
    return patch.under * np.power(color, amount[..., None])


def gable(patch: Patch, rng: np.random.Generator, color: Color) -> Picture:
    """A roof with a ridge along the object's x axis: one slope in the light, the other in shade, rows of tiles."""
    slope = np.tanh(patch.y * 2.0)
    contrast = rng.uniform(0.1, 0.24) * float(rng.choice([-1, 1]))
    tiles = 0.05 * np.sin(patch.y * (2 * math.pi / 2.2)) + 0.07 * fractal(rng, patch.x.shape, 9, 2)
    eaves = np.clip(1 + patch.field / 1.2, 0, 1) * 0.25
    ridge = 0.12 * np.exp(-((patch.y / 0.7) ** 2))
    return color * (0.95 + contrast * slope + tiles + ridge - eaves)[..., None]
