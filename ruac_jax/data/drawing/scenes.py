"""The domains of the embedded dataset: one source, and targets that shift appearance, shape or both.

Lengths are in 1/128 of the image's side. Adding a domain is one function and one entry of `DOMAINS`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from ruac_jax.data.drawing import effects, outlines, surfaces
from ruac_jax.data.drawing.outlines import Outline
from ruac_jax.data.drawing.surfaces import Patch, Picture, hsv

Kind = Literal["source", "appearance", "shape", "both"]
_SIDE = 128.0


@dataclasses.dataclass(frozen=True)
class Scene:
    """One image's recipe, its random choices (colours, light) already made."""

    ground: Picture
    outline: Callable[[np.random.Generator, float], Outline]
    paint: Callable[[Patch, np.random.Generator], Picture]
    finish: Callable[[Picture, np.random.Generator], Picture] = effects.clean
    count: tuple[int, int] = (1, 5)
    radius: tuple[float, float] = (13.0, 27.0)
    spacing: float = 0.75  # least distance of two centres, in sums of radii
    cluster: bool = False  # objects touch
    margin: float = 14.0  # least distance of a centre to the image's edge
    see_through: bool = False  # masks overlap
    grid: float | None = None  # angle that all objects share, up to quarter turns
    shadow: tuple[float, float, float] = (0.35, 2.5, 3.0)  # strength, offset, softness


def _pebbles(rng: np.random.Generator, size: int) -> Scene:
    cool, warm = rng.uniform(0.5, 0.7), rng.uniform(-0.03, 0.13)
    if rng.random() < 0.8:
        low = hsv(cool, rng.uniform(0.35, 0.7), rng.uniform(0.08, 0.2))
        high = hsv(cool + rng.uniform(-0.07, 0.07), rng.uniform(0.25, 0.6), rng.uniform(0.28, 0.45))
        tone = (0.5, 0.9), (0.8, 1.0)
    else:  # dark objects on a bright ground
        low = hsv(cool, rng.uniform(0.1, 0.3), rng.uniform(0.5, 0.65))
        high = hsv(cool + rng.uniform(-0.07, 0.07), rng.uniform(0.05, 0.2), rng.uniform(0.75, 0.95))
        tone = (0.4, 0.8), (0.2, 0.42)

    def paint(patch: Patch, rng: np.random.Generator) -> Picture:
        color = hsv(warm + rng.uniform(-0.04, 0.04), rng.uniform(*tone[0]), rng.uniform(*tone[1]))
        return surfaces.matte(patch, rng, color)

    return Scene(surfaces.smooth_ground(rng, size, low, high), outlines.blob, paint)


def _swapped(rng: np.random.Generator, size: int) -> Scene:
    """The ground wears the objects' warm, bright colours, hollows wear the ground's."""
    warm, cool = rng.uniform(-0.02, 0.12), rng.uniform(0.5, 0.7)
    low = hsv(warm, rng.uniform(0.6, 0.9), rng.uniform(0.5, 0.65))
    high = hsv(warm + rng.uniform(-0.03, 0.05), rng.uniform(0.45, 0.75), rng.uniform(0.9, 1.0))

    def paint(patch: Patch, rng: np.random.Generator) -> Picture:
        color = hsv(cool + rng.uniform(-0.04, 0.04), rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.55))
        hollow = patch._replace(light=patch.light * np.array([-1, -1, 1], np.float32))
        return surfaces.matte(hollow, rng, color, gloss=0.0)

    return Scene(surfaces.smooth_ground(rng, size, low, high, cells=5), outlines.blob, paint, shadow=(0.0, 1.0, 1.0))


def _patterned(rng: np.random.Generator, size: int) -> Scene:
    """Objects differ from the ground by direction and pitch of their pattern more than by colour."""
    hue = rng.uniform(0, 1)
    dark, bright = hsv(hue, rng.uniform(0.3, 0.6), 0.3), hsv(hue + 0.05, rng.uniform(0.2, 0.45), 0.72)
    angle, period = rng.uniform(0, math.pi), rng.uniform(5, 9)
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (_SIDE / size)
    x, y = np.meshgrid(axis, axis)
    weave = surfaces.stripes if rng.random() < 0.5 else surfaces.checks
    ground = surfaces.mix(dark, bright, weave(x, y, angle, period, rng.uniform(0, 6)))
    tint = hsv(rng.uniform(-0.02, 0.12), 0.3, 1.0)

    def paint(patch: Patch, rng: np.random.Generator) -> Picture:
        turned, pitch = rng.uniform(0.25, 0.75) * math.pi, rng.uniform(3.5, 6.0)
        pattern = surfaces.stripes(patch.x, patch.y, turned, pitch, rng.uniform(0, 6))
        _, diffuse, _ = surfaces.lit_dome(patch, 0.4)
        return surfaces.mix(dark, bright, pattern) * tint * (0.62 + 0.55 * diffuse)[..., None]

    return Scene(ground, outlines.blob, paint, shadow=(0.15, 1.5, 2.0), grid=angle)


