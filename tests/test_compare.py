import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ruac_jax.compare import compare_folders, short_names
from ruac_jax.errors import UserError
from ruac_jax.evaluation.report import write_results

ROOT = Path(__file__).parents[1]
GROUPS = {"source": "source"} | {f"d{i}": "objects" if i < 4 else "scenes" for i in range(8)}
METRICS = ["j_and_f", "pavpu", "aurc", "ece", "auroc_mask"]


def dataset(value):
    return {"images": 3, "objects": 9, "pixels": 500} | dict.fromkeys(METRICS, value)


def write(folder, gain, **changes):
    """An evaluation as its own writer leaves it."""
    values = {name: dataset(0.5 + gain * (i + 1)) for i, name in enumerate(GROUPS)} | changes
    curve = {"risk_coverage": {"coverage": [0.5, 1.0], "risk": [0.2, 0.3 + gain]}}
    write_results(
        folder,
        values,
        config={},
        versions={},
        checkpoint=folder.name,
        groups=GROUPS,
        prompts=dict.fromkeys(GROUPS, "abc"),
        curves=dict.fromkeys(values, curve),
    )
    return folder


def edit(folder, change):
    path = folder / "results.json"
    results = json.loads(path.read_text())
    change(results)
    path.write_text(json.dumps(results))


@pytest.fixture
def folders(tmp_path):
    return [write(tmp_path / "base/evaluation", 0.0), write(tmp_path / "ruac/evaluation", 0.01)]


def run(*arguments, cwd):
    command = [sys.executable, "-m", "ruac_jax.compare", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_prints_and_writes(folders, tmp_path):
    done = run(*folders, "--output", "out", "--names", "base,RUAC", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "out/comparison.md").read_text()
    assert "# RUAC against base" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.json",
        "comparison.csv",
        "comparison.md",
        "deltas_RUAC.png",
        "scatter_RUAC.png",
        "risk_coverage_overlay.png",
    }
    found = json.loads((tmp_path / "out/comparison.json").read_text())
    assert list(found["tables"]) == METRICS
    assert found["sources"][1] == {"name": "RUAC", "folder": str(folders[1]), "checkpoint": "evaluation"}
    test = found["tests"][0]
    assert (test["pairs"], test["wins"], test["statistic"]) == (8, 8, 36)  # the source is apart
    assert test["p"] == pytest.approx(1 / 2**8)
    assert test["p_holm"] == pytest.approx(3 / 2**8 * 5 / 3)  # three metrics improve, two get worse
    assert test["hodges_lehmann"] == pytest.approx(0.055)  # the middle of 0.02, 0.03, ..., 0.09
    aurc = found["tests"][2]
    assert (aurc["losses"], aurc["statistic"], aurc["p"]) == (8, 0, pytest.approx(1.0))
    assert found["tables"]["ece"]["groups"]["scenes"]["values"]["base"] == pytest.approx(0.5)
    rows = list(csv.DictReader((tmp_path / "out/comparison.csv").read_text().splitlines()))
    assert len(rows) == len(METRICS) * len(GROUPS)


