"""Figures of the shift benchmark."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from ruac_jax.evaluation.figures import PALETTE, finish_axes
from ruac_jax.shift.report import Results, domain_mean, reading_of

_PANELS = ("j_and_f", "aurc", "auroc", "auroc_object", "ece", "ece_matched", "nll")


def draw_systems(results: Results, reference: str, domains: Sequence[str]) -> Figure:
    """Every system's difference to the reference on the mean over domains, a panel per metric: a dot is a seed."""
    systems = [name for name in results if name != reference]
    figure = Figure(figsize=(2.2 + 2.4 * len(_PANELS), 1.6 + 0.26 * len(systems)), layout="constrained")
    panels = figure.subplots(1, len(_PANELS), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, _PANELS, strict=True):
        reading = reading_of(metric)
        scale = 100 if reading.percent else 1
        for row, system in enumerate(systems):
            gains = [scale * gain for gain in _gains(results, system, reference, metric, domains)]
            if not gains:
                continue
            better = (np.mean(gains) > 0) == reading.higher_is_better
            color = PALETTE[2] if better else PALETTE[1]
            axes.barh(row, np.mean(gains), color=color, alpha=0.35, height=0.7)
            axes.plot(gains, [row] * len(gains), linestyle="", marker="o", markersize=3.5, color=color)
        axes.axvline(0, color="#222222", linewidth=0.8)
        axes.set_title(f"{reading.title} {'↑' if reading.higher_is_better else '↓'}", fontsize=10)
        axes.tick_params(axis="x", labelsize=7)
        axes.locator_params(axis="x", nbins=5)
        finish_axes(axes, grid="x")
    panels[0].set_yticks(range(len(systems)), systems, fontsize=8)
    panels[0].invert_yaxis()
    figure.suptitle(f"difference to {reference}, mean over {len(domains)} domains; dots are seeds", fontsize=10)
    return figure


def draw_domains(
    results: Results, reference: str, domains: Sequence[str], kinds: Mapping[str, str], metric: str
) -> Figure:
    """A map of gains over the reference by system and domain, mean over seeds; domains of a kind stand together."""
    order = sorted(domains, key=lambda name: (kinds[name], name))
    systems = [name for name in results if name != reference]
    reading = reading_of(metric)
    scale = 100 if reading.percent else 1
    values = np.array(
        [
            [np.mean(_gains(results, system, reference, metric, [name]) or [np.nan]) * scale for name in order]
            for system in systems
        ]
    )
    reach = max(float(np.nanmax(np.abs(values))), 1e-6) if np.isfinite(values).any() else 1.0
    figure = Figure(figsize=(2.5 + 0.62 * len(order), 1.8 + 0.28 * len(systems)), layout="constrained")
    axes = figure.subplots()
    cmap = "PiYG" if reading.higher_is_better else "PiYG_r"
    shown = axes.imshow(values, cmap, norm=TwoSlopeNorm(0, -reach, reach), aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{value:+.1f}" if reading.percent else f"{value:+.3f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color="#222222")
    labels = [f"{name.removeprefix('shapes/')}\n{kinds[name]}" for name in order]
    axes.set_xticks(range(len(order)), labels, fontsize=7, rotation=60)
    axes.set_yticks(range(len(systems)), systems, fontsize=8)
    axes.set_title(f"{reading.title}, difference to {reference}, mean over seeds", fontsize=10)
    figure.colorbar(shown, ax=axes, fraction=0.03, pad=0.01).ax.tick_params(labelsize=7)
    return figure


def _gains(results: Results, system: str, reference: str, metric: str, domains: Sequence[str]) -> list[float]:
    own, other = results[system], results[reference]
    pairs = [
        (domain_mean(own[seed], metric, domains), domain_mean(other[seed], metric, domains))
        for seed in own
        if seed in other
    ]
    return [a - b for a, b in pairs if a is not None and b is not None]
