"""The study command as a user runs it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flax import nnx

from ruac_jax.config import Config
from ruac_jax.weights import ModelMetadata, create_model, save_model

ROOT = Path(__file__).parents[1]


def run(*arguments, cwd, timeout=480):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # one device, as at home
    command = [sys.executable, "-m", "ruac_jax.study", *arguments]
    environment |= {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds fresh nano networks, `model` and, with SAM2's own head, `plain`, and a `run` of another size."""
    folder = tmp_path_factory.mktemp("study")
    for name, head in (("model", "weibull"), ("plain", "hypernetwork")):
        save_model(folder / name, create_model("nano", head, rngs=nnx.Rngs(0)), ModelMetadata("nano", head))
    (folder / "run").mkdir()
    (folder / "run/config.json").write_text(json.dumps(dataclasses.asdict(Config())))
    return folder


DATASETS = ["--datasets", "shapes/source,shapes/xray", "--num_images", "1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "options", "shown"),
    [
        ("sampling", [*DATASETS, "--draws", "2"], "| analytic, full "),
        ("alignment", DATASETS, "| untrained style and deformation |"),
        ("parameters", [], "| head (weibull) "),
    ],
    ids=["sampling", "alignment", "parameters"],
)
def test_a_study_prints_and_writes(folder, study, options, shown):
    done = run(study, "--checkpoint", "model", "--output", f"out/{study}", *options, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert shown in done.stdout
    output = folder / "out" / study
    assert {path.name for path in output.iterdir()} == {f"{study}.json", f"{study}.md", f"{study}.png"}
    assert (output / f"{study}.md").read_text() == done.stdout
    content = json.loads((output / f"{study}.json").read_text())
    assert content["study"] == study
    expected = json.loads((folder / "model/metadata.json").read_text())["fingerprint"]
    assert content["settings"]["checkpoint"] == {"path": "model", "fingerprint": expected}
    if study != "parameters":
        assert content["settings"]["datasets"] == ["shapes/source", "shapes/xray"]
        assert content["settings"]["num_images"] == 1


FLAGS = ["--checkpoint=model", "--output=out/mistake", "--datasets=shapes/source,shapes/xray"]
MISTAKES = {
    "no study": ([], "sampling, alignment, parameters"),
    "misspelt study": (["sampeling", *FLAGS], "sampling, alignment, parameters"),
    "missing flag": (["sampling", *FLAGS[:2]], "--datasets is missing"),
    "missing checkpoint": (["parameters", "--checkpoint=a", "--output=o"], "a: no such folder"),
    "odd draws": (["sampling", *FLAGS, "--draws=7"], "--draws 7: expected an even number"),
    "unknown domain": (["alignment", *FLAGS, "--datasets=shapes/sauce"], "did you mean 'source'?"),
    "no target": (["alignment", *FLAGS, "--datasets=shapes/source"], "name the source domain first"),
    "no spread": (["sampling", *FLAGS, "--checkpoint=plain"], "needs a head whose logits have a spread"),
    "other run": (["parameters", *FLAGS[:2], "--run=run"], "trained the variant 'base_plus'"),
    "misspelt system": (["shift", "--output=o", "--systems=bayess"], "did you mean 'bayes'?"),
    "shift nowhere": (["shift", "--seeds=1"], "--output is missing"),
    "unprepared source": (
        ["shift", "--output=o", "--train_on=mine", "--datasets=shapes/source", "--seeds=1"],
        "no dataset 'mine'",
    ),
    "unprepared target": (
        ["shift", "--output=o", "--train_on=shapes/source", "--datasets=shapes/source,shapes/xray,mine"],
        "no dataset 'mine'",
    ),
    "half a benchmark": (["shift", "--output=o", "--train_on=mine"], "--train_on and --datasets"),
    "no run": (["alignment", *FLAGS, "--run=nowhere"], "nowhere: not the folder of a training run"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing_behind(mistake, folder):
    arguments, message = MISTAKES[mistake]
    done = run(*arguments, cwd=folder, timeout=120)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (folder / "out/mistake").exists()
