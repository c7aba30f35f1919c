"""Puts a scene's objects into its image, with light, shadows and exact masks."""

import math

import numpy as np
from jaxtyping import Bool, Float, UInt8

from ruac_jax.data.drawing.scenes import Scene
from ruac_jax.data.drawing.surfaces import Patch

_SIDE = 128.0  # scenes measure lengths in 1/128 of the side
_MIN_AREA = 60.0  # of every object's visible part, in square units
_MIN_VISIBLE = 0.4  # share of an object that later ones must leave uncovered
_ATTEMPTS = 200

Box = tuple[slice, slice]


def draw(scene: Scene, rng: np.random.Generator) -> tuple[UInt8[np.ndarray, "s s 3"], UInt8[np.ndarray, "s s"], int]:
    """Places, paints and annotates the objects of a scene.

    Returns:
      The image; a map whose bit i is set where object i is visible; the number of objects, 1 to 8.
    """
    size = scene.ground.shape[0]
    unit = _SIDE / size
    image = scene.ground.astype(np.float32)
    bits = np.zeros((size, size), np.uint8)
    tilt = rng.uniform(-2.6, -0.5)
    light = np.array([0.6 * math.cos(tilt), 0.6 * math.sin(tilt), 0.8], np.float32)
    placed: list[tuple[float, float, float]] = []
    whole: list[int] = []  # px of each object as painted, and what later ones left of it
    visible: list[int] = []
    wanted = int(rng.integers(scene.count[0], scene.count[1] + 1))
    for attempt in range(_ATTEMPTS):
        if len(placed) == wanted or (placed and attempt > 12 * wanted):
            break
        radius = rng.uniform(*scene.radius)
        x, y = _place(scene, placed, radius, rng)
        if any(math.hypot(x - px, y - py) < scene.spacing * (radius + pr) for px, py, pr in placed):
            continue
        outline = scene.outline(rng, radius)
        angle = rng.uniform(0, 2 * math.pi) if scene.grid is None else scene.grid + rng.integers(4) * math.pi / 2
        window, local_x, local_y = _window(x, y, outline.reach + 8, float(angle), size)
        field = outline.field(local_x, local_y).astype(np.float32)
        inside = field < 0
        area = int(np.count_nonzero(inside))
        covered = [0] * len(placed) if scene.see_through else _count_bits(bits[window][inside], len(placed))
        remaining = [left - hidden for left, hidden in zip(visible, covered, strict=True)]
        least = [max(_MIN_AREA / unit**2, _MIN_VISIBLE * painted) for painted in whole]
        if area * unit**2 < _MIN_AREA or any(r < limit for r, limit in zip(remaining, least, strict=True)):
            continue
        if not scene.see_through:
            bits[window][inside] = 0
        bits[window][inside] |= np.uint8(1 << len(placed))
        _cast_shadow(image[window], field, light, scene.shadow, unit)
        near = _bounds(field < unit)
        under = image[window][near]
        patch = Patch(local_x[near], local_y[near], field[near], float(outline.thickness), under, light)
        cover = np.clip(0.5 - field[near] / unit, 0, 1)[..., None]
        under += (scene.paint(patch, rng) - under) * cover
        placed.append((x, y, radius))
        visible = [*remaining, area]
        whole.append(area)
    image = np.clip(scene.finish(np.clip(image, 0, 1), rng), 0, 1)
    return (image * 255 + 0.5).astype(np.uint8), bits, len(placed)


def _place(
    scene: Scene, placed: list[tuple[float, float, float]], radius: float, rng: np.random.Generator
) -> tuple[float, float]:
    if scene.cluster and placed:
        px, py, pr = placed[rng.integers(len(placed))]
        angle, distance = rng.uniform(0, 2 * math.pi), (radius + pr) * rng.uniform(scene.spacing, scene.spacing + 0.12)
        x, y = px + distance * math.cos(angle), py + distance * math.sin(angle)
        return min(max(x, 4.0), _SIDE - 4), min(max(y, 4.0), _SIDE - 4)
    return rng.uniform(scene.margin, _SIDE - scene.margin), rng.uniform(scene.margin, _SIDE - scene.margin)


def _window(
    x: float, y: float, reach: float, angle: float, size: int
) -> tuple[Box, Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Pixels within `reach` of a point, and their coordinates around it, turned by `angle`."""
    unit = _SIDE / size
    rows, columns = (
        slice(max(0, int((center - reach) / unit)), min(size, int((center + reach) / unit) + 1)) for center in (y, x)
    )
    dx = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5) * unit - x
    dy = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) * unit - y
    cos, sin = math.cos(angle), math.sin(angle)
    return (rows, columns), dx[None, :] * cos + dy[:, None] * sin, dy[:, None] * cos - dx[None, :] * sin


def _bounds(mask: Bool[np.ndarray, "h w"]) -> Box:
    """Bounding box of a mask that is not empty, at least two pixels each way."""
    spans = []
    for axis in (1, 0):
        hits = np.flatnonzero(mask.any(axis=axis))
        start = min(int(hits[0]), mask.shape[1 - axis] - 2)
        spans.append(slice(start, max(int(hits[-1]) + 1, start + 2)))
    return spans[0], spans[1]


def _count_bits(values: UInt8[np.ndarray, "n"], count: int) -> list[int]:
    return [int(np.count_nonzero(values & np.uint8(1 << bit))) for bit in range(count)]


def _cast_shadow(
    image: Float[np.ndarray, "h w 3"],
    field: Float[np.ndarray, "h w"],
    light: Float[np.ndarray, "3"],
    shadow: tuple[float, float, float],
    unit: float,
) -> None:
    """Darkens, in place, where the outline's shadow falls: away from the light."""
    strength, offset, softness = shadow
    if not strength:
        return
    rows, columns = (
        np.clip(np.arange(length) + round(offset * float(towards) / (0.6 * unit)), 0, length - 1)
        for length, towards in zip(field.shape, (light[1], light[0]), strict=True)
    )
    fallen = field[rows[:, None], columns[None, :]]
    image *= (1 - strength * np.clip(0.5 - fallen / (2 * softness), 0, 1))[..., None]
