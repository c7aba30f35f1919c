import itertools
import statistics

import numpy as np
import pytest
from scipy.stats import wilcoxon

from ruac_jax.evaluation.comparison import (
    Method,
    compare,
    hodges_lehmann,
    holm,
    list_metrics,
    list_mismatches,
    measure,
    signed_rank,
    tabulate,
)

# PAvPU in percent on the 23 target datasets, table 2 of the paper: Bayes-SAM2 and RUAC.
BAYES = (61.5, 67.2, 69.4, 64.9, 29.5, 94.6, 15.2, 11.3, 25.6, 31.3, 72.1, 83.7)
BAYES += (95.6, 99.7, 64.6, 58.7, 53.9, 9.0, 43.6, 64.7, 44.1, 33.3, 81.2)
RUAC = (70.5, 78.3, 83.0, 71.5, 60.3, 99.8, 26.4, 10.8, 30.9, 37.9, 74.2, 82.6)
RUAC += (97.0, 99.8, 70.6, 71.4, 58.5, 14.9, 51.4, 73.7, 63.5, 51.9, 86.9)


def mid_ranks(sizes):
    """Rank of each size from counting alone: those below, and the middle of those equal."""
    return [sum(b < a for b in sizes) + (sum(b == a for b in sizes) + 1) / 2 for a in sizes]


def enumerate_signs(differences):
    """W+ and the share of all sign patterns that reach it: the definition of the exact test."""
    differences = [d for d in differences if d != 0]
    ranks = mid_ranks([abs(d) for d in differences])
    found = sum(rank for rank, d in zip(ranks, differences, strict=True) if d > 0)
    sums = [sum(itertools.compress(ranks, signs)) for signs in itertools.product((0, 1), repeat=len(ranks))]
    return found, sum(total >= found for total in sums) / len(sums)


def method(name, datasets, groups=None, prompts=None):
    return Method(name, datasets, groups or {}, prompts or {})


@pytest.mark.parametrize("n", [5, 6, 9, 12])
@pytest.mark.parametrize("kind", ["different", "ties", "zeros and ties"])
def test_wilcoxon_equals_the_enumeration_of_all_signs(n, kind, rng):
    for _ in range(3):
        differences = rng.permutation(np.arange(1.0, n + 1)) * rng.choice([-1, 1], n)
        if kind != "different":
            differences = np.copysign(np.ceil(np.abs(differences) / 3), differences)
        if kind == "zeros and ties":
            differences = np.concatenate([differences, [0.0, 0.0]])
        statistic, p = enumerate_signs(differences.tolist())
        found = signed_rank(differences)
        assert found.statistic == statistic
        assert found.p == pytest.approx(p, abs=1e-12)
        total = n * (n + 1) / 2
        assert found.rank_biserial == pytest.approx((statistic - (total - statistic)) / total, abs=1e-12)
        assert found.reason is None


@pytest.mark.parametrize("n", [14, 23, 50])
def test_wilcoxon_equals_scipy_where_scipy_is_exact(n, rng):
    for shift in (0.0, 0.5, 1.5):
        differences = rng.standard_normal(n) + shift
        expected = wilcoxon(differences, alternative="greater", method="exact")
        found = signed_rank(differences)
        assert found.statistic == expected.statistic
        assert found.p == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("differences", "reason"),
    [
        ([], "no difference other than 0"),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], "no difference other than 0"),
        ([0.2, 0.0, 0.0, 0.0, 0.0, 0.0], "1 difference other than 0"),
        ([0.1, -0.2, 0.3, 0.4], "4 differences other than 0: a p below 0.05 needs 5"),
    ],
)
def test_no_test_without_enough_differences(differences, reason):
    found = signed_rank(np.array(differences))
    assert (found.statistic, found.p, found.rank_biserial) == (None, None, None)
    assert found.reason.startswith(reason)


def test_five_differences_can_be_significant_and_four_not():
    assert signed_rank(np.array([0.1, 0.2, 0.3, 0.4, 0.5])).p == pytest.approx(1 / 32)
    assert 1 / 2**4 > 0.05 > 1 / 2**5


def test_hodges_lehmann_is_the_median_of_walsh_averages(rng):
    for n in (1, 2, 3, 8, 23):
        d = rng.standard_normal(n).tolist()
        walsh = [(d[i] + d[j]) / 2 for i in range(n) for j in range(i, n)]
        assert hodges_lehmann(np.array(d)) == pytest.approx(statistics.median(walsh), abs=1e-12)
    assert hodges_lehmann(np.array([1.0, 5.0, 2.0])) == 2.5  # 1 1.5 2 3 3.5 5
    assert hodges_lehmann(np.zeros(0)) is None