def _cells(rng: np.random.Generator, size: int) -> Scene:
    stain = rng.uniform(0.76, 0.9)
    low, high = hsv(stain + 0.04, 0.22, 0.82), hsv(stain + 0.06, 0.06, 0.97)
    body, nucleus = hsv(stain, rng.uniform(0.3, 0.5), 0.72), hsv(stain - 0.05, rng.uniform(0.5, 0.7), 0.42)
    return Scene(
        surfaces.smooth_ground(rng, size, low, high, cells=9),
        outlines.disc,
        lambda patch, rng: surfaces.cell(patch, rng, body, nucleus),
        effects.grainy,
        count=(3, 5),
        radius=(11.0, 18.0),
        spacing=0.92,
        cluster=True,
        shadow=(0.0, 1.0, 1.0),
    )


def _logs(rng: np.random.Generator, size: int) -> Scene:
    wood = hsv(rng.uniform(0.07, 0.11), rng.uniform(0.35, 0.55), rng.uniform(0.72, 0.9))
    bark = hsv(rng.uniform(0.05, 0.09), rng.uniform(0.4, 0.6), rng.uniform(0.2, 0.32))
    low, high = hsv(rng.uniform(0.06, 0.25), 0.45, 0.1), hsv(rng.uniform(0.08, 0.28), 0.4, 0.5)
    return Scene(
        surfaces.smooth_ground(rng, size, low, high, cells=14),
        outlines.disc,
        lambda patch, rng: surfaces.log_end(patch, rng, wood * np.float32(rng.uniform(0.75, 1.1)), bark),
        count=(3, 5),
        radius=(14.0, 24.0),
        spacing=0.97,
        cluster=True,
        shadow=(0.55, 1.5, 3.0),
    )


_ABSORPTION = ((0.93, 0.66, 0.3), (0.5, 0.78, 0.42), (0.3, 0.5, 0.85), (0.25, 0.35, 0.6))  # organic ... metal


def _xray(rng: np.random.Generator, size: int) -> Scene:
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (_SIDE / size) - _SIDE / 2
    x, y = np.meshgrid(axis, axis)
    bag = outlines.box(x + rng.uniform(-6, 6), y + rng.uniform(-6, 6), rng.uniform(48, 58), rng.uniform(42, 56), 12.0)
    filling = (bag < 0) * (0.3 + 0.22 * surfaces.fractal(rng, (size, size), 5)) + 0.8 * np.exp(-((bag / 1.3) ** 2))
    cloth = np.array(_ABSORPTION[0], np.float32)
    ground = 0.97 * np.power(cloth, np.clip(filling, 0, None)[..., None])

    def paint(patch: Patch, rng: np.random.Generator) -> Picture:
        color = np.array(_ABSORPTION[rng.integers(4)], np.float32)
        return surfaces.translucent(patch, rng, color, rng.uniform(0.55, 0.95))

    return Scene(
        ground.astype(np.float32),
        outlines.tool,
        paint,
        effects.grainy,
        count=(2, 5),
        radius=(20.0, 36.0),
        spacing=0.35,
        margin=30.0,
        see_through=True,
        shadow=(0.0, 1.0, 1.0),
    )


def _roofs(rng: np.random.Generator, size: int) -> Scene:
    low, high = hsv(rng.uniform(0.2, 0.33), 0.45, 0.24), hsv(rng.uniform(0.15, 0.28), 0.35, 0.52)
    ground = surfaces.smooth_ground(rng, size, low, high, cells=10)
    angle = rng.uniform(0, math.pi)
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (_SIDE / size) - _SIDE / 2
    across = axis[None, :] * math.sin(angle) - axis[:, None] * math.cos(angle) - rng.uniform(-45, 45)
    road = np.clip(rng.uniform(5, 8) - np.abs(across), 0, 1)[..., None]
    asphalt = np.float32(rng.uniform(0.42, 0.6)) * (1 + 0.1 * surfaces.fractal(rng, (size, size), 20, 2))[..., None]
    ground = ground * (1 - road) + asphalt * road

    def paint(patch: Patch, rng: np.random.Generator) -> Picture:
        palette = hsv(0.03, 0.55, 0.68), hsv(0.6, 0.1, 0.5), hsv(0.1, 0.1, 0.82), hsv(0.06, 0.35, 0.45)
        return surfaces.gable(patch, rng, palette[rng.integers(4)] * np.float32(rng.uniform(0.85, 1.15)))

    return Scene(
        ground,
        outlines.roof,
        paint,
        count=(2, 5),
        radius=(13.0, 23.0),
        spacing=1.05,
        grid=angle,
        shadow=(0.6, 3.0, 0.6),
    )


