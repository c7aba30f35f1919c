"""Methods side by side on the same datasets: deltas, averages and paired tests (paper, appendix J).

The first method is the reference: a delta is method minus reference, in the metric's own units. Whether a delta is an
improvement depends on the metric (`measure`). Averages and tests are over the target datasets; those of the group
"source" are apart. The unit of a test is the dataset: each counts once, however many images it has.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from ruac_jax.evaluation.report import SOURCE_GROUP, Metrics, average

Values = dict[str, float | None]

DEFAULT_METRICS = ("j_and_f", "pavpu", "aurc", "ece", "auroc_mask")
MIN_DIFFERENCES = 5  # with four, the smallest one-sided p is 1/16: no outcome could be significant at 0.05
_COUNTS = ("images", "objects", "pixels")  # equal wherever two methods saw the same data
_DECIMALS = 12  # differences are rounded to 1e-12: equal ones must tie, whatever their last bit


class Measure(NamedTuple):
    """How a metric is to be read."""

    title: str
    higher_is_better: bool
    percent: bool  # tables show it times 100


class Method(NamedTuple):
    """Results of one method by dataset: metrics, and where known the group and the fingerprint of the prompts."""

    name: str
    datasets: Mapping[str, Metrics]
    groups: Mapping[str, str]
    prompts: Mapping[str, str]


class Average(NamedTuple):
    """Unweighted means over the `datasets` datasets for which every method has a value."""

    datasets: int
    values: Values
    deltas: Values


class Table(NamedTuple):
    """One metric of every method.

    Attributes:
      metric: its name in results.json.
      reading: how to read it.
      values: by dataset, then method; None where the metric does not exist, no entry where the method has no results.
      deltas: by dataset, then method without the reference; None where one of the values is missing.
      targets: average of the target datasets.
      groups: average of each group, the source's included.
    """

    metric: str
    reading: Measure
    values: dict[str, Values]
    deltas: dict[str, Values]
    targets: Average
    groups: dict[str, Average]


class SignedRank(NamedTuple):
    """A one-sided Wilcoxon signed-rank test; all None but `reason` where there is none."""

    statistic: float | None  # sum of the ranks of the positive differences
    p: float | None
    rank_biserial: float | None  # share of the ranks that is positive minus the share that is negative, -1 to 1
    reason: str | None


class PairedTest(NamedTuple):
    """Is a method better than the reference, over the target datasets that both were evaluated on?

    Attributes:
      metric: its name.
      method: the one tested.
      reference: the one tested against.
      pairs: datasets on which both have a value.
      missing: datasets dropped because the metric of one of the two does not exist.
      wins: pairs in which the method is better.
      ties: pairs that differ by less than 1e-12.
      losses: pairs in which it is worse.
      hodges_lehmann: typical delta (see there); None without pairs.
      statistic: sum of the ranks of the wins, ties left out.
      p: one-sided, for "the method is better".
      p_holm: `p` corrected for the number of metrics tested.
      rank_biserial: effect size, 1 if every pair is a win, -1 if every pair is a loss.
      reason: why there is no test; None where there is one.
    """

    metric: str
    method: str
    reference: str
    pairs: int
    missing: int
    wins: int
    ties: int
    losses: int
    hodges_lehmann: float | None
    statistic: float | None
    p: float | None
    p_holm: float | None
    rank_biserial: float | None
    reason: str | None


class Comparison(NamedTuple):
    """Everything about some methods: their names (the reference first), groups by dataset, tables and tests."""

    methods: tuple[str, ...]
    groups: dict[str, str]
    tables: tuple[Table, ...]
    tests: tuple[PairedTest, ...]


def measure(metric: str) -> Measure | None:
    """How to read a metric of results.json; None if more is neither better nor worse (counts, shares, bounds).

    The family decides: `pavpu_0.05` is read as `pavpu`, `e_aurc_frame` as `e_aurc`.
    """
    tokens = metric.split("_")
    found = [(len(family), start) for family in _FAMILIES for start in _occurrences(family, tokens)]
    if not found or tokens[-1] == "bound":
        return None
    length, start = max(found)
    family = _FAMILIES[tuple(tokens[start : start + length])]
    return family._replace(title=" ".join([*tokens[:start], family.title, *tokens[start + length :]]))


def list_metrics(methods: Sequence[Method]) -> list[str]:
    """Metrics that can be compared: those with a direction that some method has."""
    rows = [row for method in methods for row in method.datasets.values()]
    return [metric for metric in dict.fromkeys(key for row in rows for key in row) if measure(metric) is not None]


def list_mismatches(methods: Sequence[Method]) -> list[str]:
    """What shows that results do not come from the same evaluation, a line per dataset; empty if nothing does.

    Looked at are the numbers of images, objects and pixels, the fingerprint of the prompts and the group, each only
    among the methods whose results hold it.
    """
    problems = []
    for dataset in _names(methods):
        signs: dict[str, dict[str, int | float | str | None]] = {key: {} for key in (*_COUNTS, "prompts", "group")}
        for method in methods:
            metrics = method.datasets.get(dataset)
            if metrics is not None:
                found = {key: metrics.get(key) for key in _COUNTS}
                found |= {"prompts": method.prompts.get(dataset), "group": method.groups.get(dataset)}
                for key, value in found.items():
                    if value is not None:
                        signs[key][method.name] = value
        for key, values in signs.items():
            if len(set(values.values())) > 1:
                problems.append(
                    f"{dataset}: {key} " + ", ".join(f"{value} in {name}" for name, value in values.items())
                )
    return problems


def compare(methods: Sequence[Method], metrics: Sequence[str]) -> Comparison:
    """Compares methods with the first of them.

    Args:
      methods: two or more, of different names, whose results `list_mismatches` has nothing against.
      metrics: from `list_metrics`, each once.

    Returns:
      A table per metric, datasets of a group together; tests by method, then metric, with Holm's correction over the
      metrics of each method.
    """
    reference, *others = (method.name for method in methods)
    known = {dataset: group for method in methods for dataset, group in method.groups.items()}
    groups = {dataset: known.get(dataset, "") for dataset in _names(methods)}
    order = list(dict.fromkeys(groups.values()))
    groups = dict(sorted(groups.items(), key=lambda item: order.index(item[1])))
    tables = tuple(tabulate(methods, metric, groups) for metric in metrics)
    tests: list[PairedTest] = []
    for name in others:
        found = [compare_pairs(table, groups, name, reference) for table in tables]
        corrected = holm([test.p for test in found])
        tests += [test._replace(p_holm=p) for test, p in zip(found, corrected, strict=True)]
    return Comparison((reference, *others), groups, tables, tuple(tests))


def tabulate(methods: Sequence[Method], metric: str, groups: Mapping[str, str]) -> Table:
    """The table of one metric; rows are the datasets of `groups` in their order.

    Raises:
      ValueError: more of the metric is neither better nor worse (see `measure`).
    """
    reading = measure(metric)
    if reading is None:
        raise ValueError(f"{metric} cannot be compared: more of it is neither better nor worse")
    values = {
        dataset: {method.name: method.datasets[dataset].get(metric) for method in methods if dataset in method.datasets}
        for dataset in groups
    }
    reference, *others = (method.name for method in methods)
    deltas = {dataset: _deltas(row, reference, others) for dataset, row in values.items()}
    complete = {
        dataset: row
        for dataset, row in values.items()
        if len(row) == len(methods) and all(value is not None for value in row.values())
    }

    def mean(datasets: Mapping[str, Values]) -> Average:
        means = average(datasets)
        row = {method.name: means.get(method.name) for method in methods}
        return Average(len(datasets), row, _deltas(row, reference, others))

    def members(group: str) -> dict[str, Values]:
        return {dataset: row for dataset, row in complete.items() if groups[dataset] == group}

    targets = {dataset: row for dataset, row in complete.items() if groups[dataset] != SOURCE_GROUP}
    named = [group for group in dict.fromkeys(groups.values()) if group]
    return Table(metric, reading, values, deltas, mean(targets), {group: mean(members(group)) for group in named})


def compare_pairs(table: Table, groups: Mapping[str, str], method: str, reference: str) -> PairedTest:
    """Tests one method against the reference on one metric; `p_holm` is still None."""
    common = [
        table.deltas[dataset][method]
        for dataset, row in table.values.items()
        if groups[dataset] != SOURCE_GROUP and method in row and reference in row
    ]
    deltas = np.array([delta for delta in common if delta is not None], np.float64).round(_DECIMALS)
    gains = deltas if table.reading.higher_is_better else -deltas
    test = signed_rank(gains)
    return PairedTest(
        metric=table.metric,
        method=method,
        reference=reference,
        pairs=len(gains),
        missing=len(common) - len(gains),
        wins=int((gains > 0).sum()),
        ties=int((gains == 0).sum()),
        losses=int((gains < 0).sum()),
        hodges_lehmann=hodges_lehmann(deltas),
        p_holm=None,
        **test._asdict(),
    )


def signed_rank(differences: Float[np.ndarray, "n"]) -> SignedRank:
    """Wilcoxon's signed-rank test of "the differences are symmetric about 0" against "they are larger".

    Zeros are dropped (Wilcoxon's own treatment), equal sizes share their mean rank. p is the share of the 2^n sign
    patterns that reach the statistic, and exact with ties too: there `scipy.stats.wilcoxon`, which gives the same
    without them, turns to the normal approximation (22 times too large on table 2 of the paper). No test is made with
    fewer than five differences other than 0.
    """
    differences = differences[differences != 0]
    n = len(differences)
    if n < MIN_DIFFERENCES:
        found = f"{n} difference{'s' * (n != 1)} other than 0" if n else "no difference other than 0"
        return SignedRank(None, None, None, f"{found}: a p below 0.05 needs {MIN_DIFFERENCES}")
    ranks = np.rint(2 * rankdata(np.abs(differences))).astype(np.int64)  # doubled: mean ranks may be halves
    positive = int(ranks[differences > 0].sum())
    probability = np.ones(1)  # of each sum of positive ranks, every sign being a fair coin
    for rank in ranks:
        probability = (np.pad(probability, (0, rank)) + np.pad(probability, (rank, 0))) / 2
    p = float(probability[positive:].sum())
    return SignedRank(positive / 2, p, float(2 * positive / ranks.sum() - 1), None)


def hodges_lehmann(differences: Float[np.ndarray, "n"]) -> float | None:
    """Median of the means of all pairs of differences, each with itself included: the shift that fits the test.

    (Hodges and Lehmann, 1963.) None without differences.
    """
    first, second = np.triu_indices(len(differences))
    return float(np.median((differences[first] + differences[second]) / 2)) if len(differences) else None


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Step-down correction of Holm (1979): below alpha where rejected with all errors together kept to alpha.

    None, a test that does not exist, stays None and is not counted.
    """
    order = sorted((value, i) for i, value in enumerate(p) if value is not None)
    corrected: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * value))
        corrected[i] = largest
    return corrected