def test_holm_against_a_case_worked_by_hand():
    # In order: 4 * 0.005 = 0.02, 3 * 0.01 = 0.03, 2 * 0.03 = 0.06, then 0.04, which may not fall below 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.04]) == [pytest.approx(0.02), None, pytest.approx(0.04)]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_holm_rejects_what_its_step_down_rule_rejects(rng):
    for _ in range(50):
        p = (rng.random(6) ** 3).tolist()
        corrected = holm(p)
        for alpha in (0.01, 0.05, 0.2):
            rejected = set()
            for step, index in enumerate(np.argsort(p)):
                if p[index] > alpha / (len(p) - step):
                    break
                rejected.add(int(index))
            assert {i for i, value in enumerate(corrected) if value <= alpha} == rejected


@pytest.mark.parametrize(
    ("metric", "title", "higher", "percent"),
    [
        ("j_and_f", "J&F", True, True),
        ("j", "J", True, True),
        ("corrected_j_and_f", "corrected J&F", True, True),
        ("pavpu_0.05", "PAvPU 0.05", True, True),
        ("auroc_mask", "AUROC mask", True, True),
        ("aupr", "AUPR", True, False),
        ("pcc_soft", "PCC soft", True, False),
        ("aurc", "AURC", False, False),
        ("e_aurc_frame", "E-AURC frame", False, False),
        ("augrc_pixel", "AUGRC pixel", False, False),
        ("ece", "ECE", False, False),
        ("nll", "NLL", False, False),
        ("brier", "Brier", False, False),
    ],
)
def test_direction_and_unit_come_from_the_family(metric, title, higher, percent):
    assert measure(metric) == (title, higher, percent)


@pytest.mark.parametrize("metric", ["images", "certain_0.05", "auroc_bound", "prompts", "pavpu_matched_bound", "aur"])
def test_counts_shares_and_bounds_have_no_direction(metric):
    assert measure(metric) is None
    with pytest.raises(ValueError, match="neither better nor worse"):
        tabulate([method("a", {"x": {metric: 1}})], metric, {"x": ""})
    assert list_metrics([method("a", {"x": {metric: 1, "ece": None}})]) == ["ece"]


def test_deltas_wins_ties_and_losses_follow_the_direction():
    base = {f"d{i}": {"j": 0.5, "ece": 0.5} for i in range(7)}
    other = {f"d{i}": {"j": v, "ece": v} for i, v in enumerate([0.6, 0.7, 0.8, 0.9, 0.4, 0.3, 0.5])}
    comparison = compare([method("a", base), method("b", other)], ["j", "ece"])
    assert comparison.methods == ("a", "b")
    up, down = comparison.tests
    assert (up.metric, up.method, up.reference) == ("j", "b", "a")
    assert (up.pairs, up.missing, up.wins, up.ties, up.losses) == (7, 0, 4, 1, 2)
    assert (down.wins, down.ties, down.losses) == (2, 1, 4)
    for table in comparison.tables:  # the sign of a delta does not depend on what is better
        assert table.deltas["d0"]["b"] == pytest.approx(0.1)
        assert table.targets.deltas["b"] == pytest.approx(0.1)
    assert up.hodges_lehmann == down.hodges_lehmann == pytest.approx(0.1)
    assert 0.7 - 0.5 != 0.5 - 0.3  # in their last bits; they must tie
    sizes = [0.1, 0.2, 0.3, 0.4, -0.1, -0.2]
    assert (up.statistic, up.p) == (pytest.approx(enumerate_signs(sizes)[0]), pytest.approx(enumerate_signs(sizes)[1]))
    assert down.statistic == 21 - up.statistic
    assert down.rank_biserial == pytest.approx(-up.rank_biserial)


def test_p_values_are_corrected_over_the_metrics_of_each_method(rng):
    def results():
        return {f"d{i}": {"j": rng.random(), "ece": rng.random(), "nll": None} for i in range(9)}

    comparison = compare([method(name, results()) for name in "abc"], ["j", "ece", "nll"])
    for name in "bc":
        tests = [test for test in comparison.tests if test.method == name]
        assert [test.metric for test in tests] == ["j", "ece", "nll"]
        assert [test.p_holm for test in tests] == holm([test.p for test in tests])
        assert tests[2].reason.startswith("no difference")
        assert (tests[2].pairs, tests[2].missing, tests[2].hodges_lehmann) == (0, 9, None)


