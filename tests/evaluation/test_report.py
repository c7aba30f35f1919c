import csv
import json

import pytest

from ruac_jax.evaluation.report import average, format_table, write_results

DATASETS = {
    "shapes/source": {"images": 2, "objects": 5, "j_and_f": 0.9, "pavpu": 0.8, "aurc": 0.1, "auroc": 0.95},
    "shapes/fog": {"images": 2, "objects": 4, "j_and_f": 0.5, "pavpu": 0.6, "aurc": 0.3, "auroc": None},
    "shapes/thin": {"images": 3, "objects": 9, "j_and_f": 0.25, "pavpu": 0.7, "aurc": None, "auroc": None},
    "shapes/night": {"images": 3, "objects": 9, "j_and_f": 0.3, "pavpu": 0.5, "aurc": 0.4, "auroc": None},
}
GROUPS = {"shapes/source": "source", "shapes/fog": "appearance", "shapes/thin": "shape", "shapes/night": "appearance"}


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_average_is_over_targets_that_have_the_metric():
    result = average(DATASETS, GROUPS)
    assert result["j_and_f"] == pytest.approx(0.35)
    assert result["aurc"] == pytest.approx(0.35)
    assert result["auroc"] is None
    assert average({}) == {}


def test_table_groups_datasets_and_shows_percent_and_dashes():
    lines = format_table(DATASETS, groups=GROUPS).splitlines()
    assert len({len(line) for line in lines}) == 1
    names = [cells(line)[0] for line in lines]
    averages = ["average of appearance", "average of targets"]
    assert names[2:] == ["shapes/source", "shapes/fog", "shapes/night", "shapes/thin", *averages]
    fog = dict(zip(cells(lines[0]), cells(lines[3]), strict=True))
    assert fog["J&F"] == "50.00"
    assert fog["AURC"] == "0.3000"
    assert fog["AUROC"] == "-"
    assert fog["objects"] == "4"
    assert dict(zip(cells(lines[0]), cells(lines[6]), strict=True))["J&F"] == "40.00"
    assert dict(zip(cells(lines[0]), cells(lines[7]), strict=True))["J&F"] == "35.00"


def test_files(tmp_path):
    output = tmp_path / "new" / "folder"
    write_results(
        output,
        DATASETS,
        config={"images": 3},
        versions={"jax": "1"},
        checkpoint="model",
        groups=GROUPS,
        prompts={"shapes/fog": "ab"},
        curves={"shapes/fog": {"risk": [0.5]}},
    )
    results = json.loads((output / "results.json").read_text())
    assert results == {
        "datasets": DATASETS,
        "groups": GROUPS,
        "prompts": {"shapes/fog": "ab"},
        "strata": {},
        "config": {"images": 3},
        "versions": {"jax": "1"},
        "checkpoint": "model",
    }
    rows = list(csv.DictReader((output / "results.csv").read_text().splitlines()))
    assert [row["group"] for row in rows] == ["source", "appearance", "appearance", "shape"]
    assert rows[1]["pavpu"] == "0.6"
    assert rows[1]["auroc"] == ""
    assert format_table(DATASETS, groups=GROUPS) in (output / "table.md").read_text()
    assert json.loads((output / "curves.json").read_text()) == {"shapes/fog": {"risk": [0.5]}}
    assert len(list(output.iterdir())) == 4


def test_not_a_number_is_refused_and_the_old_file_stays(tmp_path):
    write_results(tmp_path, DATASETS, config={}, versions={}, checkpoint="first")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_results(tmp_path, {"a": {"j": float("nan")}}, config={}, versions={}, checkpoint="second")
    assert json.loads((tmp_path / "results.json").read_text())["checkpoint"] == "first"
