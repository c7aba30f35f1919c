"""Pictures and texts of the page: the image with its clicks, the mask, the uncertainty, and their legends in HTML."""

import html
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ruac_jax.demo_state import Answer, Session, SharedModel
from ruac_jax.pictures import (
    DOUBT,
    HEAT,
    LONGEST,
    NEGATIVE,
    OUTLINES,
    POSITIVE,
    fade,
    mark_masks,
    mark_prompts,
    shrink,
    tint,
)

_LEAST = 640  # px, the longer side of a small image as shown; the page never shows it larger, see `STYLE` there
_DPI = 110  # for the size of marks and lines
_EPSILON = 1e-6  # against a side that rounding makes a pixel shorter


def view_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image as shown: small ones enlarged by a whole factor, large ones shrunk; px."""
    longest = max(size)
    if longest > LONGEST:
        height, width = (max(1, round(side * LONGEST / longest)) for side in size)
        return height, width
    factor = -(-_LEAST // longest)
    return size[0] * factor, size[1] * factor


def draw_session(session: Session) -> UInt8[np.ndarray, "h w 3"]:
    """The image with its clicks, of `view_size`."""
    figure, axes, extent = _canvas(session.image.shape[:2])
    axes.imshow(shrink(session.image), extent=extent)
    prompt, corner = session.prompt(), session.open_corner()
    if prompt is not None:
        mark_prompts(axes, [prompt])
    if corner is not None:
        for size, width, color in ((15, 4.5, "#111111"), (13, 2.0, OUTLINES[0])):
            axes.plot(corner.x, corner.y, marker="+", markersize=size, markeredgewidth=width, color=color)
    return _pixels(figure, axes, extent)


def draw_waiting(session: Session) -> UInt8[np.ndarray, "h w 3"]:
    """What stands in for a mask before the first click."""
    figure, axes, extent = _canvas(session.image.shape[:2])
    axes.imshow(fade(fade(shrink(session.image))), extent=extent)
    return _pixels(figure, axes, extent)


def draw_mask(session: Session, answer: Answer, doubtful_above: float) -> UInt8[np.ndarray, "h w 3"]:
    """The mask over the faded image, error-prone pixels marked."""
    figure, axes, extent = _canvas(session.image.shape[:2])
    axes.imshow(fade(shrink(session.image)), extent=extent)
    axes.imshow(tint(shrink(answer.mask), OUTLINES[0], 0.4), extent=extent)
    axes.imshow(tint(shrink(answer.uncertainty > doubtful_above), DOUBT, 0.7), extent=extent)
    mark_masks(axes, [answer.mask], extent, fill=0.0)
    return _pixels(figure, axes, extent)


def draw_uncertainty(session: Session, answer: Answer) -> UInt8[np.ndarray, "h w 3"]:
    """Heat colours from 0 to 1, with the outline of the mask."""
    figure, axes, extent = _canvas(session.image.shape[:2])
    axes.imshow(shrink(answer.uncertainty), extent=extent, cmap=HEAT, vmin=0, vmax=1)
    mark_masks(axes, [answer.mask], extent, fill=0.0)
    return _pixels(figure, axes, extent)


def describe_clicks(session: Session) -> str:
    """The legend of the clicks, and what to do next."""
    if session.open_corner() is not None:
        hint = "Now click the opposite corner of the box."
    elif not session.clicks:
        hint = "Click on an object in the image."
    else:
        last = session.clicks[-1]
        hint = f"Last click: {last.kind} at {last.x:.1f}, {last.y:.1f} px."
    keys = [
        f'<span class="dot" style="background:{POSITIVE}"></span>on the object',
        f'<span class="cross" style="color:{NEGATIVE}">&#10006;</span>on the background',
        f'<span class="frame" style="border-color:{OUTLINES[0]}"></span>box',
    ]
    return f'<div class="hint">{html.escape(hint)}</div>{_legend(keys)}'


def describe_mask(doubtful_above: float) -> str:
    """The legend of the mask."""
    return _legend(
        [
            f'<span class="frame" style="border-color:{OUTLINES[0]};background:{OUTLINES[0]}66"></span>predicted mask',
            f'<span class="dot square" style="background:{DOUBT}"></span>error-prone: '
            f"uncertainty above {doubtful_above:.2f}",
        ]
    )


def describe_uncertainty() -> str:
    """The colour bar."""
    stops = ", ".join(to_hex(colormaps[HEAT](x)) for x in np.linspace(0, 1, 17))
    ticks = "".join(f"<span>{text}</span>" for text in ("0 certain", "0.5", "1 undecided"))
    return (
        f'<div class="bar" style="background:linear-gradient(to right, {stops})"></div><div class="ticks">{ticks}</div>'
    )


def describe_answer(model: SharedModel, answer: Answer | None, doubtful_above: float) -> str:
    """The name of a model, and what it says of its mask in numbers."""
    title = f"<h3>{html.escape(model.name)} <small>{html.escape(model.description)}</small></h3>"
    if answer is None:
        return (
            f'{title}<div class="facts"><span class="muted">No mask yet: click on an object in the image.</span></div>'
        )
    facts = [
        '<span title="What the network expects its mask to share with the true object: 0 nothing, 1 everything">'
        f"predicted IoU <b>{answer.ious[answer.which]:.2f}</b></span>"
    ]
    inside, share = answer.mean_uncertainty(), answer.doubtful_share(doubtful_above)
    if inside is None or share is None:
        facts.append("<span>the mask is empty</span>")
    else:
        facts.append(f"<span>mean uncertainty inside <b>{inside:.2f}</b></span>")
        facts.append(f"<span>error-prone <b>{100 * share:.0f} %</b> of the mask</span>")
    if answer.removed:
        facts.append(f"<span>corrected: <b>{answer.removed}</b> pixels removed</span>")
    return f'{title}<div class="facts">{"".join(facts)}</div>{_hypotheses(answer)}'


def _hypotheses(answer: Answer) -> str:
    if len(answer.ious) == 1:
        return '<div class="chips"><span class="muted">a single mask</span></div>'
    chips = "".join(
        f'<span class="chip{" chosen" if i == answer.which else ""}">mask {i + 1}: {iou:.2f}</span>'
        for i, iou in enumerate(answer.ious)
    )
    return f'<div class="chips"><span class="muted">predicted IoU of the three:</span>{chips}</div>'


def _legend(keys: Sequence[str]) -> str:
    return f'<div class="legend">{"".join(f"<span>{key}</span>" for key in keys)}</div>'


def _canvas(size: tuple[int, int]) -> tuple[Figure, Axes, tuple[float, float, float, float]]:
    """A figure of nothing but one panel, in the coordinates of the image."""
    height, width = view_size(size)
    figure = Figure(figsize=((width + _EPSILON) / _DPI, (height + _EPSILON) / _DPI), dpi=_DPI)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    return figure, axes, (-0.5, size[1] - 0.5, size[0] - 0.5, -0.5)


def _pixels(figure: Figure, axes: Axes, extent: tuple[float, float, float, float]) -> UInt8[np.ndarray, "h w 3"]:
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="auto")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[:, :, :3].copy()
