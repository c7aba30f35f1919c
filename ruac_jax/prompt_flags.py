"""Prompts of a command line: points `x,y` or `x,y,0`, all of one object; boxes `x0,y0,x1,y1`, one for each object."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ruac_jax.errors import UserError


class ObjectPrompt(NamedTuple):
    """What is given of one object, (x, y) px of the image; integers are pixel centres.

    Attributes:
      points: of the object or the background.
      labels: 1 object, 0 background, one for each point.
      box: x0, y0, x1, y1.
    """

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None

    def arguments(self) -> dict[str, np.ndarray]:
        """For `Predictor.predict`."""
        given = {}
        if self.points:
            given["point_coords"] = np.array(self.points, np.float32)
            given["point_labels"] = np.array(self.labels, np.int32)
        if self.box is not None:
            given["box"] = np.array(self.box, np.float32)
        return given


def parse_prompts(points: Sequence[str], boxes: Sequence[str]) -> list[ObjectPrompt]:
    """Objects in the order of their boxes; points are all of one object, with a box if there is one.

    Raises:
      UserError: not numbers, too few or too many of them, an unknown label, a box without extent, several boxes with
        points, or no prompt at all.
    """
    parsed = [_parse_point(text) for text in points]
    corners = [_parse_box(text) for text in boxes]
    coords, labels = tuple(point for point, _ in parsed), tuple(label for _, label in parsed)
    if parsed and len(corners) > 1:
        raise UserError(f"--point goes with at most one --box, found {len(corners)}: run each object with points alone")
    if parsed:
        return [ObjectPrompt(coords, labels, corners[0] if corners else None)]
    if not corners:
        raise UserError("what shall be segmented? Give --point x,y or --box x0,y0,x1,y1, or --auto for everything")
    return [ObjectPrompt(box=box) for box in corners]


def check_inside(prompts: Sequence[ObjectPrompt], size: tuple[int, int], name: str) -> None:
    """Checks that prompts fit an image.

    Args:
      prompts: of the image.
      size: its height and width, px.
      name: of the image, for the message.

    Raises:
      UserError: a point is not on a pixel, or a box sticks out.
    """
    height, width = size
    for prompt in prompts:
        for x, y in prompt.points:
            if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
                raise UserError(f"--point {x:g},{y:g} is outside {name}, which has {width} x {height} px")
        if prompt.box is not None:
            x0, y0, x1, y1 = prompt.box
            if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
                found = ",".join(f"{value:g}" for value in prompt.box)
                raise UserError(f"--box {found} is not inside {name}, which has {width} x {height} px")


def _parse_point(text: str) -> tuple[tuple[float, float], int]:
    values = _numbers("point", text, (2, 3), "x,y or x,y,label")
    label = values[2] if len(values) == 3 else 1
    if label not in (0, 1):
        raise UserError(f"--point {text}: unknown label {label:g}; expected 1 (object, the default) or 0 (background)")
    return (values[0], values[1]), int(label)


def _parse_box(text: str) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = _numbers("box", text, (4,), "x0,y0,x1,y1")
    if not (x0 < x1 and y0 < y1):
        raise UserError(f"--box {text}: expected x0 < x1 and y0 < y1: the top-left and the bottom-right corner")
    return x0, y0, x1, y1


def _numbers(flag: str, text: str, counts: tuple[int, ...], form: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts or not all(map(math.isfinite, values)):
        raise UserError(f"--{flag} {text}: expected {form}, numbers in pixels")
    return values
