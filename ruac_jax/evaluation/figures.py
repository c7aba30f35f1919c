"""Figures of an evaluation, drawn without a display. Colours are Okabe and Ito's, distinct to colour-blind readers."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ruac_jax.evaluation.protocol import Example
from ruac_jax.evaluation.report import AVERAGE, SOURCE_GROUP, Metrics, average

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")
_SOURCE_COLOR = "#222222"
_STYLES = ("-", "--", ":")
_DPI = 130
_BAR_METRICS = (("j_and_f", "J&F (%)", 100), ("pavpu", "PAvPU (%)", 100), ("aurc", "AURC", 1), ("ece", "ECE", 1))


def draw_risk_coverage(curves: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Risk-coverage curves (`coverage`, `risk`) of datasets, one line each."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, (name, curve) in enumerate(curves.items()):
        axes.plot(curve["coverage"], curve["risk"], label=name, linewidth=1.8, **line_style(index))
    axes.set(xlim=(0, 1), xlabel="coverage (share of masks kept, most certain first)", ylabel="risk (mean 1 - IoU)")
    axes.set_ylim(bottom=0)
    finish_axes(axes)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    save_figure(figure, path)


def draw_reliability(diagrams: Mapping[str, Mapping[str, Sequence[Any]]], path: Path) -> None:
    """Accuracy against confidence per bin (see `PixelState.reliability`), and the share of pixels in each bin."""
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0.5, 1], [0.5, 1], color="#BBBBBB", linewidth=4, zorder=0, label="calibrated")
    for index, (name, diagram) in enumerate(diagrams.items()):
        filled = [i for i, pixels in enumerate(diagram["pixels"]) if pixels]
        confidence, accuracy = ([diagram[key][i] for i in filled] for key in ("confidence", "accuracy"))
        upper.plot(confidence, accuracy, label=name, marker="o", markersize=3.5, linewidth=1.5, **line_style(index))
        total = max(sum(diagram["pixels"]), 1)
        shares = [diagram["pixels"][i] / total for i in filled]
        lower.plot(confidence, shares, marker="o", markersize=3, linewidth=1.2, **line_style(index))
    upper.set(ylabel="accuracy", xlim=(0.49, 1.01))
    upper.set_ylim(top=1.02)
    lower.set(xlabel="confidence max(p, 1 - p)", ylabel="share of pixels")
    if any(any(diagram["pixels"]) for diagram in diagrams.values()):
        lower.set_yscale("log")
    for axes in (upper, lower):
        finish_axes(axes)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    save_figure(figure, path)


def draw_domain_bars(datasets: Mapping[str, Metrics], path: Path, *, groups: Mapping[str, str] | None = None) -> None:
    """J&F, PAvPU, AURC and ECE of every dataset, coloured by group, with the average of the targets as a line."""
    groups = groups or {}
    names = list(datasets)
    colors = group_colors([groups.get(name, "") for name in names])
    mean = average(datasets, groups)
    figure = Figure(figsize=(11, 1.6 + 0.32 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(_BAR_METRICS), sharey=True)
    for axes, (metric, title, scale) in zip(panels, _BAR_METRICS, strict=True):
        values = [datasets[name].get(metric) for name in names]
        shown = [0.0 if value is None else scale * value for value in values]
        axes.barh(range(len(names)), shown, color=[colors[groups.get(name, "")] for name in names], height=0.7)
        for row, value in enumerate(values):
            text = "-" if value is None else f"{scale * value:.1f}" if scale == 100 else f"{value:.3f}"
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "bbox": box}
            axes.annotate(text, (shown[row], row), fontsize=7, color="#222222", **place)
        if mean.get(metric) is not None:
            axes.axvline(scale * mean[metric], color="#222222", linewidth=1, linestyle=":", label=AVERAGE)
        axes.set_xlim(0, 1.22 * max([*shown, 1e-6]))
        axes.set_title(title, fontsize=10)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        finish_axes(axes, grid="x")
    panels[0].invert_yaxis()
    lines = [line for line in panels[0].get_lines() if line.get_label() == AVERAGE]
    patches = [Patch(color=color, label=kind) for kind, color in colors.items() if kind]
    figure.legend(handles=[*patches, *lines], loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    save_figure(figure, path)


def draw_examples(examples: Sequence[Example], path: Path) -> None:
    """One row per image: the image, truth, predicted masks, uncertainty (largest over objects) and wrong pixels.

    Nothing is written without examples.
    """
    if not examples:
        return
    ratio = float(np.mean([example.image.shape[0] / example.image.shape[1] for example in examples]))
    figure = Figure(figsize=(12.5, (2.3 * ratio + 0.25) * len(examples) + 0.3), layout="constrained")
    panels = figure.subplots(len(examples), 5, squeeze=False)
    for row, example in zip(panels, examples, strict=True):
        wrong = (example.prediction != example.truth).any(axis=0)
        row[0].imshow(example.image)
        row[1].imshow(overlay(example.image, example.truth))
        row[2].imshow(overlay(example.image, example.prediction))
        heat = row[3].imshow(example.uncertainty.max(axis=0), cmap="magma", vmin=0, vmax=1)
        row[4].imshow(overlay(example.image, wrong[None], colors=("#D55E00",), strength=0.85))
        row[0].set_ylabel(_shorten(example.image_id), fontsize=8)
        for axes in row:
            axes.set(xticks=[], yticks=[])
    titles = ("image", "truth", "prediction", "uncertainty", "wrong pixels")
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title, fontsize=10)
    figure.colorbar(heat, ax=panels[:, 3].tolist(), fraction=0.045, pad=0.02).ax.tick_params(labelsize=7)
    save_figure(figure, path)


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    masks: Bool[np.ndarray, "n h w"],
    *,
    colors: Sequence[str] = PALETTE[:-1],
    strength: float = 0.6,
) -> UInt8[np.ndarray, "h w 3"]:
    """Paints masks over a greyed image, each with a colour; later masks cover earlier ones."""
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    painted: Float[np.ndarray, "h w 3"] = 0.75 * grey + 40
    for index, mask in enumerate(masks):
        code = colors[index % len(colors)]
        color = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)])
        painted[mask] = (1 - strength) * grey[mask] + strength * color
    return painted.clip(0, 255).astype(np.uint8)


def group_colors(groups: Iterable[str]) -> dict[str, str]:
    """A colour for every group that occurs, black for the source's, which comes first; the others as they appear."""
    kinds = dict.fromkeys(groups)
    source = {SOURCE_GROUP: _SOURCE_COLOR} if SOURCE_GROUP in kinds else {}
    targets = [kind for kind in kinds if kind != SOURCE_GROUP]
    return source | {kind: PALETTE[i % len(PALETTE)] for i, kind in enumerate(targets)}


def _shorten(image_id: str, most: int = 24) -> str:
    """The end of a long name, which is what tells it from others."""
    return image_id if len(image_id) <= most else f"...{image_id[-most:]}"


def line_style(index: int) -> dict[str, str]:
    """Keywords of the n-th line: the first (source domain or reference method) is black; then colours, then dashes."""
    if index == 0:
        return {"color": _SOURCE_COLOR, "linestyle": "-"}
    style, color = divmod(index - 1, len(PALETTE))
    return {"color": PALETTE[color], "linestyle": _STYLES[style % len(_STYLES)]}


def finish_axes(axes: Axes, grid: str = "both") -> None:
    """Takes away the frame's upper and right side and draws a pale grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure; its folder is made if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
