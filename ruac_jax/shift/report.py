"""The shift benchmark's report: what systems gain over a reference when the domain shifts, over seeds.

A figure of a system and seed is the unweighted mean over the domains of a set. Seeds are paired: seed s of every system
started from the same base, so a difference to the reference is taken seed by seed before it is averaged.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ruac_jax.evaluation.comparison import Measure, Method, compare, measure
from ruac_jax.evaluation.comparison_report import format_markdown
from ruac_jax.evaluation.report import Metrics
from ruac_jax.evaluation.tables import markdown_table, show

# In the order of the tables' columns.
METRICS = (
    "j",
    "j_and_f",
    "aurc",
    "e_aurc",
    "auroc",
    "auroc_object",
    "ece",
    "ece_matched",
    "nll",
    "nll_matched",
    "pcc_soft",
    "pavpu",
    "pavpu_matched",
)

Results = Mapping[str, Mapping[int, Mapping[str, Metrics]]]  # by system, seed and domain


class Summary(NamedTuple):
    """A metric of a system over the seeds that have it.

    Attributes:
      seeds: how many.
      mean: over them; None without any.
      spread: sample standard deviation; None with fewer than two.
      gain: mean difference to the reference, seed by seed; None without a pair.
      better: pairs in which the system is better than the reference.
      pairs: seeds that both have.
    """

    seeds: int
    mean: float | None
    spread: float | None
    gain: float | None
    better: int
    pairs: int


def domain_mean(datasets: Mapping[str, Metrics], metric: str, domains: Sequence[str]) -> float | None:
    """Mean of a metric over domains; None where one of them lacks it."""
    values = [datasets[domain].get(metric) if domain in datasets else None for domain in domains]
    return None if not values or None in values else float(np.mean(values))


def summarize(results: Results, system: str, reference: str, metric: str, domains: Sequence[str]) -> Summary:
    """A metric of a system over seeds, and against the reference."""
    own, other = (
        {seed: domain_mean(datasets, metric, domains) for seed, datasets in results[name].items()}
        for name in (system, reference)
    )
    values = [value for value in own.values() if value is not None]
    pairs = [(value, other[seed]) for seed, value in own.items() if value is not None and other.get(seed) is not None]
    gains = [a - b for a, b in pairs]
    reading = reading_of(metric)
    return Summary(
        seeds=len(values),
        mean=float(np.mean(values)) if values else None,
        spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        gain=float(np.mean(gains)) if gains else None,
        better=sum(gain > 0 if reading.higher_is_better else gain < 0 for gain in gains),
        pairs=len(pairs),
    )


def mean_over_seeds(seeds: Mapping[int, Mapping[str, Metrics]]) -> dict[str, dict[str, float | None]]:
    """Each domain's metrics, averaged over the seeds; None where one seed lacks a value."""
    first = next(iter(seeds.values()))
    return {
        domain: {
            metric: domain_mean({str(seed): row[domain] for seed, row in seeds.items()}, metric, list(map(str, seeds)))
            for metric, value in metrics.items()
            if value is None or isinstance(value, int | float)
        }
        for domain, metrics in first.items()
    }


def format_summary(results: Results, reference: str, domains: Sequence[str], metrics: Sequence[str] = METRICS) -> str:
    """Two rows per system: mean and spread over seeds; the paired difference, and in how many seeds it is a gain."""
    readings = [reading_of(metric) for metric in metrics]
    rows = []
    for system in results:
        found = [summarize(results, system, reference, metric, domains) for metric in metrics]
        cells = [
            _number(s.mean, r) + ("" if s.spread is None else f" ± {_number(s.spread, r)}")
            for s, r in zip(found, readings, strict=True)
        ]
        rows.append([system, str(found[0].seeds), *cells])
        if system != reference:
            gains = [
                "-" if s.gain is None else f"{_signed(s.gain, r)} ({s.better}/{s.pairs})"
                for s, r in zip(found, readings, strict=True)
            ]
            rows.append([f"- minus {reference}", "", *gains])
    header = ["system", "seeds", *(f"{r.title}{' ↑' if r.higher_is_better else ' ↓'}" for r in readings)]
    return markdown_table(header, rows)


def format_set(
    results: Results, reference: str, domains: Sequence[str], kinds: Mapping[str, str], metrics: Sequence[str]
) -> str:
    """Tables of one set of domains: over seeds, by kind of shift, and every domain with tests against the reference."""
    parts = ["### Over seeds", format_summary(results, reference, domains)]
    for kind in dict.fromkeys(kinds[domain] for domain in domains):
        members = [domain for domain in domains if kinds[domain] == kind]
        parts += [f"### {kind} ({', '.join(members)})", format_summary(results, reference, members, metrics)]
    order = [reference, *(system for system in results if system != reference)]
    methods = [_method(system, mean_over_seeds(results[system]), domains, kinds) for system in order]
    comparison = format_markdown(compare(methods, metrics)).replace("\n# ", "\n### ").replace("\n## ", "\n#### ")
    parts += ["### Every domain, mean over seeds", comparison.removeprefix("# ")]
    return "\n\n".join(parts)


def _method(name: str, datasets: Mapping[str, Metrics], domains: Sequence[str], kinds: Mapping[str, str]) -> Method:
    return Method(name, {domain: datasets[domain] for domain in domains}, {d: kinds[d] for d in domains}, {})


def reading_of(metric: str) -> Measure:
    """How a metric is read."""
    reading = measure(metric)
    if reading is None:
        raise ValueError(f"{metric}: more of it is neither better nor worse")
    return reading


def _number(value: float | None, reading: Measure) -> str:
    return show(value, 1 if reading.percent else 4, percent=reading.percent)


def _signed(value: float, reading: Measure) -> str:
    return f"{100 * value:+.1f}" if reading.percent else f"{value:+.4f}"
