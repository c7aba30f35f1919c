"""Figures of the studies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ruac_jax.evaluation.figures import PALETTE, finish_axes, line_style
from ruac_jax.evaluation.studies.agreement import Agreement
from ruac_jax.evaluation.studies.draws import VARIANCES

_SWEPT = {"pavpu": ("PAvPU (%)", 100), "auroc": ("AUROC (%)", 100), "aurc": ("AURC", 1), "ece": ("ECE", 1)}


def draw_sampling(
    sweep: Mapping[str, Mapping[str, Mapping[str, Any]]],
    agreements: Mapping[str, Agreement],
    results: Mapping[str, Mapping[str, Any]],
) -> Figure:
    """Metrics by number of draws and closed form; analytic against sampled u; their largest difference by dataset.

    Args:
      sweep: metrics by dataset and method (numbers of draws in order, then the closed forms).
      agreements: pixels of each dataset.
      results: what `Agreement.compute` says of them.
    """
    figure = Figure(figsize=(14, 8), layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    for axes, (metric, (title, scale)) in zip(upper.subplots(1, len(_SWEPT)), _SWEPT.items(), strict=True):
        for index, (name, by_method) in enumerate(sweep.items()):
            values = {m: np.nan if row[metric] is None else scale * row[metric] for m, row in by_method.items()}
            drawn = [method for method in values if method not in VARIANCES]
            style = line_style(index)
            axes.plot(range(len(drawn)), [values[m] for m in drawn], label=name, marker="o", markersize=3, **style)
            forms = [values[mode] for mode in VARIANCES]
            places = range(len(drawn), len(values))
            axes.plot(places, forms, linestyle="", marker="D", markersize=5, color=style["color"])
        axes.set_xticks(range(len(values)), list(values), rotation=60, fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("draws, then closed forms", fontsize=8)
        finish_axes(axes)
    upper.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    left, middle, right = lower.subplots(1, 3)
    total = sum(agreement.density for agreement in agreements.values())
    for axes, mode, density in zip((left, middle), VARIANCES, total, strict=True):
        seen, scale = np.where(density, density, np.nan), LogNorm(1, max(int(density.max()), 10))
        shown = axes.imshow(seen, "magma_r", scale, origin="lower", extent=(0, 1, 0, 1), aspect="equal")
        axes.plot([0, 1], [0, 1], color="#222222", linewidth=0.8, linestyle=":")
        axes.set(xlabel=f"u, analytic ({mode})", ylabel="u of all draws")
        lower.colorbar(shown, ax=axes, fraction=0.045, pad=0.02, label="pixels").ax.tick_params(labelsize=7)
    _draw_differences(right, results)
    return figure


def _draw_differences(axes: Axes, results: Mapping[str, Mapping[str, Any]]) -> None:
    pairs, height = (*VARIANCES, "halves"), 0.26
    for index, pair in enumerate(pairs):
        values = [found[pair]["max_difference"] or 0.0 for found in results.values()]
        label = "two halves of the draws" if pair == "halves" else f"{pair} and all draws"
        rows = np.arange(len(values)) + (index - 1) * height
        axes.barh(rows, values, height, label=label, color=PALETTE[index])
    axes.set_yticks(range(len(results)), list(results), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("largest difference of u in any pixel")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=8, frameon=False)
    finish_axes(axes, grid="x")


def draw_alignment(results: Mapping[str, Any]) -> Figure:
    """Shift of every channel, a row per perturbation and per target, each row divided by its norm; top channels dotted.

    Args:
      results: of `alignment.compare_shifts`.
    """
    panels = {
        "perturbations": results["perturbations"],
        "targets": {"mean of targets": results["target_mean"], **results["targets"]},
    }
    channels = len(results["target_mean"]["shift"])
    heights = [len(rows) for rows in panels.values()]
    figure = Figure(figsize=(3.4 + 0.27 * channels, 1.8 + 0.26 * sum(heights)), layout="constrained")
    drawn = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    for axes, (title, rows) in zip(drawn, panels.items(), strict=True):
        shown = axes.imshow(
            np.stack([_unit(found["shift"]) for found in rows.values()]), "RdBu_r", vmin=-1, vmax=1, aspect="auto"
        )
        for row, found in enumerate(rows.values()):
            axes.plot(found["top_channels"], [row] * len(found["top_channels"]), "o", color="#222222", markersize=3)
        labels = [f"{name}  |{found['norm']:.3g}|" for name, found in rows.items()]
        axes.set_yticks(range(len(rows)), labels, fontsize=8)
        axes.set_title(title, fontsize=10, loc="left")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    drawn[-1].set_xticks(range(channels), [str(channel) for channel in range(channels)], fontsize=7)
    drawn[-1].set_xlabel("channel (dots: the most shifted; beside the names: norm)", fontsize=8)
    figure.colorbar(shown, ax=drawn.tolist(), fraction=0.03, pad=0.02, label="shift / norm").ax.tick_params(labelsize=7)
    return figure


def _unit(shift: Sequence[float]) -> Float[np.ndarray, "c"]:
    norm = np.linalg.norm(shift)
    return np.asarray(shift) / (norm or 1.0)


def draw_parameters(parts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Parameters of every part on a logarithmic axis, coloured by whether they are trained.

    Args:
      parts: `parameters` and `trained` of each part.
    """
    shown = {name: counts for name, counts in parts.items() if counts["parameters"]}
    figure = Figure(figsize=(8, 1.2 + 0.34 * len(shown)), layout="constrained")
    axes = figure.subplots()
    colors = {True: PALETTE[0], False: PALETTE[-1]}
    values = [counts["parameters"] for counts in shown.values()]
    axes.barh(range(len(shown)), values, color=[colors[counts["trained"] > 0] for counts in shown.values()], height=0.7)
    for row, value in enumerate(values):
        place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{value:,}", (value, row), fontsize=8, color="#222222", **place)
    axes.set_yticks(range(len(shown)), list(shown), fontsize=8)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="parameters", xlim=(min(values) / 3, max(values) * 8))
    finish_axes(axes, grid="x")
    patches = [Patch(color=colors[trained], label=label) for trained, label in ((True, "trained"), (False, "frozen"))]
    figure.legend(handles=patches, loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    return figure
