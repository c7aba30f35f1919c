"""Evaluates a saved model on named datasets and writes the report; finished parts are kept and never done twice.

Each dataset (or each process's share of it) ends in a state on disk. The report is made of the states alone, by
whichever process finds all of them complete, so that the figures are the same for any number of devices, processes
and interruptions.
"""

import dataclasses
import functools
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from ruac_jax.data.catalog import DATASETS
from ruac_jax.data.custom import SPLIT as CUSTOM_SPLIT
from ruac_jax.data.prepared import PreparedSource
from ruac_jax.data.record import ClipSource, Source
from ruac_jax.data.shapes import SOURCE, TARGETS
from ruac_jax.data.sources import GENERATED, load_source
from ruac_jax.errors import UserError
from ruac_jax.evaluation.adaptation import AdaptedPredictor
from ruac_jax.evaluation.figures import draw_domain_bars, draw_examples, draw_reliability, draw_risk_coverage
from ruac_jax.evaluation.metrics.temperature import TemperatureState
from ruac_jax.evaluation.prediction import Predictor
from ruac_jax.evaluation.predictor import ModelPredictor, UncertaintySettings
from ruac_jax.evaluation.protocol import Protocol, evaluate_source
from ruac_jax.evaluation.report import SOURCE_GROUP, format_table, write_results
from ruac_jax.evaluation.state import DatasetState
from ruac_jax.evaluation.store import Identity, load_identity, load_state, save_state
from ruac_jax.evaluation.trivial import DiskPredictor, mean_area_share
from ruac_jax.folders import locked
from ruac_jax.model import SAM2
from ruac_jax.sam2.variants import variant
from ruac_jax.weights import load_model

GENERATED_IMAGES, PREPARED_IMAGES = 40, 1000  # by default; the reference code's cap is 1000 too
_MODEL, _DISK = "model", "disk"


