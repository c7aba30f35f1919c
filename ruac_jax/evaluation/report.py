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
      curves: data of the figures by dataset (`DatasetState.curves`), written to `curves.json`.

    Raises:
      ValueError: a number is NaN or infinite.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    results = {"datasets": datasets, "config": config, "versions": versions, "checkpoint": checkpoint}
    _write(output_dir / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
    _write(output_dir / "results.csv", _format_csv(datasets, groups or {}))
    _write(output_dir / "table.md", format_table(datasets, groups=groups) + "\n\n" + _UNITS)
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
    """The table in Markdown, aligned to be read in a terminal too: datasets by group, then the average of targets."""
    groups = groups or {}
    header = ["dataset", "group", "images", "objects", *(column.title for column in COLUMNS)]
    rows = [
        [name, groups.get(name, ""), _count(metrics.get("images")), _count(metrics.get("objects")), *_cells(metrics)]
        for name, metrics in _grouped(datasets, groups)
    ]
    if any(groups.get(name) != SOURCE_GROUP for name in datasets):
        rows.append([AVERAGE, "", "", "", *_cells(average(datasets, groups))])
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    rule = ["-" * width if i < 2 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines = [
        [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in [header, rule, *rows]
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_UNITS = """J&F, J, F, PAvPU and AUROC (pixels) in percent, higher is better; AURC (masks, risk 1 - IoU) and ECE as
fractions, lower is better; PCC of uncertainty and soft error. The average counts each target dataset once.
"""


def _grouped(datasets: Mapping[str, Metrics], groups: Mapping[str, str]) -> list[tuple[str, Metrics]]:
    """Datasets of a group together, groups in the order in which they first appear."""
    order = {group: i for i, group in enumerate(dict.fromkeys(groups.get(name, "") for name in datasets))}
    return sorted(datasets.items(), key=lambda item: order[groups.get(item[0], "")])


def _cells(metrics: Metrics) -> list[str]:
    return [_number(metrics.get(column.metric), column.percent) for column in COLUMNS]


def _number(value: int | float | None, percent: bool) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.2f}" if percent else f"{value:.4f}"


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
