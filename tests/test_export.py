"""Exported functions in a process that has neither this project nor Flax."""

import hashlib
import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from ruac_jax.export import Functions, export_functions, write_export
from ruac_jax.inference import encode
from ruac_jax.interaction import repeat_for_objects
from ruac_jax.model import Prompts
from ruac_jax.predictor import Predictor
from ruac_jax.weights import ModelMetadata, create_model, save_model

ROOT = Path(__file__).parents[1]
SIZE = 64
# The same network lowered twice; constants may be folded and fused in another order than parameters.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}

ALONE = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ruac_jax", "convert", "flax", "orbax", "torch", "PIL"}:
            raise ImportError(f"{name} is not to be had here")
sys.meta_path.insert(0, Refuse())
"""

LOAD_AND_RUN = """
import json
import jax, numpy as np
calls = {}
for name, entry in json.load(open("exported/manifest.json"))["functions"].items():
    calls[name] = jax.export.deserialize(bytearray(open("exported/" + entry["file"], "rb").read())).call
given = np.load("given.npz")
features = calls["encoder"](given["image"])
found = {f"features/{name}": value for name, value in features.items()}
for case in ("a", "b"):
    prompts = [given[f"{case}/{name}"] for name in ("points", "labels", "mask", "has_mask")]
    found |= {f"{case}/{name}": value for name, value in calls["decoder"](features, *prompts).items()}
