import json

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from ruac_jax.data.builders import mose
from ruac_jax.data.custom import custom_dataset
from ruac_jax.data.preparation import prepare
from ruac_jax.errors import UserError
from ruac_jax.evaluation import run
from ruac_jax.evaluation.predictor import UncertaintySettings
from ruac_jax.evaluation.protocol import Protocol
from ruac_jax.evaluation.run import EvaluationSettings, evaluate_model, expand_names, groups_of, open_subject
from ruac_jax.weights import ModelMetadata, create_model, save_model

from ..data.video_tree import write_mose

SIZE = 64
NAMES = ["shapes/source", "shapes/xray"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(folder, create_model("nano", "weibull", rngs=nnx.Rngs(0)), ModelMetadata("nano", "weibull"))
    return folder


def evaluate(checkpoint, output, names=NAMES, devices=1, **settings):
    settings = EvaluationSettings(**{"image_size": SIZE, "num_images": 5, "pictures": 1} | settings)
    return evaluate_model(
        checkpoint, names, output, config={}, settings=settings, devices=jax.local_devices()[:devices]
    )


@pytest.fixture(scope="module")
def once(checkpoint, tmp_path_factory):
    """Results of one device in one go."""
    output = tmp_path_factory.mktemp("once")
    evaluate(checkpoint, output)
    return (output / "results.json").read_text()


def test_one_run_leaves_everything(checkpoint, once, tmp_path):
    evaluate(checkpoint, tmp_path)
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    figures = {"domains.png", "risk_coverage.png", "reliability.png"}
    assert names == {"results.json", "results.csv", "table.md", "curves.json"} | figures
    assert len(list((tmp_path / "examples/shapes_xray").iterdir())) == 1
    results = json.loads(once)
    assert results["groups"] == {"shapes/source": "source", "shapes/xray": "both"}
    assert results["prompts"]["shapes/xray"].startswith("fixed3-")
    assert results["datasets"]["shapes/xray"]["images"] == 5
    assert results["datasets"]["shapes/source"]["trivial_j_and_f"] > 0
    assert results["strata"]["shapes/xray"]["all objects"]["objects"] == results["datasets"]["shapes/xray"]["objects"]
    scales = {results["datasets"][name]["logit_scale"] for name in NAMES}
    assert len(scales) == 1  # fitted on the source, used for all
    assert results["datasets"]["shapes/xray"]["corrected_j_and_f"] is not None
    assert "UncCorr" in (tmp_path / "table.md").read_text()


def test_eight_devices_give_the_same_file(checkpoint, once, tmp_path):
    evaluate(checkpoint, tmp_path, devices=8)
    assert (tmp_path / "results.json").read_text() == once


def test_shares_give_the_same_file_in_any_order(checkpoint, once, tmp_path):
    assert evaluate(checkpoint, tmp_path, shard=(1, 2)) is None
    assert not (tmp_path / "results.json").exists()
    assert evaluate(checkpoint, tmp_path, shard=(0, 2)) is not None
    assert (tmp_path / "results.json").read_text() == once


def test_more_shares_than_images_is_no_error(checkpoint, tmp_path):
    for share in range(3):
        result = evaluate(checkpoint, tmp_path, ["shapes/xray"], num_images=2, shard=(share, 3))
    assert result["shapes/xray"]["images"] == 2


def test_an_interrupted_evaluation_resumes_to_the_same_file(checkpoint, once, tmp_path, monkeypatch):
    evaluated = []
    original = run.evaluate_source

    def interrupted(predictors, source, **options):
        if len(evaluated) == 2:
            raise KeyboardInterrupt
        evaluated.append(options["name"])
        return original(predictors, source, **options)

    monkeypatch.setattr(run, "evaluate_source", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(checkpoint, tmp_path)
    assert not (tmp_path / "results.json").exists()
    monkeypatch.setattr(run, "evaluate_source", lambda *a, **o: (evaluated.append(o["name"]), original(*a, **o))[1])
    evaluate(checkpoint, tmp_path)
    assert evaluated == ["shapes/source", "disk", "shapes/xray"]
    assert (tmp_path / "results.json").read_text() == once


def test_datasets_can_be_added_later(checkpoint, once, tmp_path, monkeypatch):
    evaluate(checkpoint, tmp_path, NAMES[1:])
    evaluate(checkpoint, tmp_path)
    assert (tmp_path / "results.json").read_text() == once


@pytest.mark.parametrize(
    "other",
    [
        {"num_images": 4},
        {"image_size": 96},
        {"protocol": Protocol("interactive3")},
        {"uncertainty": UncertaintySettings(variance="full")},
        {"shard": (0, 2)},
    ],
)
def test_another_evaluation_is_never_mixed_in(checkpoint, tmp_path, other):
    evaluate(checkpoint, tmp_path, ["shapes/xray"], num_images=2)
    before = (tmp_path / "results.json").read_text()
    with pytest.raises(UserError, match=r"holds another evaluation .* choose another --output, or --overwrite it"):
        evaluate(checkpoint, tmp_path, ["shapes/xray"], **{"num_images": 2} | other)
    assert (tmp_path / "results.json").read_text() == before


def test_replacing_computes_anew(checkpoint, tmp_path):
    evaluate(checkpoint, tmp_path, ["shapes/xray"], num_images=2)
    result = evaluate(checkpoint, tmp_path, ["shapes/xray"], num_images=3, replace=True)
    assert result["shapes/xray"]["images"] == 3


def test_replacing_clears_what_cannot_be_read(checkpoint, tmp_path):
    broken = tmp_path / "states/shapes_xray/0-of-1.npz"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"of another version")
    with pytest.raises(UserError, match="holds another evaluation"):
        evaluate(checkpoint, tmp_path, ["shapes/xray"], num_images=2)
    assert evaluate(checkpoint, tmp_path, ["shapes/xray"], num_images=2, replace=True)["shapes/xray"]["images"] == 2


def test_monte_carlo_follows_from_its_seed(checkpoint, tmp_path):
    def figures(name, seed, devices=1):
        uncertainty = UncertaintySettings("monte_carlo", samples=3, seed=seed)
        output = tmp_path / name
        return evaluate(checkpoint, output, ["shapes/xray"], devices, num_images=3, uncertainty=uncertainty)

    first, again, other = figures("a", 0), figures("b", 0, devices=2), figures("c", 1)
    assert first == again
    assert first["shapes/xray"]["ece"] != other["shapes/xray"]["ece"]
    assert first["shapes/xray"]["j_and_f"] == other["shapes/xray"]["j_and_f"]


def test_interactive_prompts_run_on_a_network(checkpoint, once, tmp_path):
    result = evaluate(checkpoint, tmp_path, ["shapes/xray"], protocol=Protocol("interactive3"))
    fixed = json.loads(once)["datasets"]["shapes/xray"]
    assert result["shapes/xray"]["objects"] == fixed["objects"]
    assert result["shapes/xray"]["j"] != fixed["j"]


def write_labels(root, count):
    for number in range(count):
        labels = np.zeros((40, 52), np.uint8)
        labels[8:30, 5 : 20 + number], labels[2:20, 35:50] = 1, 2
        for kind, pixels in (("images", np.stack([labels * 90] * 3, axis=2)), ("labels", labels)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / f"{number}.png")


def test_prepared_data_is_evaluated_evenly_spaced(checkpoint, tmp_path):
    write_labels(tmp_path, 7)
    dataset = custom_dataset("mine", tmp_path / "images", tmp_path / "labels")
    prepare(dataset, tmp_path / "images", tmp_path / "data", split="all")
    settings = EvaluationSettings(num_images=3, data_dir=str(tmp_path / "data"))
    assert open_subject("mine", settings, SIZE).indices == [0, 3, 6]
    result = evaluate(checkpoint, tmp_path / "out", ["mine"], num_images=3, data_dir=str(tmp_path / "data"))
    assert (result["mine"]["images"], result["mine"]["objects"]) == (3, 6)
    assert json.loads((tmp_path / "out/results.json").read_text())["groups"] == {"mine": "custom"}


def test_a_named_source_is_the_only_one():
    names = ["shapes/source", "shapes/xray", "mine"]
    assert groups_of(names) == {"shapes/source": "source", "shapes/xray": "both", "mine": "custom"}
    assert groups_of(names, "shapes/source") == groups_of(names)
    assert groups_of(names, "mine") == {"shapes/source": "custom", "shapes/xray": "both", "mine": "source"}


@pytest.mark.slow
def test_the_source_can_be_ones_own_data(checkpoint, tmp_path):
    write_labels(tmp_path, 3)
    for number in range(3):  # so large that an untrained network is right more often than not, as the scale needs it
        labels = np.ones((40, 52), np.uint8)
        labels[10:16, 10:16] = 0
        Image.fromarray(labels).save(tmp_path / f"labels/{number}.png")
    dataset = custom_dataset("mine", tmp_path / "images", tmp_path / "labels")
    prepare(dataset, tmp_path / "images", tmp_path / "data", split="all")
    data_dir = str(tmp_path / "data")
    result = evaluate(checkpoint, tmp_path / "out", ["shapes/xray", "mine:all"], data_dir=data_dir, source="mine:all")
    scales = {row["logit_scale"] for row in result.values()}
    assert scales == {result["mine:all"]["logit_scale"]} != {None}
    assert 0 < result["mine:all"]["trivial_j"] < 1
    assert "trivial_j" not in result["shapes/xray"]
    content = json.loads((tmp_path / "out/results.json").read_text())
    assert content["groups"] == {"shapes/xray": "both", "mine:all": "source"}
    bare = evaluate(checkpoint, tmp_path / "bare", ["shapes/xray", "mine:all"], data_dir=data_dir)
    assert {row["logit_scale"] for row in bare.values()} == {None}
    with pytest.raises(UserError, match="the source 'mine' is none of the datasets: shapes/xray, mine:all"):
        evaluate(checkpoint, tmp_path / "none", ["shapes/xray", "mine:all"], data_dir=data_dir, source="mine")
    assert not (tmp_path / "none").exists()


def test_of_videos_the_first_frames_are_judged(tmp_path):
    write_mose(tmp_path / "source" / "valid")
    prepare(mose.DATASET, tmp_path / "source", tmp_path / "data", split="valid")
    data_dir = str(tmp_path / "data")
    first = open_subject("mose", EvaluationSettings(data_dir=data_dir), SIZE)
    assert [first.source[i]["image_id"] for i in first.indices] == ["aa11/00000", "bb22/00000"]
    assert len(open_subject("mose:valid", EvaluationSettings(data_dir=data_dir, frames="all"), SIZE).indices) == 4


def test_an_empty_dataset_has_no_figures(checkpoint, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "images/a.png")
    Image.new("L", (30, 20)).save(tmp_path / "labels/a.png")
    dataset = custom_dataset("bare", tmp_path / "images", tmp_path / "labels")
    prepare(dataset, tmp_path / "images", tmp_path / "data", split="all")
    result = evaluate(checkpoint, tmp_path / "out", ["bare"], data_dir=str(tmp_path / "data"))
    assert (result["bare"]["images"], result["bare"]["objects"]) == (0, 0)
    assert result["bare"]["j_and_f"] is result["bare"]["pavpu"] is result["bare"]["aurc"] is None
    assert "| bare" in (tmp_path / "out/table.md").read_text()


def test_names_are_expanded_and_never_counted_twice():
    assert len(expand_names(["shapes/all"])) == 19
    with pytest.raises(UserError, match="named twice: shapes/xray"):
        expand_names(["shapes/xray", "shapes/all"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trashcn", "no dataset 'trashcn', did you mean 'trashcan'"),
        ("trashcan", r"no dataset trashcan, split train: expected .* Prepare it with\n"),
        ("shapes/xra", "shapes/xra|'xra'"),
    ],
)
def test_unknown_or_missing_datasets_say_what_to_do(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        open_subject(name, EvaluationSettings(data_dir=str(tmp_path)), SIZE)
