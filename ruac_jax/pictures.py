"""Pictures of predictions: prompts, outlines, uncertainty and where not to trust the mask, with a legend."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt16
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from ruac_jax.prompt_flags import ObjectPrompt

# Okabe and Ito's, without the vermilion that marks doubt: distinct to colour-blind readers.
OUTLINES = ("#56B4E9", "#F0E442", "#009E73", "#CC79A7", "#E69F00", "#0072B2")
DOUBT, POSITIVE, NEGATIVE, _HALO = "#D55E00", "#00C853", "#E53935", "#111111"
HEAT = "magma"
LONGEST = 1000  # px, of an image as drawn
_PANEL = 4.6  # inches, the longer side
_MANY = 8  # objects have no legend of their own above this


class Row(NamedTuple):
    """One row of a picture: masks of all objects, and the uncertainty about them.

    Attributes:
      title: at its left; may be empty.
      masks: one of each object.
      labels: for the legend, one of each object.
      uncertainty: the largest over the objects, in [0, 1].
    """

    title: str
    masks: Sequence[Bool[np.ndarray, "h w"]]
    labels: Sequence[str]
    uncertainty: Float[np.ndarray, "h w"]


def color_uncertainty(uncertainty: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Heat colours of [0, 1], dark to bright, the same scale for every image."""
    return colormaps[HEAT](np.clip(uncertainty, 0, 1), bytes=True)[:, :, :3]