def test_one_folder_is_not_a_comparison(folders, tmp_path):
    done = run(folders[0], cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: expected two or more folders")
    assert "Traceback" not in done.stderr


def test_nothing_is_written_unless_asked(folders, tmp_path):
    before = set(tmp_path.rglob("*"))
    text = compare_folders(folders, metrics=["aurc", "aurc"])
    assert set(tmp_path.rglob("*")) == before
    assert text.startswith("# ruac/evaluation against base/evaluation\n\n## AURC (lower is better)\n")
    assert text.count("## AURC") == 1


def test_three_methods_without_curves_or_groups(folders, tmp_path):
    folders.append(write(tmp_path / "c", 0.02))
    for folder in folders:
        (folder / "curves.json").unlink()
        edit(folder, lambda results: results.pop("groups"))
    text = compare_folders(folders, names=["a", "b/x", "c"], metrics=["j_and_f"], output=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        "deltas_b_x.png",
        "scatter_b_x.png",
        "deltas_c.png",
        "scatter_c.png",
    }
    assert "no dataset is known to be the source" in text
    assert "average of 9 targets" in text


def test_other_prompts_and_counts_are_refused_and_named(folders, tmp_path):
    changed = {"d1": dataset(0.5) | {"objects": 8}, "d3": dataset(0.5) | {"images": 2}}
    folders.append(write(tmp_path / "c", 0.0, **changed))
    edit(folders[2], lambda results: results["prompts"].update(d5="xyz"))
    with pytest.raises(UserError, match="not of the same evaluation") as error:
        compare_folders(folders, names=["a", "b", "c"], output=tmp_path / "out")
    assert str(error.value).splitlines()[1:] == [
        "  d1: objects 9 in a, 9 in b, 8 in c",
        "  d3: images 3 in a, 3 in b, 2 in c",
        "  d5: prompts abc in a, abc in b, xyz in c",
    ]
    assert not (tmp_path / "out").exists()


def test_prompts_that_only_one_folder_knows_are_no_hindrance(folders):
    edit(folders[0], lambda results: results.pop("prompts"))
    assert "average of 8 targets" in compare_folders(folders)


def broken(folder):
    (folder / "results.json").write_text('{"datasets": {')


def broken_curves(folder):
    (folder / "curves.json").write_text('{"d1": {"risk_coverage": {"coverage": [1.0], "risk": []}}}')


MISTAKES = {
    "no file": (lambda folder: (folder / "results.json").unlink(), r"no .*results\.json: expected the output folder"),
    "broken": (broken, r"results\.json is broken .*; evaluate again"),
    "no object": (lambda folder: (folder / "results.json").write_text("[1]"), r"expected a JSON object, found \[1\]"),
    "no datasets": (lambda folder: edit(folder, lambda r: r.update(datasets={})), r'expected "datasets" .* found {}'),
    "no metrics": (
        lambda folder: edit(folder, lambda r: r["datasets"].update(d1=3)),
        "d1: expected its metrics, found 3",
    ),
    "no number": (
        lambda folder: edit(folder, lambda r: r["datasets"]["d1"].update(ece=float("nan"))),
        "d1: ece: expected a number, found nan",
    ),
    "bad groups": (lambda folder: edit(folder, lambda r: r.update(groups={"d1": 3})), 'expected "groups"'),
    "bad prompts": (lambda folder: edit(folder, lambda r: r.update(prompts=["a"])), 'expected "prompts"'),
    "other group": (
        lambda folder: edit(folder, lambda r: r.update(groups={"d1": "x"})),
        "d1: group objects in .* x in",
    ),
    "nothing in common": (
        lambda folder: edit(folder, lambda r: r.update(datasets={"other": {"j": 0.5}})),
        "ruac/evaluation and base/evaluation have no dataset in common",
    ),
    "bad curves": (broken_curves, r"curves\.json: d1: expected coverage and risk, found "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_folders_that_cannot_be_used(mistake, folders, tmp_path):
    spoil, message = MISTAKES[mistake]
    spoil(folders[1])
    with pytest.raises(UserError, match=message):
        compare_folders(folders, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["pavpuu"]}, "no metric 'pavpuu' to compare; did you mean 'pavpu'.*There are: j_and_f, pavpu,"),
        ({"metrics": ["objects"]}, "no metric 'objects' to compare"),
        ({"metrics": []}, "--metrics: expected at least one of j_and_f"),
        ({"names": ["a"]}, "--names: expected 2 different names, one per folder, found 'a'"),
        ({"names": ["a", "a"]}, "expected 2 different names"),
        ({"names": ["a/b", "a_b"]}, "expected 2 different names"),
        ({"names": ["a", ""]}, "expected 2 different names"),
    ],
)
def test_options_that_cannot_be_used(options, message, folders):
    with pytest.raises(UserError, match=message):
        compare_folders(folders, **options)


def test_output_that_cannot_be_written(folders, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*file"):
        compare_folders(folders, output=tmp_path / "file")


def test_names_are_as_short_as_they_can_be():
    assert short_names([Path("runs/a"), Path("runs/b")]) == ["a", "b"]
    assert short_names([Path("a/evaluation"), Path("b/evaluation")]) == ["a/evaluation", "b/evaluation"]
    assert short_names([Path("x/a/out"), Path("x/b/out"), Path("y/a/out")]) == ["x/a/out", "x/b/out", "y/a/out"]
    with pytest.raises(UserError, match="given twice"):
        short_names([Path("a"), Path("b/../a")])
