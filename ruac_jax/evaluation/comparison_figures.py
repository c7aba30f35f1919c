"""Figures of a comparison: deltas of every dataset, method against reference, risk-coverage curves on one another."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ruac_jax.evaluation.comparison import Comparison, Measure, Table
from ruac_jax.evaluation.figures import PALETTE, finish_axes, group_colors, line_style, save_figure

Curve = Mapping[str, Sequence[float]]

_INK = "#222222"
_SMALL = {"fontsize": 6.5, "color": _INK}
_BETTER_COLOR = PALETTE[2]
_LABELLED = 3  # datasets named in each scatter: those that differ most
_LINE_HEIGHT = 0.045  # of a name, in heights of a scatter
_LABEL_ROOM = 0.3  # beside the longest bar, in widths of what all bars of a panel span
_GROUP_GAP = 0.6  # between the bars of two groups, in bars


def draw_deltas(comparison: Comparison, method: str, path: Path) -> None:
    """Delta of a method to the reference on every dataset, a panel per metric; to the right is better in all of them.

    Datasets of a group stand together, sorted by the gain of the first metric. A dash: one of the values is missing.
    """
    names = _sorted_datasets(comparison, method)
    groups = [comparison.groups[name] for name in names]
    changes = [a != b for a, b in itertools.pairwise(groups)]
    rows = [i + _GROUP_GAP * sum(changes[:i]) for i in range(len(names))]
    colors = group_colors(comparison.groups.values())
    figure = Figure(figsize=(1.8 + 2.3 * len(comparison.tables), 1.5 + 0.24 * (rows[-1] + 1)), layout="constrained")
    panels = figure.subplots(1, len(comparison.tables), sharey=True, squeeze=False)[0]
    for axes, table in zip(panels, comparison.tables, strict=True):
        reading = table.reading
        values = [_scaled(table.deltas[name][method], reading) for name in names]
        shown = [value or 0.0 for value in values]
        axes.barh(rows, shown, color=[colors[group] for group in groups], height=0.72)
        low, high = min(*shown, -1e-6), max(*shown, 1e-6)
        ends = low - _LABEL_ROOM * (high - low), high + _LABEL_ROOM * (high - low)
        axes.set_xlim(ends if reading.higher_is_better else ends[::-1])
        for row, value in zip(rows, values, strict=True):
            text = "-" if value is None else f"{value:+.1f}" if reading.percent else f"{value:+.3f}"
            right = not value or (value > 0) == reading.higher_is_better
            place = {"xytext": (3 if right else -3, 0), "ha": "left" if right else "right", "va": "center"}
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
            axes.annotate(text, (value or 0.0, row), textcoords="offset points", bbox=box, **_SMALL, **place)
        mean = _scaled(table.targets.deltas[method], reading)
        if mean is not None:
            axes.axvline(mean, color=_INK, linewidth=1, linestyle=":", zorder=0)
        axes.axvline(0, color=_INK, linewidth=0.8)
        axes.set_title(f"{reading.title}{', points' if reading.percent else ''}", fontsize=10)
        axes.tick_params(axis="x", labelsize=7)
        axes.locator_params(axis="x", nbins=5)
        axes.set_yticks(rows, names, fontsize=8)
        finish_axes(axes, grid="x")
    panels[0].invert_yaxis()
    figure.suptitle(f"{method} minus {comparison.methods[0]}   (right: {method} is better)", fontsize=11)
    patches = [Patch(color=color, label=group) for group, color in colors.items() if group]
    line = Line2D([], [], color=_INK, linewidth=1, linestyle=":", label="average of targets")
    figure.legend(handles=[*patches, line], loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    save_figure(figure, path)


def draw_scatter(comparison: Comparison, method: str, path: Path) -> None:
    """Every dataset as a point: reference to the right, method upwards; the half where the method is better is tinted.

    The datasets that differ most are named.
    """
    columns = min(3, len(comparison.tables))
    lines = math.ceil(len(comparison.tables) / columns)
    figure = Figure(figsize=(3.5 * columns, 3.5 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    colors = group_colors(comparison.groups.values())
    for axes, table in zip(panels, comparison.tables, strict=False):
        _scatter(axes, table, comparison, method, colors)
    for axes in panels[len(comparison.tables) :]:
        axes.set_visible(False)
    dots = [
        Line2D([], [], color=color, marker="o", linestyle="", label=group) for group, color in colors.items() if group
    ]
    half = Patch(color=_BETTER_COLOR, alpha=0.12, linewidth=0, label=f"{method} is better")
    figure.legend(handles=[*dots, half], loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    save_figure(figure, path)


def draw_risk_coverage_overlay(curves: Mapping[str, Mapping[str, Curve]], path: Path) -> None:
    """Risk-coverage curves on one another, a panel per dataset; nothing is written where no two methods have curves.

    Args:
      curves: `coverage` and `risk` by method (the reference first, which is black), then dataset.
      path: of the picture.
    """
    present = itertools.chain.from_iterable(curves.values())
    datasets = [dataset for dataset, methods in Counter(present).items() if methods > 1]
    if not datasets:
        return
    columns = min(4, len(datasets))
    lines = math.ceil(len(datasets) / columns)
    figure = Figure(figsize=(2.9 * columns + 0.3, 2.2 * lines + 0.8), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, dataset in zip(panels, datasets, strict=False):
        for index, found in enumerate(curves.values()):
            if dataset in found:
                axes.plot(found[dataset]["coverage"], found[dataset]["risk"], linewidth=1.5, **line_style(index))
        axes.set_title(dataset, fontsize=9)
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
        finish_axes(axes)
    for axes in panels[len(datasets) :]:
        axes.set_visible(False)
    figure.supxlabel("coverage (share of masks kept, most certain first)", fontsize=9)
    figure.supylabel("risk (mean 1 - IoU)", fontsize=9)
    lines_of_methods = [Line2D([], [], label=name, **line_style(index)) for index, name in enumerate(curves)]
    figure.legend(handles=lines_of_methods, loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    save_figure(figure, path)


def _scatter(axes: Axes, table: Table, comparison: Comparison, method: str, colors: Mapping[str, str]) -> None:
    reading = table.reading
    scale = 100 if reading.percent else 1
    points = {
        name: (scale * row[comparison.methods[0]], scale * row[method])
        for name, row in table.values.items()
        if table.deltas[name][method] is not None
    }
    reach = [value for point in points.values() for value in point] or [0.0, 1.0]
    margin = 0.08 * (max(reach) - min(reach)) or 0.05
    low, high = min(reach) - margin, max(reach) + margin
    edge = high if reading.higher_is_better else low
    axes.fill_between([low, high], [low, high], edge, color=_BETTER_COLOR, alpha=0.12, linewidth=0)
    axes.plot([low, high], [low, high], color="#888888", linewidth=1)
    for name, point in points.items():
        axes.plot(*point, "o", color=colors[comparison.groups[name]], markersize=5, alpha=0.85)
    apart = sorted(points, key=lambda name: -abs(points[name][1] - points[name][0]))[:_LABELLED]
    height = low
    for name in sorted(apart, key=lambda name: points[name][1]):
        height = max(points[name][1], height + _LINE_HEIGHT * (high - low))  # no name covers another
        left = points[name][0] > (low + high) / 2  # names grow towards the middle of the panel
        place = {"xytext": (-5 if left else 5, height), "ha": "right" if left else "left", "va": "center"}
        axes.annotate(name, points[name], textcoords=("offset points", "data"), **_SMALL, **place)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set_xlabel(comparison.methods[0], fontsize=8)
    axes.set_ylabel(method, fontsize=8)
    axes.set_title(f"{reading.title}{' (%)' if reading.percent else ''}", fontsize=10)
    axes.tick_params(labelsize=7)
    finish_axes(axes)


def _sorted_datasets(comparison: Comparison, method: str) -> list[str]:
    """Groups in their order, in each the largest gain of the first metric first; what has no delta comes last."""
    table = comparison.tables[0]
    sign = 1 if table.reading.higher_is_better else -1
    order = list(dict.fromkeys(comparison.groups.values()))

    def key(dataset: str) -> tuple[int, bool, float]:
        delta = table.deltas[dataset][method]
        return order.index(comparison.groups[dataset]), delta is None, -sign * (delta or 0.0)

    return sorted(comparison.groups, key=key)


def _scaled(value: float | None, reading: Measure) -> float | None:
    return value if value is None or not reading.percent else 100 * value
