"""Results as files: `results.json`, `results.csv`, `table.md`, `curves.json`.

Files hold fractions in [0, 1] (NLL in nats); tables show percent for J, F, J&F, PAvPU and AUROC, as the paper does.
A metric that does not exist is null in JSON, empty in CSV, a dash in tables. The average is the unweighted mean over
the target datasets; those of the group "source" are apart from it.
"""

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruac_jax.evaluation.strata import format_strata
from ruac_jax.evaluation.tables import markdown_table, show

Metrics = Mapping[str, int | float | None]
SOURCE_GROUP = "source"
AVERAGE = "average of targets"


class Column(NamedTuple):
    """A column of the table."""

    title: str
    metric: str
    percent: bool


COLUMNS = (
    Column("J&F", "j_and_f", True),
    Column("J", "j", True),
    Column("F", "f", True),
    Column("PAvPU", "pavpu", True),
    Column("AUROC", "auroc", True),
    Column("AURC", "aurc", False),
    Column("ECE", "ece", False),
    Column("PCC", "pcc_soft", False),
)


def write_results(
    output_dir: Path,
    datasets: Mapping[str, Metrics],
    *,
    config: Mapping[str, Any],
    versions: Mapping[str, str],
    checkpoint: Any,
    groups: Mapping[str, str] | None = None,
    prompts: Mapping[str, str] | None = None,
    strata: Mapping[str, Mapping[str, Metrics]] | None = None,
    curves: Mapping[str, Any] | None = None,
) -> None:
    """Writes the results of an evaluation; each file appears whole or not at all.

    Args:
      output_dir: made if it does not exist.
      datasets: metrics of each dataset, in the order of the table.
      config: settings of the evaluation, JSON values.
      versions: of the software.
      checkpoint: what was evaluated.
      groups: group of each dataset ("source" for the training domain); none: one group.
      prompts: fingerprint of each dataset's clicks; equal ones make methods comparable.
      strata: figures of the objects of each dataset by stratum (`StrataState.compute`).
      curves: data of the figures by dataset (`DatasetState.curves`), written to `curves.json`.

    Raises:
      ValueError: a number is NaN or infinite.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    results = {
        "datasets": datasets,
        "groups": groups or {},
        "prompts": prompts or {},
        "strata": strata or {},
        "config": config,
        "versions": versions,
        "checkpoint": checkpoint,
    }
    _write(output_dir / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
    _write(output_dir / "results.csv", _format_csv(datasets, groups or {}))
    sections = [format_table(datasets, groups=groups), _UNITS, format_correction(datasets, groups)]
    sections += [f"## {name}: where masks fail\n\n{format_strata(parts)}" for name, parts in (strata or {}).items()]
    _write(output_dir / "table.md", "\n\n".join(section.strip() for section in sections if section) + "\n")
    if curves is not None:
        _write(output_dir / "curves.json", json.dumps(curves, allow_nan=False) + "\n")


def average(datasets: Mapping[str, Metrics], groups: Mapping[str, str] | None = None) -> dict[str, float | None]:
    """Unweighted mean of each metric over the target datasets that have it; None where none has it."""
    targets = [metrics for name, metrics in datasets.items() if (groups or {}).get(name) != SOURCE_GROUP]
    result: dict[str, float | None] = {}
    for metric in dict.fromkeys(metric for metrics in targets for metric in metrics):
        values = [metrics[metric] for metrics in targets if metrics.get(metric) is not None]
        result[metric] = sum(values) / len(values) if values else None
    return result


def format_table(datasets: Mapping[str, Metrics], *, groups: Mapping[str, str] | None = None) -> str:
    """The table in Markdown, aligned to be read in a terminal too: datasets by group, then the averages of targets."""
    groups = groups or {}
    header = ["dataset", "group", "images", "objects", *(column.title for column in COLUMNS)]
    rows = [
        [name, groups.get(name, ""), _count(metrics.get("images")), _count(metrics.get("objects")), *_cells(metrics)]
        for name, metrics in _grouped(datasets, groups)
    ]
    targets = {name: metrics for name, metrics in datasets.items() if groups.get(name) != SOURCE_GROUP}
    kinds = dict.fromkeys(groups.get(name, "") for name in targets)
    members = {kind: {name: targets[name] for name in targets if groups.get(name, "") == kind} for kind in kinds}
    for kind, part in members.items():
        if len(kinds) > 1 and len(part) > 1:
            rows.append([f"average of {kind or 'ungrouped'}", kind, "", "", *_cells(average(part))])
    if targets:
        rows.append([AVERAGE, "", "", "", *_cells(average(targets))])
    return markdown_table(header, rows, left=2)


def format_correction(datasets: Mapping[str, Metrics], groups: Mapping[str, str] | None = None) -> str:
    """What UncCorr does to J&F (table 4 of the paper), in a sentence; empty without target datasets that have it."""
    pairs = [
        (metrics["j_and_f"], metrics["corrected_j_and_f"])
        for name, metrics in datasets.items()
        if (groups or {}).get(name) != SOURCE_GROUP and metrics.get("corrected_j_and_f") is not None
    ]
    if not pairs:
        return ""
    before, after = (100 * sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    better, worse = sum(new > old for old, new in pairs), sum(new < old for old, new in pairs)
    return (
        f"UncCorr (uncertain fragments removed): J&F of targets {before:.2f} becomes {after:.2f} "
        f"({after - before:+.2f}); better on {better} of {len(pairs)} datasets, worse on {worse}."
    )


_UNITS = """J&F, J, F, PAvPU and AUROC (pixels) in percent, higher is better; AURC (masks, risk 1 - IoU) and ECE as
fractions, lower is better; PCC of uncertainty and soft error. The average counts each target dataset once.
"""


def _grouped(datasets: Mapping[str, Metrics], groups: Mapping[str, str]) -> list[tuple[str, Metrics]]:
    """Datasets of a group together, groups in the order in which they first appear."""
    order = {group: i for i, group in enumerate(dict.fromkeys(groups.get(name, "") for name in datasets))}
    return sorted(datasets.items(), key=lambda item: order[groups.get(item[0], "")])


def _cells(metrics: Metrics) -> list[str]:
    return [show(metrics.get(column.metric), 2 if column.percent else 4, percent=column.percent) for column in COLUMNS]


def _count(value: int | float | None) -> str:
    return "-" if value is None else str(value)


def _format_csv(datasets: Mapping[str, Metrics], groups: Mapping[str, str]) -> str:
    text = io.StringIO()
    metrics = dict.fromkeys(metric for values in datasets.values() for metric in values)
    writer = csv.DictWriter(text, ["dataset", "group", *metrics], lineterminator="\n")
    writer.writeheader()
    for name, values in _grouped(datasets, groups):
        writer.writerow({"dataset": name, "group": groups.get(name, "")} | dict(values))
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
