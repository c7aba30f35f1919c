"""Outlines of generated objects, as functions that are negative inside (after the signed-distance idea).

Lengths are in units of 1/128 of the image's side; every outline is centred on (0, 0).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Plane = Float[np.ndarray, "h w"]


class Outline(NamedTuple):
    """One object's form."""

    field: Callable[[Plane, Plane], Plane]  # (x, y) -> about the distance to the edge, negative inside
    reach: float  # the object lies within this distance of (0, 0)
    thickness: float  # about the largest distance of an inner point to the edge


def blob(rng: np.random.Generator, radius: float) -> Outline:
    """A smooth, roundish pebble."""
    orders = np.arange(2, 5)
    amplitudes = rng.uniform(0.03, 0.15, 3) * (2 / orders)
    phases = rng.uniform(0, 2 * np.pi, 3)
    return _star_shaped(lambda angle: radius * (1 + _harmonics(angle, orders, amplitudes, phases)), radius, 0.85)


def spiky(rng: np.random.Generator, radius: float) -> Outline:
    """A star with five to nine pointed arms."""
    arms = int(rng.integers(5, 10))
    inner = rng.uniform(0.32, 0.45)
    sharpness = rng.uniform(1.2, 1.7)
    wobble = rng.uniform(0, 2 * np.pi)

    def reach(angle: Plane) -> Plane:
        sawtooth = np.abs((angle * arms / (2 * np.pi)) % 1.0 * 2 - 1)  # 1 at the tip of an arm, 0 between arms
        length = 1 - 0.2 * np.cos(angle + wobble) ** 2
        return radius * (inner + (1 - inner) * sawtooth**sharpness * length)

    return _star_shaped(reach, radius, inner)


