"""A comparison as text and data: Markdown to be read, CSV of every value and delta, JSON of everything."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from ruac_jax.evaluation.comparison import Average, Comparison, Measure, PairedTest, Table
from ruac_jax.evaluation.report import SOURCE_GROUP
from ruac_jax.evaluation.tables import markdown_table, show


def format_markdown(comparison: Comparison) -> str:
    """A table of datasets per metric, then the tests of every method against the first."""
    parts = [f"# {', '.join(comparison.methods[1:])} against {comparison.methods[0]}", _remarks(comparison)]
    for table in comparison.tables:
        better = "higher" if table.reading.higher_is_better else "lower"
        parts.append(f"## {table.reading.title} ({'%, ' if table.reading.percent else ''}{better} is better)")
        parts.append(_format_table(comparison, table))
    parts += ["## Tests over target datasets", _format_tests(comparison), _TESTS]
    parts += [f"- {test.metric}, {test.method}: no test, {test.reason}" for test in comparison.tests if test.reason]
    return "\n\n".join(part for part in parts if part) + "\n"


def format_csv(comparison: Comparison) -> str:
    """A row per dataset and metric: the value of every method, then every other method's delta to the first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    others = comparison.methods[1:]
    writer.writerow(["dataset", "group", "metric", *comparison.methods, *(f"delta {name}" for name in others)])
    for table in comparison.tables:
        for dataset, row in table.values.items():
            values = [row.get(name) for name in comparison.methods]
            deltas = [table.deltas[dataset][name] for name in others]
            writer.writerow([dataset, comparison.groups[dataset], table.metric, *values, *deltas])
    return text.getvalue()


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON values, under the names of `comparison.Comparison` and its parts; absent is null."""
    tables = {
        table.metric: {
            "higher_is_better": table.reading.higher_is_better,
            "values": table.values,
            "deltas": table.deltas,
            "targets": table.targets._asdict(),
            "groups": {group: mean._asdict() for group, mean in table.groups.items()},
        }
        for table in comparison.tables
    }
    tests = [test._asdict() for test in comparison.tests]
    return {"methods": list(comparison.methods), "groups": comparison.groups, "tables": tables, "tests": tests}


def _remarks(comparison: Comparison) -> str:
    """What a reader has to know about the datasets: which are in no average, and whether the source is known."""
    unshared = {
        dataset: [name for name in comparison.methods if name not in row]
        for dataset, row in comparison.tables[0].values.items()
    }
    lines = [
        f"- {dataset}: no results of {', '.join(names)}, so in no average"
        for dataset, names in unshared.items()
        if names
    ]
    if SOURCE_GROUP not in comparison.groups.values():
        lines.append("- no dataset is known to be the source: all count as targets")
    return "\n".join(lines)


def _format_table(comparison: Comparison, table: Table) -> str:
    others = comparison.methods[1:]

    def cells(values: dict[str, float | None], deltas: dict[str, float | None]) -> list[str]:
        numbers = [_number(values.get(name), table.reading) for name in comparison.methods]
        return numbers + [_delta(deltas[name], table.reading) for name in others]

    def mean(title: str, average: Average) -> list[str]:
        return [f"average of {average.datasets} {title}", "", *cells(average.values, average.deltas)]

    rows = [
        [dataset, comparison.groups[dataset], *cells(values, table.deltas[dataset])]
        for dataset, values in table.values.items()
    ]
    rows += [mean(f"in {group}", average) for group, average in table.groups.items() if group != SOURCE_GROUP]
    rows.append(mean("targets", table.targets))
    header = ["dataset", "group", *comparison.methods, *(f"delta {name}" for name in others)]
    return markdown_table(header, rows, left=2)


def _format_tests(comparison: Comparison) -> str:
    readings = {table.metric: table.reading for table in comparison.tables}
    header = ["metric", "method", "pairs", "missing", "wins", "ties", "losses"]
    header += ["median delta", "W+", "p", "p (Holm)", "rank-biserial"]

    def cells(test: PairedTest) -> Sequence[str]:
        reading = readings[test.metric]
        counts = (test.pairs, test.missing, test.wins, test.ties, test.losses)
        return [
            reading.title,
            test.method,
            *map(str, counts),
            _delta(test.hodges_lehmann, reading),
            "-" if test.statistic is None else f"{test.statistic:g}",
            *("-" if p is None else f"{p:.3g}" for p in (test.p, test.p_holm)),
            "-" if test.rank_biserial is None else f"{test.rank_biserial:+.2f}",
        ]

    return markdown_table(header, [cells(test) for test in comparison.tests], left=2)


def _number(value: float | None, reading: Measure) -> str:
    return show(value, 2 if reading.percent else 4, percent=reading.percent)


def _delta(value: float | None, reading: Measure) -> str:
    text = _number(value, reading)
    return text if value is None or text.startswith("-") else f"+{text}"


_TESTS = """One-sided Wilcoxon signed-rank tests of "the method is better", a pair per dataset; p (Holm) is corrected
for the number of metrics. The median delta is Hodges and Lehmann's, in the units of the tables; W+ is the sum of the
ranks of the wins."""
