"""The command that segments a user's own images, as a user runs it."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from matplotlib import colormaps
from PIL import Image
from pycocotools import mask as coco

from ruac_jax.predictor import Predictor
from ruac_jax.weights import ModelMetadata, create_model, save_model

ROOT = Path(__file__).parents[1]
SIZE = 64
FLAGS = ["--checkpoint=model", f"--image_size={SIZE}"]


def run(*arguments, cwd, timeout=300):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # one device, as at home
    command = [sys.executable, "-m", "ruac_jax.predict", *arguments]
    environment |= {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds a fresh nano network and images: `photo.png`, 50 x 40 px, `many/` of two, and what is none."""
    folder = tmp_path_factory.mktemp("predict")
    save_model(folder / "model", create_model("nano", "weibull", rngs=nnx.Rngs(0)), ModelMetadata("nano", "weibull"))
    rng = np.random.default_rng(0)
    (folder / "many").mkdir()
    for name, size in (("photo.png", (40, 50)), ("many/a.png", (40, 50)), ("many/b.jpg", (30, 70))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    (folder / "text.png").write_text("no image")
    (folder / "empty").mkdir()
    return folder


def succeed(*arguments, cwd):
    done = run(*FLAGS, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@functools.cache
def load_predictor(folder):
    return Predictor.from_checkpoint(folder / "model", image_size=SIZE)


def expect(folder, name="photo.png", **prompts):
    predictor = load_predictor(folder)
    predictor.set_image(np.asarray(Image.open(folder / name)))
    return predictor.predict(**prompts)


def check_files(output, entry, expected, which):
    """The files of one mask against the predictor's answer; both ran the same program, so nothing differs."""
    mask = np.asarray(Image.open(output / entry["files"]["mask"]))
    np.testing.assert_array_equal(mask, np.where(expected.masks[which], 255, 0))
    uncertainty = np.load(output / entry["files"]["uncertainty"])
    assert uncertainty.dtype == np.float32
    np.testing.assert_allclose(uncertainty, expected.uncertainty[which], atol=1e-6)
    picture = np.asarray(Image.open(output / entry["files"]["uncertainty_picture"]))
    np.testing.assert_array_equal(picture, colormaps["magma"](uncertainty, bytes=True)[:, :, :3])
    assert entry["predicted_iou"] == pytest.approx(expected.iou_predictions[which], abs=2e-6)
    assert entry["area"] == expected.masks[which].sum()
    assert entry["doubtful_pixels"] == (uncertainty > 0.5).sum()
    inside = entry["uncertainty_inside"]
    assert inside == (pytest.approx(uncertainty[mask > 0].mean(), abs=2e-6) if mask.any() else None)
    assert entry["uncertainty_image"] == pytest.approx(uncertainty.mean(), abs=2e-6)
    if mask.any():
        x, y, width, height = entry["bbox"]
        outside = mask.copy()
        outside[y : y + height, x : x + width] = 0
        assert not outside.any()
        assert mask[[y, y + height - 1]].any(axis=1).all()
        assert mask[:, [x, x + width - 1]].any(axis=0).all()


@pytest.mark.slow
def test_points_and_a_box_give_one_object_with_all_hypotheses(folder):
    prompts = ["--point=20,15", "--point=45,35,0", "--box=5,5,40,30"]
    done = succeed("photo.png", *prompts, "--multimask", "--variance=full", "--output=combined", cwd=folder)
    assert done.stdout.count("photo: object 1, hypothesis ") == 3
    output = folder / "combined/photo"
    content = json.loads((output / "prediction.json").read_text())
    points, labels, box = [[20, 15], [45, 35]], [1, 0], [5, 5, 40, 30]
    assert content["prompts"] == [{"points": points, "labels": labels, "box": box}]
    fingerprint = json.loads((folder / "model/metadata.json").read_text())["fingerprint"]
    assert content["checkpoint"] == {"path": "model", "variant": "nano", "fingerprint": fingerprint}
    assert (content["image"], content["width"], content["height"]) == ("photo.png", 50, 40)
    assert content["settings"]["variance"] == "full"
    expected = expect(folder, point_coords=points, point_labels=labels, box=box, variance="full")
    order = np.argsort(-expected.iou_predictions)
    assert [entry["hypothesis"] for entry in content["masks"]] == [1, 2, 3]
    assert [entry["token"] for entry in content["masks"]] == [which + 1 for which in order]
    for entry, which in zip(content["masks"], order, strict=True):
        check_files(output, entry, expected, which)
    files = [file for entry in content["masks"] for file in entry["files"].values()]
    assert {path.name for path in output.iterdir()} == {"prediction.json", "overlay.png", *files}
    assert np.asarray(Image.open(output / "overlay.png")).std() > 10


@pytest.mark.slow
def test_boxes_are_objects_in_every_image_of_a_folder(folder):
    done = succeed("many", "--box=2,2,20,20", "--box=10,5,50,30", "--output=boxes", cwd=folder)
    assert "2/2" in done.stderr  # the progress bar
    assert {path.name for path in (folder / "boxes").iterdir()} == {"predictions.json", "a", "b"}
    summary = json.loads((folder / "boxes/predictions.json").read_text())
    assert summary["images"] == {"a": {"image": "many/a.png", "masks": 2}, "b": {"image": "many/b.jpg", "masks": 2}}
    for name, file in (("a", "many/a.png"), ("b", "many/b.jpg")):
        content = json.loads((folder / "boxes" / name / "prediction.json").read_text())
        assert [entry["object"] for entry in content["masks"]] == [1, 2]
        for entry, box in zip(content["masks"], ([2, 2, 20, 20], [10, 5, 50, 30]), strict=True):
            expected = expect(folder, file, box=box)
            check_files(folder / "boxes" / name, entry, expected, expected.iou_predictions.argmax())


@pytest.mark.slow
def test_draws_follow_from_the_seed_and_a_folder_is_replaced_on_request(folder):
    (folder / "drawn/old").mkdir(parents=True)
    (folder / "drawn/predictions.json").write_text("{}")
    draws = ["--uncertainty=monte_carlo", "--samples=2", "--seed=1", "--output=drawn", "--overwrite"]
    succeed("photo.png", "--point=20,15", *draws, cwd=folder)
    assert {path.name for path in (folder / "drawn").iterdir()} == {"photo", "predictions.json"}
    found = np.load(folder / "drawn/photo/object1_uncertainty.npy")

    def expected(seed):
        key = jax.random.fold_in(jax.random.key(seed), 1)  # of the first object
        how = {"uncertainty": "monte_carlo", "samples": 2, "key": key}
        answer = expect(folder, point_coords=[[20, 15]], point_labels=[1], **how)
        return answer.uncertainty[answer.iou_predictions.argmax()]

    np.testing.assert_allclose(found, expected(1), atol=1e-5)
    assert np.abs(found - expected(0)).max() > 1e-3


@pytest.mark.slow
def test_everything_is_segmented_without_prompts(folder):
    settings = ["--points_per_side=3", "--least_iou=0", "--least_stability=0"]
    done = succeed("photo.png", "--auto", *settings, "--output=auto", cwd=folder)
    output = folder / "auto/photo"
    content = json.loads((output / "prediction.json").read_text())
    masks = content["masks"]
    assert masks
    assert f"photo: {len(masks)} masks" in done.stdout
    assert {path.name for path in output.iterdir()} == {"prediction.json", "labels.png", "overlay.png"}
    # Largest first, smaller ones on top of them.
    expected = np.zeros((40, 50), int)
    for number, entry in enumerate(masks, start=1):
        mask = coco.decode(entry["segmentation"]).astype(bool)
        assert (entry["label"], entry["area"]) == (number, mask.sum())
        expected[mask] = number
    areas = [entry["area"] for entry in masks]
    assert areas == sorted(areas, reverse=True)
    np.testing.assert_array_equal(np.asarray(Image.open(output / "labels.png")), expected)
    assert content["settings"] == {
        "image_size": SIZE,
        "points_per_side": 3,
        "least_iou": 0.0,
        "least_stability": 0.0,
        "least_area": 0,
        "variance": "product",
    }


@pytest.mark.slow
def test_filters_that_nothing_passes_are_named(folder):
    done = succeed("photo.png", "--auto", "--points_per_side=2", "--least_iou=1", "--output=strict", cwd=folder)
    assert "photo: 0 masks" in done.stdout
    assert "no mask passed --least_iou 1 and --least_stability 0.95" in done.stdout


def test_help_shows_examples(folder):
    done = run("--help", cwd=folder)
    assert "python -m ruac_jax.predict photo.jpg --checkpoint MODEL --point 420,310" in done.stdout
    assert "--box:" in done.stdout


GOOD = ["photo.png", "--checkpoint=model", "--output=out", "--point=20,15"]
MISTAKES = {
    "missing flag": ([*GOOD[:2], GOOD[3]], "--output is missing"),
    "no prompt": (GOOD[:3], "what shall be segmented?"),
    "not an image": (["text.png", *GOOD[1:]], "text.png: not a readable image"),
    "empty folder": (["empty", *GOOD[1:]], "empty: no image in this folder"),
    "outside one of many": (["many", *GOOD[1:], "--point=65,10"], "--point 65,10 is outside many/a.png"),
    "unknown label": ([*GOOD, "--point=3,4,7"], "unknown label 7"),
    "bad number": ([*GOOD, "--box=1,2,x,4"], "--box 1,2,x,4: expected x0,y0,x1,y1"),
    "bad flag": ([*GOOD, "--samples=many"], "samples"),
    "missing checkpoint": (["photo.png", "--checkpoint=a", *GOOD[2:]], "a: no such folder"),
    "output exists": ([*GOOD[:2], "--output=many", GOOD[3]], "many: exists already; --overwrite replaces it"),
    "not ours": ([*GOOD[:2], "--output=many", GOOD[3], "--overwrite"], "many: is not a folder of this command"),
    "auto with a prompt": ([*GOOD, "--auto"], "has no use for --point"),
    "auto with draws": ([*GOOD[:3], "--auto", "--uncertainty=monte_carlo"], "--uncertainty analytic alone"),
    "grid without auto": ([*GOOD, "--points_per_side=3"], "--points_per_side is about --auto"),
    "odd image size": ([*GOOD, "--image_size=50"], "image_size: expected a multiple of 32"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing_behind(mistake, folder):
    arguments, message = MISTAKES[mistake]
    before = sorted(folder.rglob("*"))
    done = run(*arguments, cwd=folder, timeout=120)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    if mistake != "bad flag":  # which absl reports in its own words
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert sorted(folder.rglob("*")) == before
