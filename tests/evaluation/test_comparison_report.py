import csv
import json

import pytest

from ruac_jax.evaluation.comparison import Method, compare
from ruac_jax.evaluation.comparison_report import format_csv, format_markdown, to_json

GROUPS = {"source": "source", "fog": "appearance", "night": "appearance", "thin": "shape"}
BASE = {
    "source": {"j_and_f": 0.9, "aurc": 0.05},
    "fog": {"j_and_f": 0.5, "aurc": 0.25},
    "thin": {"j_and_f": 0.25, "aurc": None},
    "night": {"j_and_f": 0.35, "aurc": 0.5},
}
BETTER = {
    "source": {"j_and_f": 0.875, "aurc": 0.05},
    "fog": {"j_and_f": 0.625, "aurc": 0.125},
    "thin": {"j_and_f": 0.5, "aurc": 0.25},
    "extra": {"j_and_f": 0.1, "aurc": 0.1},
}


@pytest.fixture
def comparison():
    return compare([Method("base", BASE, GROUPS, {}), Method("ruac", BETTER, GROUPS, {})], ["j_and_f", "aurc"])


def rows(text, heading):
    section = text.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:1] + lines[2:]]


def test_table_shows_values_deltas_and_averages(comparison):
    text = format_markdown(comparison)
    header, *body = rows(text, "J&F (%, higher is better)")
    assert header == ["dataset", "group", "base", "ruac", "delta ruac"]
    assert body == [
        ["source", "source", "90.00", "87.50", "-2.50"],
        ["fog", "appearance", "50.00", "62.50", "+12.50"],
        ["night", "appearance", "35.00", "-", "-"],
        ["thin", "shape", "25.00", "50.00", "+25.00"],
        ["extra", "", "-", "10.00", "-"],
        ["average of 1 in appearance", "", "50.00", "62.50", "+12.50"],
        ["average of 1 in shape", "", "25.00", "50.00", "+25.00"],
        ["average of 2 targets", "", "37.50", "56.25", "+18.75"],
    ]
    body = rows(text, "AURC (lower is better)")
    assert body[4] == ["thin", "shape", "-", "0.2500", "-"]
    assert body[-2] == ["average of 0 in shape", "", "-", "-", "-"]


def test_tests_and_remarks(comparison):
    text = format_markdown(comparison)
    header, *body = rows(text, "Tests over target datasets")
    found = [dict(zip(header, row, strict=True)) for row in body]
    assert found[0] == {
        "metric": "J&F",
        "method": "ruac",
        "pairs": "2",
        "missing": "0",
        "wins": "2",
        "ties": "0",
        "losses": "0",
        "median delta": "+18.75",
        "W+": "-",
        "p": "-",
        "p (Holm)": "-",
        "rank-biserial": "-",
    }
    assert (found[1]["pairs"], found[1]["missing"], found[1]["median delta"]) == ("1", "1", "-0.1250")
    assert "- j_and_f, ruac: no test, 2 differences other than 0" in text
    assert "- night: no results of ruac, so in no average" in text
    assert "- extra: no results of base, so in no average" in text
    assert "known to be the source" not in text


def test_a_test_is_printed_with_its_corrected_p():
    data = [
        {f"d{i}": {"j": 0.5, "ece": 0.5} for i in range(8)},
        {f"d{i}": {"j": 0.51 + i / 100, "ece": 0.6} for i in range(8)},
    ]
    text = format_markdown(
        compare([Method(name, each, {}, {}) for name, each in zip("ab", data, strict=True)], ["j", "ece"])
    )
    _, up, down = rows(text, "Tests over target datasets")
    assert up == ["J", "b", "8", "0", "8", "0", "0", "+4.50", "36", "0.00391", "0.00781", "+1.00"]
    assert down == ["ECE", "b", "8", "0", "0", "0", "8", "+0.1000", "0", "1", "1", "-1.00"]
    assert "no dataset is known to be the source" in text
    assert "no test" not in text


def test_csv_has_a_row_per_dataset_and_metric(comparison):
    found = list(csv.DictReader(format_csv(comparison).splitlines()))
    assert len(found) == 10
    assert found[1] == {
        "dataset": "fog",
        "group": "appearance",
        "metric": "j_and_f",
        "base": "0.5",
        "ruac": "0.625",
        "delta ruac": "0.125",
    }
    thin = next(row for row in found if row["dataset"] == "thin" and row["metric"] == "aurc")
    assert (thin["base"], thin["ruac"], thin["delta ruac"]) == ("", "0.25", "")


def test_json_holds_everything(comparison):
    found = json.loads(json.dumps(to_json(comparison), allow_nan=False))
    assert found["methods"] == ["base", "ruac"]
    assert found["groups"] == GROUPS | {"extra": ""}
    table = found["tables"]["aurc"]
    assert table["higher_is_better"] is False
    assert table["values"]["fog"] == {"base": 0.25, "ruac": 0.125}
    assert table["deltas"]["thin"] == {"ruac": None}
    assert table["targets"] == {"datasets": 1, "values": {"base": 0.25, "ruac": 0.125}, "deltas": {"ruac": -0.125}}
    assert table["groups"]["source"]["datasets"] == 1
    test = found["tests"][1]
    assert (test["metric"], test["pairs"], test["p"], test["p_holm"]) == ("aurc", 1, None, None)
    assert "needs 5" in test["reason"]