def _leaves(rng: np.random.Generator, size: int) -> Scene:
    low, high = hsv(rng.uniform(0.05, 0.09), 0.5, 0.12), hsv(rng.uniform(0.06, 0.1), 0.4, 0.4)

    def paint(patch: Patch, rng: np.random.Generator) -> Picture:
        color = hsv(rng.uniform(0.02, 0.33), rng.uniform(0.5, 0.8), rng.uniform(0.45, 0.8))
        return surfaces.veined(patch, rng, color)

    return Scene(
        surfaces.smooth_ground(rng, size, low, high, cells=20),
        outlines.leaf,
        paint,
        count=(2, 5),
        radius=(18.0, 30.0),
        spacing=0.6,
        margin=20.0,
    )


def _gears(rng: np.random.Generator, size: int) -> Scene:
    bench = rng.uniform(0.5, 0.62)
    low, high = hsv(bench, rng.uniform(0.1, 0.35), 0.5), hsv(bench, rng.uniform(0.1, 0.3), 0.72)

    def paint(patch: Patch, rng: np.random.Generator) -> Picture:
        color = hsv(rng.uniform(0.08, 0.15), rng.choice([0.05, 0.45]), rng.uniform(0.55, 0.85))
        return surfaces.brushed(patch, rng, color)

    return Scene(
        surfaces.smooth_ground(rng, size, low, high, cells=6),
        outlines.gear,
        paint,
        count=(2, 4),
        radius=(15.0, 27.0),
        spacing=1.0,
        shadow=(0.5, 2.0, 1.5),
    )


def _with(scene: Callable[[np.random.Generator, int], Scene], **changes: object) -> Callable[..., Scene]:
    return lambda rng, size: dataclasses.replace(scene(rng, size), **changes)


@dataclasses.dataclass(frozen=True)
class Domain:
    """One kind of image.

    Attributes:
      kind: what it shifts.
      scene: draws a recipe of (random numbers, side in px).
      description: in a few words.
      held_out: no setting of this project was chosen by looking at it.
    """

    kind: Kind
    scene: Callable[[np.random.Generator, int], Scene]
    description: str
    held_out: bool = False


SOURCE = "source"
DOMAINS: dict[str, Domain] = {
    SOURCE: Domain("source", _pebbles, "smooth pebbles, mostly warm and bright on a cool dark ground"),
    "invert": Domain("appearance", _swapped, "object and ground exchange colours and relief: hollows in warm ground"),
    "lowlight": Domain("appearance", _with(_pebbles, finish=effects.low_light), "night: little light, much noise"),
    "fog": Domain("appearance", _with(_pebbles, finish=effects.fog), "drifting fog and blur"),
    "texture": Domain(
        "appearance", _patterned, "stripes and checks: pattern instead of colour tells object from ground"
    ),
    "underwater": Domain(
        "appearance", _with(_pebbles, finish=effects.underwater), "murky water: no red, ripples, particles"
    ),
    "spiky": Domain("shape", _with(_pebbles, outline=outlines.spiky, radius=(17.0, 32.0)), "stars with pointed arms"),
    "thin": Domain("shape", _with(_pebbles, outline=outlines.thin, radius=(20.0, 40.0), spacing=0.4), "winding ropes"),
    "elastic": Domain("shape", _with(_pebbles, outline=outlines.elastic, radius=(15.0, 27.0)), "bays and lobes"),
    "cells": Domain("both", _cells, "touching stained cells under a microscope"),
    "logs": Domain("both", _logs, "ends of stacked logs: rings and bark"),
    "xray": Domain("both", _xray, "X-rayed luggage: translucent things that overlap"),
    "roofs": Domain("both", _roofs, "roofs from the air, with straight edges and hard shadows"),
    "thermal": Domain("appearance", _with(_pebbles, finish=effects.thermal), "false colours of a heat camera", True),
    "sketch": Domain("appearance", _with(_pebbles, finish=effects.sketch), "pencil lines and hatching on paper", True),
    "rings": Domain("shape", _with(_pebbles, outline=outlines.ring, radius=(16.0, 28.0)), "rings with a hole", True),
    "shards": Domain("shape", _with(_pebbles, outline=outlines.shard, radius=(17.0, 30.0)), "straight edges", True),
    "leaves": Domain("both", _leaves, "serrated, veined leaves on soil", True),
    "gears": Domain("both", _gears, "toothed wheels of turned metal on a bench", True),
}
