"""Compares evaluations: `python -m ruac_jax.compare runs/bayes/evaluation runs/ruac/evaluation --output comparison`.

The folders are those of `python -m ruac_jax.evaluate`; the first is the reference. Prints a table per metric and paired
tests over the datasets; with --output also writes them, and figures. See docs/comparison.md.
"""

import difflib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from ruac_jax.errors import UserError, run_main
from ruac_jax.evaluation.comparison import (
    DEFAULT_METRICS,
    Comparison,
    Method,
    compare,
    list_metrics,
    list_mismatches,
)
from ruac_jax.evaluation.comparison_figures import Curve, draw_deltas, draw_risk_coverage_overlay, draw_scatter
from ruac_jax.evaluation.comparison_report import format_csv, format_markdown, to_json


def compare_folders(
    folders: Sequence[Path],
    *,
    names: Sequence[str] = (),
    metrics: Sequence[str] = DEFAULT_METRICS,
    output: Path | None = None,
) -> str:
    """Compares evaluations with the first of them.

    Args:
      folders: of evaluations.
      names: one for each; none: the ends of the paths.
      metrics: by their names in `results.json`.
      output: folder for `comparison.json`, `.csv`, `.md` and figures, made if it does not exist; None: no files.

    Returns:
      The tables and tests in Markdown.

    Raises:
      UserError: a folder, name or metric that cannot be used, or results that are not of the same evaluation.
    """
    if len(folders) < 2:
        raise UserError(f"expected two or more folders of python -m ruac_jax.evaluate to compare, found {len(folders)}")
    names = _check_names(names, len(folders)) if names else short_names(folders)
    results = [read_results(folder) for folder in folders]
    methods = [
        Method(name, found["datasets"], found.get("groups", {}), found.get("prompts", {}))
        for name, found in zip(names, results, strict=True)
    ]
    _check_same_data(methods)
    comparison = compare(methods, _check_metrics(metrics, list_metrics(methods)))
    if output is not None:
        curves = {name: read_curves(folder) for folder, name in zip(folders, names, strict=True)}
        sources = [
            {"name": name, "folder": str(folder), "checkpoint": found.get("checkpoint")}
            for name, folder, found in zip(names, folders, results, strict=True)
        ]
        try:
            _write(comparison, sources, curves, output)
        except OSError as error:
            raise UserError(f"cannot write to {output}: {error}") from error
    return format_markdown(comparison)


def short_names(folders: Sequence[Path]) -> list[str]:
    """As much of the end of each path as tells them apart.

    Raises:
      UserError: a folder is given twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError("a folder is given twice: give every folder once, or tell them apart by --names")


def read_results(folder: Path) -> dict[str, Any]:
    """What `results.json` in the folder of an evaluation holds; the metrics of every dataset are checked.

    Raises:
      UserError: no such file, or not one of ours.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise UserError(f"no {path}: expected the output folder of python -m ruac_jax.evaluate")
    results = _read_json(path)
    datasets = results.get("datasets")
    if not datasets or not isinstance(datasets, dict):
        raise UserError(f'{path}: expected "datasets" with the metrics of each, found {datasets!r:.80}; evaluate again')
    for key in ("groups", "prompts"):
        texts = results.get(key, {})
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise UserError(
                f'{path}: expected "{key}" with a text for each dataset, found {texts!r:.80}; evaluate again'
            )
    for dataset, metrics in datasets.items():
        if not isinstance(metrics, dict):
            raise UserError(f"{path}: {dataset}: expected its metrics, found {metrics!r:.80}; evaluate again")
        for metric, value in metrics.items():
            if value is not None and not (_is_number(value) and math.isfinite(value)):
                raise UserError(f"{path}: {dataset}: {metric}: expected a number, found {value!r:.80}; evaluate again")
    return results


def read_curves(folder: Path) -> dict[str, Curve]:
    """Risk-coverage curves of masks by dataset from `curves.json`; none where there is no such file.

    Raises:
      UserError: the file is not one of ours.
    """
    path = folder / "curves.json"
    if not path.is_file():
        return {}
    curves = {}
    for dataset, found in _read_json(path).items():
        curve = found.get("risk_coverage") if isinstance(found, dict) else None
        axes = [curve.get(axis) for axis in ("coverage", "risk")] if isinstance(curve, dict) else []
        numbers = [axis for axis in axes if isinstance(axis, list) and all(map(_is_number, axis))]
        if len(numbers) != 2 or len(numbers[0]) != len(numbers[1]):
            raise UserError(f"{path}: {dataset}: expected coverage and risk, found {curve!r:.80}; evaluate again")
        curves[dataset] = {"coverage": numbers[0], "risk": numbers[1]}
    return curves


def _write(
    comparison: Comparison, sources: Sequence[dict[str, Any]], curves: Mapping[str, Mapping[str, Curve]], output: Path
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for name in comparison.methods[1:]:
        draw_deltas(comparison, name, output / f"deltas_{_file_name(name)}.png")
        draw_scatter(comparison, name, output / f"scatter_{_file_name(name)}.png")
    draw_risk_coverage_overlay(curves, output / "risk_coverage_overlay.png")
    data = to_json(comparison) | {"sources": sources}
    (output / "comparison.csv").write_text(format_csv(comparison), encoding="utf-8")
    (output / "comparison.md").write_text(format_markdown(comparison), encoding="utf-8")
    (output / "comparison.json").write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _file_name(name: str) -> str:
    return name.replace("/", "_")


def _check_names(names: Sequence[str], count: int) -> list[str]:
    if not len(names) == len(set(map(_file_name, names))) == count or not all(names):
        raise UserError(f"--names: expected {count} different names, one per folder, found {','.join(names)!r}")
    return list(names)


def _check_same_data(methods: Sequence[Method]) -> None:
    reference = methods[0]
    for method in methods[1:]:
        if not method.datasets.keys() & reference.datasets.keys():
            raise UserError(f"{method.name} and {reference.name} have no dataset in common")
    problems = list_mismatches(methods)
    if problems:
        raise UserError(
            "the results are not of the same evaluation; evaluate again with the same images and prompts:\n  "
            + "\n  ".join(problems)
        )


def _check_metrics(names: Sequence[str], known: Sequence[str]) -> list[str]:
    if not names:
        raise UserError(f"--metrics: expected at least one of {', '.join(known)}")
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            hint = f"; did you mean {nearest[0]!r}? There are: {', '.join(known)}" if nearest else ""
            raise UserError(f"--metrics: no metric {name!r} to compare{hint}")
    return list(dict.fromkeys(names))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is broken ({error}); evaluate again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected a JSON object, found {found!r:.80}; evaluate again")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    options = flags.FLAGS
    folders = [Path(argument) for argument in argv[1:]]
    output = Path(options.output) if options.output else None
    print(compare_folders(folders, names=options.names, metrics=options.metrics, output=output), end="")


if __name__ == "__main__":
    flags.DEFINE_string("output", "", "Folder for the files and figures of the comparison; none: only print.")
    flags.DEFINE_list("metrics", list(DEFAULT_METRICS), "Metrics to compare, by their names in results.json.")
    flags.DEFINE_list("names", [], "A name for each folder; default: the end of its path.")
    run_main(main, positional=sys.maxsize)
