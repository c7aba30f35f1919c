"""The commands as a user runs them: train, resume, evaluate, export; and one clear line where something is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHORT = [
    "--config.image_size=64",
    "--config.schedule.segmentation_epochs=1",
    "--config.schedule.adversarial_epochs=1",
    "--config.schedule.steps_per_epoch=1",
    "--config.runtime.log_every=1",
    "--config.runtime.picture_every=3",
    "--config.pretrain.image_size=64",
    "--config.pretrain.schedule.steps_per_epoch=2",
    "--config.data.batch_size=2",
    "--config.data.images_per_device=2",
    "--config.pretrain.data.batch_size=2",
    "--config.pretrain.data.images_per_device=2",
    "--config.evaluation.num_images=2",
    "--config.evaluation.datasets=('shapes/source', 'shapes/xray')",
]


def run(module: str, *arguments: str, cwd: Path, timeout: int = 1200) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # one device, as at home
    command = [sys.executable, "-m", module, *arguments]
    environment |= {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.mark.slow
def test_the_quickstart_trains_resumes_evaluates_and_exports(tmp_path):
    config = ["--config", str(ROOT / "configs/quickstart.py"), "--workdir", "run", *SHORT]
    done = run("ruac_jax.train", *config, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| shapes/source" in done.stdout
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [record["phase"] for record in records] == ["segmentation", "kl", "adversarial"]
    assert {"attack/loss_ratio", "attack/style_shift", "attack/flow_px", "gradient_norm/attack"} <= records[-1].keys()
    assert {path.name for path in (tmp_path / "run/pictures").iterdir()} == {
        "000001_segmentation.png",
        "000002_kl.png",
        "000003_adversarial.png",
    }
    results = json.loads((tmp_path / "run/evaluation/results.json").read_text())
    assert results.keys() == {"datasets", "groups", "prompts", "strata", "config", "versions", "checkpoint"}
    assert results["datasets"].keys() == {"shapes/source", "shapes/xray"}
    wanted = {"images", "objects", "j", "f", "j_and_f", "pavpu", "aurc", "ece", "auroc"}
    assert wanted <= results["datasets"]["shapes/xray"].keys()
    assert results["datasets"]["shapes/source"]["trivial_j_and_f"] > 0

    # Started again, it finds everything done and evaluates to the same figures.
    again = run("ruac_jax.train", *config, cwd=tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert json.loads((tmp_path / "run/evaluation/results.json").read_text())["datasets"] == results["datasets"]

    options = ["--checkpoint", "run/model", "--datasets", "shapes/xray", "--num_images", "2", "--output", "out"]
    evaluated = run("ruac_jax.evaluate", *options, cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr[-3000:]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"results.json", "results.csv", "table.md"}

    exported = run("convert.flax_to_sam2", "--checkpoint", "run/model", "--output", "ruac.safetensors", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr[-3000:]
    back = run("convert.sam2_to_flax", "--checkpoint", "ruac.safetensors", "--output", "back", cwd=tmp_path)
    assert back.returncode == 0, back.stderr[-3000:]
    fingerprints = [
        json.loads((tmp_path / d / "metadata.json").read_text())["fingerprint"] for d in ("run/model", "back")
    ]
    assert fingerprints[0] == fingerprints[1]


QUICKSTART = ["--config", str(ROOT / "configs/quickstart.py")]
SYSTEMS = ROOT / "configs/systems.py"
RUAC = ["--config", str(ROOT / "configs/ruac.py")]
MISTAKES = {
    "no config": ("ruac_jax.train", [], "Give --config"),
    "misspelt setting": ("ruac_jax.train", [*QUICKSTART, "--config.loss.rooting=split"], 'Did you mean "routing"'),
    "no such config": ("ruac_jax.train", ["--config=nothing.py"], "no configuration nothing.py"),
    "misspelt choice": ("ruac_jax.train", [*QUICKSTART, "--config.loss.routing=splt"], "did you mean 'split'?"),
    "misspelt system": ("ruac_jax.train", ["--config", f"{SYSTEMS}:nano/bayess"], "did you mean 'nano/bayes'?"),
    "system of nothing": ("ruac_jax.train", ["--config", "nothing.py:bayes"], "no configuration nothing.py"),
    "impossible value": ("ruac_jax.train", [*QUICKSTART, "--config.data.batch_size=5"], "data.batch_size"),
    "missing dataset": ("ruac_jax.train", RUAC, "python -m ruac_jax.prepare_data mose"),
    "missing checkpoint": (
        "ruac_jax.evaluate",
        ["--checkpoint=a", "--datasets=shapes/all", "--output=o"],
        "a: no such",
    ),
    "adaptation in shares": (
        "ruac_jax.evaluate",
        ["--checkpoint=nano", "--datasets=shapes/all", "--output=o", "--adapt=uctta", "--shard=0/2"],
        "test-time adaptation goes from image to image: it needs one device and one share",
    ),
    "missing flag": ("ruac_jax.evaluate", ["--checkpoint=a"], "--datasets is missing"),
    "unknown task": ("ruac_jax.benchmark", ["encodr"], "encoder, train-step, memory"),
    "no source": ("ruac_jax.prepare_data", ["mose", "--source=nowhere"], "no folder nowhere"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing_behind(mistake, tmp_path):
    module, arguments, message = MISTAKES[mistake]
    done = run(module, *arguments, cwd=tmp_path, timeout=120)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