def test_missing_values_and_datasets_drop_the_pair_and_are_counted():
    a = {"one": {"j": 0.1}, "two": {"j": None}, "three": {"j": 0.3}, "only a": {"j": 1.0}}
    b = {"one": {"j": 0.2}, "two": {"j": 0.9}, "three": {}, "only b": {"j": 0.0}}
    comparison = compare([method("a", a), method("b", b)], ["j"])
    (table,), (test,) = comparison.tables, comparison.tests
    assert (test.pairs, test.missing) == (1, 2)
    assert list(table.values) == ["one", "two", "three", "only a", "only b"]
    assert table.values["three"] == {"a": 0.3, "b": None}
    assert table.values["only a"] == {"a": 1.0}
    assert [table.deltas[name]["b"] for name in table.deltas] == [pytest.approx(0.1), None, None, None, None]
    assert table.targets == (1, {"a": 0.1, "b": 0.2}, {"b": pytest.approx(0.1)})


def test_averages_are_of_targets_by_group_over_datasets_that_all_methods_have():
    values = {"src": (0.9, 0.8), "x1": (0.1, 0.3), "y1": (0.5, 0.2), "x2": (0.3, 0.7), "y2": (0.7, None)}
    groups = {"src": "source", "x1": "x", "x2": "x", "y1": "y", "y2": "y"}
    methods = [
        method(name, {dataset: {"j": pair[i]} for dataset, pair in values.items()}, groups)
        for i, name in enumerate("ab")
    ]
    comparison = compare(methods, ["j"])
    (table,) = comparison.tables
    assert list(table.values) == ["src", "x1", "x2", "y1", "y2"]
    assert list(comparison.groups.values()) == ["source", "x", "x", "y", "y"]
    assert table.targets.datasets == 3
    assert table.targets.values == {"a": pytest.approx(0.9 / 3), "b": pytest.approx(1.2 / 3)}
    assert table.targets.deltas == {"b": pytest.approx(0.1)}
    assert table.groups["x"].values == {"a": pytest.approx(0.2), "b": pytest.approx(0.5)}
    assert table.groups["y"] == (1, {"a": 0.5, "b": 0.2}, {"b": pytest.approx(-0.3)})
    assert table.groups["source"] == (1, {"a": 0.9, "b": 0.8}, {"b": pytest.approx(-0.1)})
    assert comparison.tests[0].pairs == 3


def test_no_target_in_common_is_no_average_and_no_test():
    methods = [method(name, {"src": {"j": 0.5}, name: {"j": 0.5}}, {"src": "source"}) for name in "ab"]
    (table,), (test,) = compare(methods, ["j"])[2:]
    assert table.targets == (0, {"a": None, "b": None}, {"b": None})
    assert (test.pairs, test.missing, test.p, test.p_holm) == (0, 0, None, None)


def test_groups_known_to_one_method_hold_for_all():
    methods = [method("a", {"s": {"j": 0.5}, "t": {"j": 0.5}}), method("b", {"s": {"j": 1.0}}, {"s": "source"})]
    comparison = compare(methods, ["j"])
    assert comparison.groups == {"s": "source", "t": ""}
    assert list(comparison.tables[0].groups) == ["source"]


def test_what_is_not_the_same_evaluation_is_found():
    a = {"x": {"images": 40, "objects": 90, "pixels": 5}, "y": {"images": 3}}
    b = {"x": {"images": 40, "objects": 91, "pixels": 5}, "z": {"images": 3}}
    c = {"x": {"images": 40, "objects": 90, "j": 0.5}, "y": {"images": 4, "pixels": None}}
    methods = [method("a", a, prompts={"x": "ab", "y": "cd"}), method("b", b, prompts={"x": "ff"}), method("c", c)]
    assert list_mismatches(methods) == [
        "x: objects 90 in a, 91 in b, 90 in c",
        "x: prompts ab in a, ff in b",
        "y: images 3 in a, 4 in c",
    ]
    assert list_mismatches([method("a", a), method("c", {"x": c["x"]})]) == []
    found = list_mismatches([method("a", a, {"x": "source"}), method("c", {"x": c["x"]}, {"x": "target"})])
    assert found == ["x: group source in a, target in c"]


def test_published_pavpu_of_23_datasets():
    methods = [
        method(name, {f"d{i}": {"pavpu": value / 100} for i, value in enumerate(values)})
        for name, values in (("bayes", BAYES), ("ruac", RUAC))
    ]
    (table,), (test,) = compare(methods, ["pavpu"])[2:]
    assert round(100 * table.targets.values["bayes"], 1) == 55.4  # as printed there
    assert round(100 * table.targets.values["ruac"], 1) == 63.7
    assert (test.pairs, test.wins, test.ties, test.losses) == (23, 21, 0, 2)
    # 9.0, 6.6 and others come twice. All 2^23 patterns are too many to list; those that reach the statistic are few:
    # the losses, 0.5 and 1.1, have ranks 2 and 3, so the losers' ranks may sum to at most 5.
    assert test.statistic == 23 * 24 / 2 - 5
    assert test.p == 10 / 2**23  # {}, 1, 2, 3, 4, 5, 1+2, 1+3, 1+4, 2+3