_FAMILIES = {
    ("j", "and", "f"): Measure("J&F", True, True),
    ("j",): Measure("J", True, True),
    ("f",): Measure("F", True, True),
    ("pavpu",): Measure("PAvPU", True, True),
    ("auroc",): Measure("AUROC", True, True),
    ("aupr",): Measure("AUPR", True, False),
    ("pcc",): Measure("PCC", True, False),
    ("aurc",): Measure("AURC", False, False),
    ("e", "aurc"): Measure("E-AURC", False, False),
    ("augrc",): Measure("AUGRC", False, False),
    ("ece",): Measure("ECE", False, False),
    ("nll",): Measure("NLL", False, False),
    ("brier",): Measure("Brier", False, False),
}


def _occurrences(family: tuple[str, ...], tokens: Sequence[str]) -> list[int]:
    return [i for i in range(len(tokens)) if tuple(tokens[i : i + len(family)]) == family]


def _names(methods: Sequence[Method]) -> list[str]:
    """Datasets in the order in which they first appear."""
    return list(dict.fromkeys(dataset for method in methods for dataset in method.datasets))


def _deltas(row: Mapping[str, float | None], reference: str, others: Sequence[str]) -> Values:
    base = row.get(reference)
    found = {name: row.get(name) for name in others}
    return {name: None if value is None or base is None else value - base for name, value in found.items()}