def draw_prompted(
    image: UInt8[np.ndarray, "h w 3"], prompts: Sequence[ObjectPrompt], rows: Sequence[Row], *, doubtful_above: float
) -> Figure:
    """Image with prompts, masks with their doubtful pixels, and uncertainty; a row for each hypothesis.

    Args:
      image: RGB.
      prompts: one for each object.
      rows: at least one.
      doubtful_above: pixels of a higher uncertainty are marked.
    """
    small = shrink(image)
    figure, panels = _panels(small, len(rows), below=0.1 + 0.2 * _legend_lines(len(prompts)))
    extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)  # coordinates stay those of the image
    for index, (row, axes) in enumerate(zip(rows, panels, strict=True)):
        doubtful = row.uncertainty > doubtful_above
        axes[0].imshow(small, extent=extent)
        mark_prompts(axes[0], prompts)
        axes[1].imshow(fade(small), extent=extent)
        mark_masks(axes[1], row.masks, extent)
        axes[1].imshow(tint(shrink(doubtful), DOUBT, 0.7), extent=extent)
        heat = axes[2].imshow(shrink(row.uncertainty), extent=extent, cmap=HEAT, vmin=0, vmax=1)
        mark_masks(axes[2], row.masks, extent, fill=0.0)
        for axis in axes:
            axis.set(xlim=extent[:2], ylim=extent[2:])
        axes[0].set_ylabel(row.title, fontsize=9)
        if index == 0:
            for axis, title in zip(axes, ("image and prompts", "masks", "uncertainty"), strict=True):
                axis.set_title(title, fontsize=11)
        if lines := _legend_lines(len(row.labels)):
            handles = [Line2D([], [], color=_outline(i), lw=2.5, label=text) for i, text in enumerate(row.labels)]
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.02), "borderaxespad": 0.0}
            axes[1].legend(handles=handles, fontsize=8, frameon=False, ncols=-(-len(handles) // lines), **place)
    _color_bar(figure, heat, panels[:, 2].tolist(), "entropy of the foreground probability")
    kinds = [Patch(color=DOUBT, label=f"error-prone: uncertainty above {doubtful_above:g}"), *_prompt_kinds(prompts)]
    figure.legend(handles=kinds, loc="outside lower center", ncols=len(kinds), fontsize=9, frameon=False)
    return figure


def draw_everything(
    image: UInt8[np.ndarray, "h w 3"],
    labels: UInt16[np.ndarray, "h w"],
    uncertainty: Sequence[float],
) -> Figure:
    """Image, a colour for each mask, and the masks coloured by their mean uncertainty.

    Args:
      image: RGB.
      labels: 0 where there is no mask, else its number from 1.
      uncertainty: mean of each mask, in [0, 1].
    """
    small, shown = (_enlarge(shrink(array)) for array in (image, labels))
    figure, panels = _panels(small, 1, below=0.0)
    means = np.array([0.0, *uncertainty])[shown]
    # Neighbours in the list should not look alike: hues a golden angle apart.
    hues = colormaps["hsv"]((np.arange(len(uncertainty) + 1) * 0.618034) % 1.0)[:, :3]
    heat = colormaps[HEAT](means)[:, :, :3]
    inside, edges, grey = (shown > 0)[:, :, None], _edges(shown)[:, :, None], fade(small) / 255
    panels[0, 0].imshow(small)
    panels[0, 1].imshow(np.where(edges, 0.1, np.where(inside, 0.45 * grey + 0.55 * hues[shown], grey)))
    panels[0, 2].imshow(np.where(edges, 1.0, np.where(inside, heat, 0.5 * grey)))
    for axes, title in zip(panels[0], ("image", f"{len(uncertainty)} masks", "mean uncertainty"), strict=True):
        axes.set_title(title, fontsize=11)
    scale = ScalarMappable(Normalize(0, 1), cmap=HEAT)
    _color_bar(figure, scale, [panels[0, 2]], "mean uncertainty of the mask")
    return figure


def _panels(image: np.ndarray, rows: int, below: float) -> tuple[Figure, np.ndarray]:
    """Three panels in each row, `below` inches under each of them for its legend."""
    height, width = (_PANEL * side / max(image.shape[:2]) for side in image.shape[:2])
    figure = Figure(figsize=(3 * max(width, 2.4) + 0.9, rows * (height + below) + 0.6), layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False)
    for axes in panels.ravel():
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    return figure, panels


def _legend_lines(objects: int) -> int:
    """Two columns above three objects, no legend above `_MANY`."""
    return 0 if objects > _MANY else objects if objects <= 3 else -(-objects // 2)


def _color_bar(figure: Figure, heat: Any, panels: list[Axes], label: str) -> None:
    bar = figure.colorbar(heat, ax=panels, fraction=0.046, pad=0.02)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def mark_prompts(axes: Axes, prompts: Sequence[ObjectPrompt]) -> None:
    """Draws boxes and clicks in the coordinates of the image."""
    for index, prompt in enumerate(prompts):
        if prompt.box is not None:
            x0, y0, x1, y1 = prompt.box
            for width, color in ((3.4, _HALO), (1.8, _outline(index))):
                axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, linewidth=width, edgecolor=color))
        for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
            axes.plot(x, y, clip_on=False, **_point_style(label))


def _point_style(label: int) -> dict[str, Any]:
    style = {"marker": "o", "color": POSITIVE} if label else {"marker": "X", "color": NEGATIVE}
    return style | {"markersize": 9, "markeredgecolor": "white", "markeredgewidth": 1.4, "linestyle": "none"}


def _prompt_kinds(prompts: Sequence[ObjectPrompt]) -> list[Line2D]:
    labels = {label for prompt in prompts for label in prompt.labels}
    names = {1: "click on the object", 0: "click on the background"}
    kinds = [Line2D([], [], label=names[label], **_point_style(label)) for label in sorted(labels, reverse=True)]
    if any(prompt.box is not None for prompt in prompts):
        kinds.append(Line2D([], [], marker="s", fillstyle="none", color="#555555", linestyle="none", label="box"))
    return kinds


def mark_masks(axes: Axes, masks: Sequence[np.ndarray], extent: tuple[float, ...], fill: float = 0.3) -> None:
    """Draws outlines, filled with `fill` of their colour; `extent` as of `Axes.imshow`."""
    for index, mask in enumerate(masks):
        small = shrink(mask)
        if fill:
            axes.imshow(tint(small, _outline(index), fill), extent=extent)
        if not small.any():
            continue
        height, width = small.shape
        x = (np.arange(width + 2) - 0.5) * mask.shape[1] / width - 0.5
        y = (np.arange(height + 2) - 0.5) * mask.shape[0] / height - 0.5
        ringed = np.pad(small.astype(float), 1)  # closes outlines at the image's border
        for line, color in ((3.0, _HALO), (1.5, _outline(index))):
            axes.contour(x, y, ringed, levels=[0.5], colors=[color], linewidths=line)


def _outline(index: int) -> str:
    return OUTLINES[index % len(OUTLINES)]


def tint(mask: Bool[np.ndarray, "h w"], color: str, strength: float) -> Float[np.ndarray, "h w 4"]:
    """RGBA in [0, 1]: a colour inside the mask, nothing outside."""
    return np.concatenate([np.broadcast_to(to_rgb(color), (*mask.shape, 3)), strength * mask[:, :, None]], axis=2)


def fade(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Grey and of less contrast, so that what is drawn on top stands out."""
    grey = image.mean(axis=2, keepdims=True)
    return np.broadcast_to(0.75 * grey + 50, image.shape).clip(0, 255).astype(np.uint8)


def _edges(labels: UInt16[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose right or lower neighbour belongs to another mask."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def _enlarge(array: np.ndarray) -> np.ndarray:
    """At least 500 px long by whole factors, so that a line of one pixel is thin."""
    factor = max(1, -(-(LONGEST // 2) // max(array.shape[:2])))
    return array.repeat(factor, axis=0).repeat(factor, axis=1)


def shrink(array: np.ndarray) -> np.ndarray:
    """At most 1000 px long: photographs averaged, masks and labels by the nearest pixel."""
    height, width = array.shape[:2]
    if max(height, width) <= LONGEST:
        return array
    size = tuple(max(1, round(side * LONGEST / max(height, width))) for side in (width, height))
    if array.dtype == np.uint8:
        return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BOX))
    if array.dtype == np.float32:
        return np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BILINEAR))
    rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(int)
    columns = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(int)
    return array[rows][:, columns]