class Versions(NamedTuple):
    """What the figures were made with."""

    ruac_jax: str
    jax: str
    flax: str
    python: str


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated, and how; what it says of figures is part of a result's identity.

    Attributes:
      image_size: side of the network's square image, px; None: the variant's own.
      num_images: of each dataset, evenly spaced over it (generated ones: from the start); None: 1000 (generated: 40).
      frames: of videos, the first frame or all.
      protocol: prompts and objects.
      uncertainty: how it is computed.
      data_dir: where prepared datasets lie.
      source: the dataset, as it is named, that the network was trained on, if not the generated one: it is kept out of
        the averages, and the logit scale is fitted on it.
      pictures: example images drawn of each dataset.
      shard: (i, n): do the i-th of n shares, counted from 0.
      adaptation: "uctta" adapts the network to each image while it is evaluated (`AdaptedPredictor`), on one device in
        one share; every dataset starts from the saved weights.
      replace: compute anew what another evaluation left in the output folder, instead of refusing.
    """

    image_size: int | None = None
    num_images: int | None = None
    frames: Literal["first", "all"] = "first"
    protocol: Protocol = dataclasses.field(default_factory=Protocol)
    uncertainty: UncertaintySettings = dataclasses.field(default_factory=UncertaintySettings)
    data_dir: str = "datasets"
    source: str = ""
    pictures: int = 3
    shard: tuple[int, int] = (0, 1)
    adaptation: Literal["none", "uctta"] = "none"
    replace: bool = False


_DEFAULTS = EvaluationSettings()


class Subject(NamedTuple):
    """A dataset under evaluation."""

    name: str
    split: str
    source: Source
    indices: list[int]  # of the records that are judged


class _Task(NamedTuple):
    """A dataset judged by a method, and where the states of its shares lie."""

    subject: Subject
    method: str
    identity: Identity
    files: list[Path]


def evaluate_model(
    checkpoint: Path,
    names: Sequence[str],
    output: Path,
    *,
    config: dict[str, Any],
    settings: EvaluationSettings = _DEFAULTS,
    devices: Sequence[jax.Device] | None = None,
) -> dict[str, dict[str, Any]] | None:
    """Evaluates a saved model and writes the report.

    Args:
      checkpoint: folder of the model.
      names: datasets, `NAME` or `NAME:SPLIT`, see `ruac_jax.data.sources`.
      output: folder for `results.json`, tables, figures, and the states that a later call resumes from.
      config: settings of the run, kept with the results.
      settings: see there.
      devices: where to run; None: all of this process.

    Returns:
      The figures of each dataset; None where other shares are not done yet.

    Raises:
      UserError: no model there, no such dataset, `output` holds another evaluation, or test-time adaptation on several
        devices, in several shares or of another head than SAM2's.
    """
    devices = list(devices or jax.local_devices())
    if settings.adaptation != "none" and (len(devices) > 1 or settings.shard[1] > 1):
        raise UserError(
            f"test-time adaptation goes from image to image: it needs one device and one share, there are "
            f"{len(devices)} devices and {settings.shard[1]} shares; say --devices 1 and leave --shard out"
        )
    model, metadata = load_model(checkpoint)
    size = settings.image_size or variant(metadata.variant).image_size
    names = expand_names(names)
    if settings.source and settings.source not in names:
        raise UserError(f"the source {settings.source!r} is none of the datasets: {', '.join(names)}")
    subjects = [open_subject(name, settings, size) for name in names]
    tasks = [
        _task(subject, method, metadata.fingerprint, size, output, settings)
        for subject in subjects
        for method in ([_MODEL, _DISK] if subject.name == (settings.source or GENERATED + SOURCE) else [_MODEL])
    ]
    open_tasks = _unfinished(tasks, settings)
    most = max((len(task.subject.indices) for task in open_tasks), default=0)
    predictors = [_predictor(model, size, settings, device) for device in devices[: max(most, 1)]]
    for task in open_tasks:
        save_state(task.files[settings.shard[0]], _evaluate(task, predictors, size, output, settings), task.identity)
    missing = sum(not file.is_file() for task in tasks for file in task.files)
    if missing:
        print(
            f"share {settings.shard[0]} of {settings.shard[1]} is done; the report waits for {missing} parts of others"
        )
        return None
    with locked(output / "states" / ".lock"):  # two processes that finish together write one after the other
        return _report(tasks, output, config, settings, {"path": str(checkpoint), "fingerprint": metadata.fingerprint})


def expand_names(names: Sequence[str]) -> list[str]:
    """Replaces `shapes/all` by the source and every target domain.

    Raises:
      UserError: a name twice.
    """
    everything = [GENERATED + domain for domain in (SOURCE, *TARGETS)]
    expanded = [name for given in names for name in (everything if given == f"{GENERATED}all" else [given])]
    if twice := sorted({name for name in expanded if expanded.count(name) > 1}):
        raise UserError(f"named twice: {', '.join(twice)}")
    return expanded


def dataset_and_split(name: str) -> tuple[str, str]:
    """What `NAME` or `NAME:SPLIT` stands for: the split is the one to evaluate on if none is named."""
    base, _, split = name.partition(":")
    if base.startswith(GENERATED):
        return base, split or "validation"
    return base, split or (DATASETS[base].evaluation_split if base in DATASETS else CUSTOM_SPLIT)


def open_subject(name: str, settings: EvaluationSettings, size: int) -> Subject:
    """Opens `NAME` or `NAME:SPLIT` and chooses its images; generated images are `size` px.

    Raises:
      UserError: no such dataset, or it is not prepared.
    """
    base, split = dataset_and_split(name)
    most = settings.num_images or (GENERATED_IMAGES if base.startswith(GENERATED) else PREPARED_IMAGES)
    source = load_source(base, split, data_dir=settings.data_dir, size=size, num_images=most)
    indices = list(range(len(source)))
    if isinstance(source, ClipSource) and settings.frames == "first":
        indices = [clip[0] for clip in source.clips]
    if len(indices) > most:
        indices = [indices[place] for place in np.linspace(0, len(indices) - 1, most).round().astype(int).tolist()]
    return Subject(name, split, source, indices)


def _predictor(model: SAM2, size: int, settings: EvaluationSettings, device: jax.Device) -> Predictor:
    if settings.adaptation == "uctta":
        return AdaptedPredictor(model, size, device=device)
    return ModelPredictor(model, size, uncertainty=settings.uncertainty, device=device)


def _task(
    subject: Subject, method: str, fingerprint: str, size: int, output: Path, settings: EvaluationSettings
) -> _Task:
    identity = {
        "method": method,
        "checkpoint": fingerprint,
        "dataset": subject.name,
        "split": subject.split,
        "files": subject.source.fingerprint if isinstance(subject.source, PreparedSource) else "generated",
        "images": subject.indices,
        "image_size": size,
        "protocol": dataclasses.asdict(settings.protocol),
        "uncertainty": dataclasses.asdict(settings.uncertainty),
        "adaptation": settings.adaptation,
        "ruac_jax": version("ruac_jax"),
    }
    name = _file_name(subject.name if method == _MODEL else f"{subject.name}-{method}")
    files = [output / "states" / name / f"{i}-of-{settings.shard[1]}.npz" for i in range(settings.shard[1])]
    return _Task(subject, method, identity, files)


def _unfinished(tasks: Sequence[_Task], settings: EvaluationSettings) -> list[_Task]:
    """The tasks whose share this process has to do; refuses, or clears away, what another evaluation left."""
    foreign = []
    for task in tasks:
        for file in task.files[0].parent.glob("*.npz"):
            if file not in task.files or load_identity(file) != task.identity:
                foreign.append(file)
    if foreign and not settings.replace:
        raise UserError(
            f"{foreign[0].parent.parent.parent} holds another evaluation (other checkpoint, images, settings, shares "
            f"or version), e.g. {foreign[0]}; choose another --output, or --overwrite it"
        )
    for file in foreign:
        file.unlink(missing_ok=True)
    return [task for task in tasks if not task.files[settings.shard[0]].is_file()]


def _evaluate(
    task: _Task, predictors: Sequence[Predictor], size: int, output: Path, settings: EvaluationSettings
) -> DatasetState:
    subject, (share, shares) = task.subject, settings.shard
    for predictor in predictors:
        if isinstance(predictor, AdaptedPredictor):
            predictor.reset()
    if task.method == _DISK:
        predictors = [DiskPredictor(mean_area_share(subject.source), size)]
    places = np.linspace(0, len(subject.indices) - 1, min(settings.pictures, len(subject.indices))).round().astype(int)
    drawn = {subject.indices[place] for place in places.tolist()} if task.method == _MODEL else set()
    folder = output / "examples" / _file_name(subject.name)
    return evaluate_source(
        predictors,
        subject.source,
        indices=subject.indices[share::shares],
        protocol=settings.protocol,
        name=subject.name if task.method == _MODEL else task.method,
        drawn=frozenset(drawn),
        draw=lambda example: draw_examples([example], folder / f"{_file_name(example.image_id)}.png"),
        in_turn=settings.adaptation != "none",
    )


def _report(
    tasks: Sequence[_Task],
    output: Path,
    config: dict[str, Any],
    settings: EvaluationSettings,
    checkpoint: dict[str, str],
) -> dict[str, Any]:
    results: dict[str, dict[str, Any]] = {}
    curves, prompts, strata = {}, {}, {}
    states = [_merged(task) for task in tasks]
    groups = groups_of([task.subject.name for task in tasks], settings.source)
    scale = _source_scale(tasks, states, groups)
    for task, state in zip(tasks, states, strict=True):
        name, metrics = task.subject.name, state.compute(scale)
        if task.method == _DISK:  # what a predictor reaches that sees only the clicks
            results[name] |= {f"trivial_{metric}": metrics[metric] for metric in ("j", "f", "j_and_f")}
        else:
            results[name], curves[name], strata[name] = metrics, state.curves(), state.strata.compute()
            prompts[name] = f"{settings.protocol.prompts}-{state.prompts_fingerprint()}"
    versions = Versions(version("ruac_jax"), version("jax"), version("flax"), sys.version.split()[0])
    write_results(
        output,
        results,
        config=config,
        versions=versions._asdict(),
        checkpoint=checkpoint,
        groups=groups,
        prompts=prompts,
        strata=strata,
        curves=curves,
    )
    draw_domain_bars(results, output / "domains.png", groups=groups)
    draw_risk_coverage({name: curve["risk_coverage"] for name, curve in curves.items()}, output / "risk_coverage.png")
    draw_reliability({name: curve["reliability"] for name, curve in curves.items()}, output / "reliability.png")
    return results


def tabulate(results: dict[str, dict[str, Any]], source: str = "") -> str:
    """The table of what `evaluate_model` returned for settings with that source."""
    return format_table(results, groups=groups_of(list(results), source))


def _merged(task: _Task) -> DatasetState:
    return functools.reduce(DatasetState.merge, (load_state(file, DatasetState())[0] for file in task.files))


def _source_scale(tasks: Sequence[_Task], states: Sequence[DatasetState], groups: Mapping[str, str]) -> float | None:
    """The network's logit scale, fitted on its source domain; None where that is not among the datasets."""
    source = [
        state.temperature
        for task, state in zip(tasks, states, strict=True)
        if task.method == _MODEL and groups[task.subject.name] == SOURCE_GROUP
    ]
    return functools.reduce(TemperatureState.merge, source).fit_scale() if source else None


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def groups_of(names: Sequence[str], source: str = "") -> dict[str, str]:
    """Groups of datasets: with a source that is named, it alone is in the group "source", another one is "custom"."""
    groups = {name: group_of(name) for name in names}
    if source:
        groups = {name: "custom" if group == SOURCE_GROUP else group for name, group in groups.items()}
        groups[source] = SOURCE_GROUP
    return groups


def group_of(name: str) -> str:
    """Group of a dataset: the paper's, "source", the kind of shift of a generated domain, or "custom"."""
    base = name.partition(":")[0]
    if not base.startswith(GENERATED):
        return DATASETS[base].group if base in DATASETS else "custom"
    domain = base.removeprefix(GENERATED)
    return SOURCE_GROUP if domain == SOURCE else TARGETS[domain]