def thin(rng: np.random.Generator, radius: float) -> Outline:
    """A winding rope of constant width."""
    steps = 14
    turns = np.cumsum(rng.normal(0, 0.16, steps)) + rng.uniform(-0.25, 0.25)
    heading = np.cumsum(turns - turns.mean()) * 0.55
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0) * (2 * radius / steps)
    points -= (points.max(axis=0) + points.min(axis=0)) / 2
    half = rng.uniform(2.2, 3.8)

    def field(x: Plane, y: Plane) -> Plane:
        nearest = np.full(x.shape, np.inf, np.float32)
        for (x0, y0), (x1, y1) in zip(points[:-1].tolist(), points[1:].tolist(), strict=True):
            dx, dy = x1 - x0, y1 - y0
            along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
            np.minimum(nearest, (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2, out=nearest)
        return np.sqrt(nearest) - half

    return Outline(field, float(np.hypot(*points.T).max()) + half, half)


def elastic(rng: np.random.Generator, radius: float) -> Outline:
    """A pebble seen through rippling glass: deep bays and lobes."""
    plain = blob(rng, radius * 0.85)
    amplitude = radius * rng.uniform(0.22, 0.34)
    frequency = (rng.uniform(2.0, 3.2, 4) / radius).tolist()
    phases = rng.uniform(0, 2 * np.pi, 4).tolist()

    def field(x: Plane, y: Plane) -> Plane:
        shift_x = np.sin(frequency[0] * y + phases[0]) + 0.6 * np.sin(frequency[1] * x + phases[1])
        shift_y = np.sin(frequency[2] * x + phases[2]) + 0.6 * np.sin(frequency[3] * y + phases[3])
        return plain.field(x + amplitude * shift_x, y + amplitude * shift_y) / 1.5

    return Outline(field, plain.reach + 1.7 * amplitude, radius * 0.5)


def disc(rng: np.random.Generator, radius: float) -> Outline:
    """A slightly irregular disc (a log's end, a cell)."""
    orders = np.arange(2, 6)
    amplitudes = rng.uniform(0.005, 0.045, 4)
    phases = rng.uniform(0, 2 * np.pi, 4)
    return _star_shaped(lambda angle: radius * (1 + _harmonics(angle, orders, amplitudes, phases)), radius, 0.95)


def roof(rng: np.random.Generator, radius: float) -> Outline:
    """A building from above: a rectangle, an L or a T."""
    length, width = radius, radius * rng.uniform(0.45, 0.75)
    parts = [(0.0, 0.0, length, width)]
    kind = rng.integers(3)
    if kind:  # a wing, at one end for an L, in the middle for a T
        wing = width * rng.uniform(0.6, 0.9)
        middle = (length - wing) * float(rng.choice([-1, 1])) if kind == 1 else 0.0
        parts.append((middle, width + wing * 0.6, wing, wing))

    def field(x: Plane, y: Plane) -> Plane:
        return np.minimum.reduce([box(x - cx, y - cy, w, h) for cx, cy, w, h in parts])

    reach = max(np.hypot(abs(cx) + w, abs(cy) + h) for cx, cy, w, h in parts)
    return Outline(field, float(reach), width)


def ring(rng: np.random.Generator, radius: float) -> Outline:
    """A slightly squeezed annulus."""
    half = radius * rng.uniform(0.17, 0.27)
    middle, squeeze = radius - half, rng.uniform(0.86, 1.16)

    def field(x: Plane, y: Plane) -> Plane:
        return np.abs(np.hypot(x * squeeze, y / squeeze) - middle) - half

    return Outline(field, radius * max(squeeze, 1 / squeeze), half)


def shard(rng: np.random.Generator, radius: float) -> Outline:
    """A broken piece with four to six straight edges."""
    edges = int(rng.integers(4, 7))
    angles = (np.arange(edges) + rng.uniform(-0.25, 0.25, edges)) * (2 * np.pi / edges)
    distances = radius * rng.uniform(0.4, 0.75, edges)

    def field(x: Plane, y: Plane) -> Plane:
        sides = zip(angles.tolist(), distances.tolist(), strict=True)
        return np.maximum.reduce([x * np.cos(a) + y * np.sin(a) - d for a, d in sides])

    corners = np.linspace(0, 2 * np.pi, 721)
    towards = np.cos(corners[:, None] - angles)
    reach = np.min(np.where(towards > 1e-3, distances / np.maximum(towards, 1e-3), np.inf), axis=1).max()
    return Outline(field, float(reach) + 0.5, float(distances.min()))


def leaf(rng: np.random.Generator, radius: float) -> Outline:
    """A pointed leaf along the x axis with a serrated edge and a stalk."""
    width = radius * rng.uniform(0.36, 0.55)
    arc = (radius**2 + width**2) / (2 * width)
    teeth, depth = rng.uniform(7, 12) / radius, radius * rng.uniform(0.02, 0.05)

    def field(x: Plane, y: Plane) -> Plane:
        blade = np.hypot(x, np.abs(y) + arc - width) - arc + depth * np.sin(x * teeth * 2)
        return np.minimum(blade, box(x + 1.1 * radius, y, 0.25 * radius, 0.9))

    return Outline(field, 1.4 * radius, width)


def gear(rng: np.random.Generator, radius: float) -> Outline:
    """A toothed wheel with a hole in the middle."""
    teeth, depth, hole = int(rng.integers(8, 15)), rng.uniform(0.14, 0.22), rng.uniform(0.18, 0.34)
    wheel = _star_shaped(
        lambda angle: radius * (1 - depth / 2 + depth / 2 * np.tanh(3 * np.sin(teeth * angle))), radius, 0.4
    )
    return Outline(
        lambda x, y: np.maximum(wheel.field(x, y), hole * radius - np.hypot(x, y)), radius * 1.05, 0.3 * radius
    )


def tool(rng: np.random.Generator, radius: float) -> Outline:
    """Luggage: a bottle, a hammer, a spanner, a pair of rings or a plain box."""
    r, w = radius, radius * rng.uniform(0.9, 1.15)
    drawings: list[Callable[[Plane, Plane], Plane]] = [
        lambda x, y: np.minimum(
            box(x + 0.3 * r, y, 0.6 * r, 0.34 * w, 0.12 * r), box(x - 0.6 * r, y, 0.4 * r, 0.13 * w)
        ),
        lambda x, y: np.minimum(
            box(x + 0.1 * r, y, 0.9 * r, 0.11 * w), box(x - 0.7 * r, y, 0.22 * r, 0.55 * w, 0.08 * r)
        ),
        lambda x, y: np.minimum(
            box(x, y, 0.75 * r, 0.14 * w),
            np.maximum(np.hypot(x - 0.7 * r, y) - 0.34 * w, -box(x - 0.95 * r, y, 0.35 * r, 0.13 * w)),
        ),
        lambda x, y: np.minimum(
            np.abs(np.hypot(x - 0.48 * r, y) - 0.38 * r) - 0.1 * w,
            np.abs(np.hypot(x + 0.48 * r, y) - 0.38 * r) - 0.1 * w,
        ),
        lambda x, y: box(x, y, 0.75 * r, 0.5 * w, 0.15 * r),
    ]
    return Outline(drawings[rng.integers(len(drawings))], 1.15 * radius, 0.3 * radius)


def box(x: Plane, y: Plane, half_width: float, half_height: float, rounding: float = 0.0) -> Plane:
    """Distance to a rectangle's edge, its corners rounded by `rounding`; negative inside."""
    dx, dy = np.abs(x) - half_width + rounding, np.abs(y) - half_height + rounding
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - rounding


def _harmonics(angle: Plane, orders: np.ndarray, amplitudes: np.ndarray, phases: np.ndarray) -> Plane:
    waves = zip(orders.tolist(), amplitudes.tolist(), phases.tolist(), strict=True)
    return sum((a * np.cos(order * angle + phase) for order, a, phase in waves), np.zeros_like(angle))


def _star_shaped(reach: Callable[[Plane], Plane], radius: float, thickness: float) -> Outline:
    """An outline given by its distance from the centre as a function of the angle."""

    def field(x: Plane, y: Plane) -> Plane:
        distance, angle = np.hypot(x, y), np.arctan2(y, x)
        edge = reach(angle)
        slope = (reach(angle + 0.01) - edge) / 0.01
        # The radial gap, shortened by the slant of the edge, is the distance to first order.
        return (distance - edge) / np.sqrt(1 + (slope / np.maximum(edge, 1e-3)) ** 2)

    return Outline(field, 1.45 * radius, thickness * radius)