np.savez("found.npz", **{name: np.asarray(value) for name, value in found.items()})
assert not {"ruac_jax", "flax"} & sys.modules.keys()
"""


def run(*arguments, cwd, timeout=300):
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PYTHONPATH")}
    command = [sys.executable, *arguments]
    if arguments[0] == "-m":
        environment |= {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def model():
    return create_model("nano", "weibull", rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Holds the network as `model` and, by the command, as `exported`."""
    folder = tmp_path_factory.mktemp("export")
    save_model(folder / "model", model, ModelMetadata("nano", "weibull", source="here"))
    flags = ["--checkpoint", "model", "--output", "exported", "--image_size", str(SIZE), "--variance", "full"]
    done = run("-m", "ruac_jax.export", *flags, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("exported: nano, 64 px, for cpu; ")
    assert {path.name for path in folder.iterdir()} == {"model", "exported"}
    return folder


def draw_prompts(rng, objects, points):
    """Points of every label, absent ones included, and earlier logits for every other object."""
    return Prompts(
        rng.uniform(0, SIZE, (objects, points, 2)).astype(np.float32),
        rng.integers(-3, 4, (objects, points)).astype(np.int32),
        rng.normal(0, 8, (objects, SIZE // 4, SIZE // 4)).astype(np.float32),
        np.arange(objects) % 2 == 0,
    )


def decode(graph, state, features, prompts):
    model = nnx.merge(graph, state)
    decoded = model.decode(repeat_for_objects(features, len(prompts.points)), prompts)
    distribution = model.head(decoded)
    return {
        "logits": distribution.mean_logits(),
        "uncertainty": distribution.uncertainty(mode="full"),
        "iou": decoded.iou,
        "object_score": decoded.object_score,
    }


@pytest.mark.slow
def test_a_process_without_this_project_computes_the_same(folder, model, rng):
    image = rng.uniform(0, 255, (1, SIZE, SIZE, 3)).astype(np.float32)
    cases = {"a": draw_prompts(rng, 1, 1), "b": draw_prompts(rng, 3, 4)}
    given = {f"{case}/{name}": value for case, prompts in cases.items() for name, value in prompts._asdict().items()}
    np.savez(folder / "given.npz", image=image, **given)
    done = run("-c", ALONE + LOAD_AND_RUN, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    found = np.load(folder / "found.npz")

    graph, state = nnx.split(model)
    features = jax.jit(lambda state, image: encode(nnx.merge(graph, state), image))(state, image)
    for name, value in features._asdict().items():
        np.testing.assert_allclose(found[f"features/{name}"], value, **CLOSE)
    for case, prompts in cases.items():
        objects = len(prompts.points)
        expected = jax.jit(partial(decode, graph))(state, features, prompts)
        assert found[f"{case}/logits"].shape == (objects, 4, SIZE // 4, SIZE // 4)
        for name, value in expected.items():
            np.testing.assert_allclose(found[f"{case}/{name}"], value, **CLOSE)


@pytest.mark.slow
def test_the_example_of_the_page_runs_and_agrees_with_the_predictor(folder, model):
    (example,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/export.md").read_text(), re.MULTILINE | re.DOTALL)
    save = '\nnp.savez("example.npz", image=image, masks=masks, uncertainty=uncertainty, iou=iou[rows, best])'
    done = run("-c", ALONE + example + save, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(r"\d+ px, predicted IoU 0\.\d{3}, mean uncertainty [01]\.\d{3}", line) for line in lines)
    found = np.load(folder / "example.npz")
    predictor = Predictor(model, image_size=SIZE)
    predictor.set_image(found["image"].astype(np.uint8))
    for row, prompts in enumerate([{"point_coords": [[90, 50]], "point_labels": [1]}, {"box": [60, 20, 120, 80]}]):
        expected = predictor.predict(**prompts, variance="full")
        best = expected.iou_predictions.argmax()
        # JAX and PIL antialias with other roundings.
        np.testing.assert_allclose(found["iou"][row], expected.iou_predictions[best], atol=1e-4)
        np.testing.assert_allclose(found["uncertainty"][row], expected.uncertainty[best], atol=1e-3)
        assert np.mean(found["masks"][row] != expected.masks[best]) < 1e-3


def test_the_manifest_says_what_the_files_are(folder):
    manifest = json.loads((folder / "exported/manifest.json").read_text())
    metadata = json.loads((folder / "model/metadata.json").read_text())
    assert manifest["checkpoint"]["fingerprint"] == metadata["fingerprint"]
    assert manifest["checkpoint"]["source"] == "here"
    assert (manifest["image_size"], manifest["variance"], manifest["platforms"]) == (SIZE, "full", ["cpu"])
    assert manifest["versions"].keys() == {"ruac_jax", "jax", "jaxlib", "flax"}
    for name in ("encoder", "decoder"):
        entry = manifest["functions"][name]
        data = (folder / "exported" / entry["file"]).read_bytes()
        assert (entry["sha256"], entry["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert {path.name for path in (folder / "exported").iterdir()} == {
        "manifest.json",
        "encoder.jax_export",
        "decoder.jax_export",
    }
    encoder, decoder = manifest["functions"]["encoder"], manifest["functions"]["decoder"]
    assert encoder["inputs"] == {"image": {"shape": [1, SIZE, SIZE, 3], "dtype": "float32"}}
    assert decoder["inputs"]["features"] == encoder["outputs"]
    assert decoder["inputs"]["points"] == {"shape": ["n", "p", 2], "dtype": "float32"}
    assert decoder["inputs"]["labels"] == {"shape": ["n", "p"], "dtype": "int32"}
    assert decoder["inputs"]["mask"] == {"shape": ["n", 16, 16], "dtype": "float32"}
    assert decoder["inputs"]["has_mask"] == {"shape": ["n"], "dtype": "bool"}
    assert decoder["outputs"] == {
        "logits": {"shape": ["n", 4, 16, 16], "dtype": "float32"},
        "iou": {"shape": ["n", 4], "dtype": "float32"},
        "object_score": {"shape": ["n"], "dtype": "float32"},
        "uncertainty": {"shape": ["n", 4, 16, 16], "dtype": "float32"},
    }


@pytest.mark.slow
def test_every_platform_gets_its_form_and_parameters_are_kept_once(model, rng, folder):
    several = export_functions(model, SIZE, platforms=["cpu", "cuda", "tpu"], variance="full")
    assert several.encoder.platforms == ("cpu", "cuda", "tpu")
    alone = (folder / "exported/decoder.jax_export").read_bytes()
    assert len(several.decoder.serialize()) < 1.2 * len(alone)
    # On CPUs a 3x3 convolution is a sum of products; elsewhere it is one.
    cuda = export_functions(model, SIZE, platforms=["cuda"]).decoder
    cpu = jax.export.deserialize(bytearray(alone))
    assert "stablehlo.convolution" in cuda.mlir_module()
    assert "stablehlo.convolution" not in cpu.mlir_module()
    assert "stablehlo.convolution" in several.decoder.mlir_module()

    image = rng.uniform(0, 255, (1, SIZE, SIZE, 3)).astype(np.float32)
    features = several.encoder.call(image)
    prompts = draw_prompts(rng, 2, 2)
    for name, value in several.decoder.call(features, *prompts).items():
        np.testing.assert_allclose(value, cpu.call(features, *prompts)[name], **CLOSE)
    with pytest.raises(ValueError, match="cuda"):
        cuda.call(features, *prompts)


def test_an_export_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported/manifest.json").write_text("old")
    encoder, decoder = export_jitted(lambda image: image), export_jitted(lambda *prompts: prompts[0], 5)
    with pytest.raises(TypeError, match="not JSON serializable"):  # the manifest is the last of the files
        write_export(tmp_path / "exported", Functions(encoder, decoder), {"details": object()}, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    assert (tmp_path / "exported/manifest.json").read_text() == "old"


def export_jitted(function, arguments=1):
    return jax.export.export(jax.jit(function))(*[jax.ShapeDtypeStruct((1,), np.float32)] * arguments)


@pytest.mark.slow
def test_an_export_is_replaced_on_request(folder):
    flags = ["--checkpoint", "model", "--output", "exported2"]
    (folder / "exported2").mkdir()
    (folder / "exported2/manifest.json").write_text("{}")
    done = run("-m", "ruac_jax.export", *flags, "--overwrite", cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    manifest = json.loads((folder / "exported2/manifest.json").read_text())
    assert (manifest["image_size"], manifest["variance"]) == (128, "product")


FLAGS = ["--checkpoint=model", "--output=out"]
MISTAKES = {
    "missing flag": (FLAGS[:1], "--output is missing"),
    "missing checkpoint": (["--checkpoint=a", "--output=out"], "a: no such folder"),
    "unknown platform": ([*FLAGS, "--platforms=cpu,gpu"], "found 'gpu'; NVIDIA's GPUs are 'cuda'"),
    "no platform": ([*FLAGS, "--platforms="], "expected one or more of cpu, cuda, rocm, tpu, found nothing"),
    "odd size": ([*FLAGS, "--image_size=100"], "--image_size 100: expected a multiple of 32"),
    "output exists": (["--checkpoint=model", "--output=exported"], "exported: exists already; --overwrite replaces it"),
    "not an export": (["--checkpoint=model", "--output=model", "--overwrite"], "model: is not an exported model"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing_behind(mistake, folder):
    arguments, message = MISTAKES[mistake]
    before = sorted(folder.rglob("*"))
    done = run("-m", "ruac_jax.export", *arguments, cwd=folder, timeout=120)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert sorted(folder.rglob("*")) == before
