"""A study of two tiny runs: shared parts trained once, outcomes remembered, and the report made of them."""

import concurrent.futures
import contextlib
import dataclasses
import json

import jax
import pytest

from configs.systems import nano
from ruac_jax.config import Config, parse_config
from ruac_jax.evaluation.run import evaluate_model
from ruac_jax.folders import locked
from ruac_jax.shift import runs
from ruac_jax.shift import study as study_module
from ruac_jax.shift.report import METRICS
from ruac_jax.shift.runs import Entry, identity, load_outcome, run_entry
from ruac_jax.shift.study import GENERATED_DOMAINS, named_domains, run_study, write_report
from ruac_jax.training.loop import train

NAMES = ["shapes/source", "shapes/xray"]


def tiny(system: str) -> Config:
    """A nano system in three single steps."""

    def shorten(config: Config) -> Config:
        return dataclasses.replace(
            config,
            image_size=64,
            schedule=dataclasses.replace(config.schedule, steps_per_epoch=1),
            interaction=dataclasses.replace(config.interaction, corrections=0),
            data=dataclasses.replace(config.data, batch_size=8, images_per_device=1, num_images=8, max_objects=1),
            pretrain=None if config.pretrain is None else shorten(config.pretrain),
        )

    return shorten(parse_config(nano(system)))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Outcomes of two systems, and the folders that were trained and evaluated, in order."""
    folder = tmp_path_factory.mktemp("shift")
    calls = []

    def watched_train(config, run):
        calls.append(("train", run.name))
        return train(config, run)

    def watched_evaluation(model, *arguments, **settings):
        calls.append(("evaluate", model.parent.name))
        return evaluate_model(model, *arguments, **(settings | {"devices": jax.local_devices()[:1]}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "train", watched_train)
        patch.setattr(runs, "evaluate_model", watched_evaluation)
        entries = [Entry("bayes", tiny("bayes")), Entry("ours", tiny("ours"))]
        outcomes = {
            entry.system: {0: run_entry(entry, NAMES, 2, "datasets", folder / "runs", folder / f"{entry.system}.json")}
            for entry in entries
        }
        first = list(calls)
        again = run_entry(entries[1], NAMES, 2, "datasets", folder / "runs", folder / "ours.json")
    return folder, entries, outcomes, first, calls, again


@pytest.mark.slow
def test_shared_parts_are_trained_once_and_done_runs_are_remembered(study):
    _, _, outcomes, first, calls, again = study
    assert [kind for kind, _ in first] == ["train", "train", "train", "evaluate", "train", "evaluate"]
    assert len({name for kind, name in first if kind == "train"}) == 4
    assert calls == first
    assert again == outcomes["ours"][0]


@pytest.mark.slow
def test_outcomes_have_every_domain_and_what_training_says(study):
    _, _, outcomes, *_ = study
    ours, bayes = outcomes["ours"][0], outcomes["bayes"][0]
    assert list(ours.domains) == NAMES
    assert 0 <= ours.domains["shapes/xray"]["j_and_f"] <= 1
    assert {"loss_clean", "loss_learned", "loss_signs", "loss_uniform", "style_shift"} <= ours.training.keys()
    assert bayes.training.keys() == {"kappa_at_lower", "kappa_at_upper"}
    assert ours.training["loss_clean"] > 0


@pytest.mark.slow
def test_an_outcome_of_other_settings_does_not_count(study):
    folder, entries, *_ = study
    entry = entries[1]
    assert load_outcome(folder / "ours.json", identity(entry, NAMES, 2)) is not None
    assert load_outcome(folder / "ours.json", identity(entry, NAMES, 3)) is None
    other = entry._replace(config=dataclasses.replace(entry.config, seed=1))
    assert load_outcome(folder / "ours.json", identity(other, NAMES, 2)) is None
    assert load_outcome(folder / "nothing.json", identity(entry, NAMES, 2)) is None
    (folder / "broken.json").write_text("{")
    assert load_outcome(folder / "broken.json", identity(entry, NAMES, 2)) is None
    assert json.loads((folder / "ours.json").read_text())["identity"]["config"]["attack"]["random_start"] == 1.0


def test_a_network_that_another_process_trains_is_waited_for(tmp_path, monkeypatch):
    trained = []

    def fake_train(config, run):
        trained.append(run)
        with locked(run.with_name(f".{run.name}.lock"), wait=False) as held:
            assert not held
        (run / "model").mkdir(parents=True)
        return run / "model"

    monkeypatch.setattr(runs, "train", fake_train)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        networks = set(pool.map(lambda _: runs._train(tiny("bayes"), None, tmp_path), range(4)))
    assert len(trained) == 1
    assert networks == {trained[0] / "model"}


def test_processes_of_one_study_share_the_work(tmp_path, monkeypatch):
    entries = [Entry(system, tiny("bayes")) for system in ("first", "second")]
    elsewhere = contextlib.ExitStack()  # another process, at the first entry until we have done the second
    assert elsewhere.enter_context(locked(tmp_path / "runs/.first-seed0.lock"))
    order = []

    def fake_run(entry, names, num_images, data_dir, folder, file):
        order.append(file.name)
        elsewhere.close()
        return runs.Outcome({}, {}, float(len(order)))

    monkeypatch.setattr(study_module, "run_entry", fake_run)
    outcomes = run_study(entries, GENERATED_DOMAINS, tmp_path, 2, "datasets")
    assert order == ["second-seed0.json", "first-seed0.json"]
    assert [(system, seeds[0].seconds) for system, seeds in outcomes.items()] == [("first", 2.0), ("second", 1.0)]


def test_the_report_hides_held_out_domains_until_asked(tmp_path):
    rows = {name: dict.fromkeys(METRICS, 0.5) for name in GENERATED_DOMAINS.names}
    outcomes = {name: {0: runs.Outcome(rows, {"kappa_at_upper": 0.25}, 60.0)} for name in ("bayes", "ours")}
    hidden = write_report(outcomes, GENERATED_DOMAINS, "bayes", tmp_path / "a", held_out=False, command="shift")
    shown = write_report(outcomes, GENERATED_DOMAINS, "bayes", tmp_path / "b", held_out=True, command="shift")
    assert "shapes/gears" not in hidden
    assert "shapes/gears" in shown
    assert "25.0" in hidden
    figures = {f"{kind}-{part}.png" for kind in ("systems", "domains") for part in ("development", "held-out")}
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"report.md", *figures}
    assert not list((tmp_path / "a").glob("*held-out*"))


def test_the_reference_alone_is_reported_without_figures(tmp_path):
    """There are no differences to draw."""
    rows = {name: dict.fromkeys(METRICS, 0.5) for name in GENERATED_DOMAINS.names}
    outcomes = {"bayes": {0: runs.Outcome(rows, {}, 60.0)}}
    text = write_report(outcomes, GENERATED_DOMAINS, "bayes", tmp_path / "a", held_out=True, command="shift")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["report.md"]
    assert "![" not in text
    assert "shapes/gears" in text


def test_datasets_by_name_have_their_groups_as_kinds():
    domains = named_domains(["davis:val", "trashcan", "bbbc038"])
    assert domains.source == "davis:val"
    assert domains.names == ["davis:val", "trashcan", "bbbc038"]
    assert domains.kinds == {"trashcan": "objects", "bbbc038": "scientific"}
