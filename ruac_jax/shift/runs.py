"""One system with one seed: trained on the source domain alone, evaluated on every domain, remembered in one file.

The file says what it was made of (settings and version); a study that finds it there does not run it again, so that a
study resumes, grows by systems and seeds, and can be shared without its networks. Parts of a run that others start from
(the base, a warmed-up head) are trained once and kept.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ruac_jax.config import Config
from ruac_jax.evaluation.predictor import UncertaintySettings
from ruac_jax.evaluation.run import EvaluationSettings, evaluate_model
from ruac_jax.folders import locked
from ruac_jax.shift.report import METRICS
from ruac_jax.shift.stand_in import with_stand_ins
from ruac_jax.shift.strength import attack_losses
from ruac_jax.training.loop import train

# What training says of itself at its last step, by the name that the report gives it.
_TRAINING = {
    "kappa_at_lower": "head/kappa_at_lower",
    "kappa_at_upper": "head/kappa_at_upper",
    "style_saturated": "attack/style_saturated",
    "style_shift": "attack/style_shift",
    "flow_px": "attack/flow_px",
}


class Entry(NamedTuple):
    """A system with a seed.

    Attributes:
      system: name in the tables.
      config: what is trained; its `pretrain` is what it starts from.
      adaptation: test-time adaptation of the finished network, see `EvaluationSettings`.
    """

    system: str
    config: Config
    adaptation: str = "none"


class Outcome(NamedTuple):
    """What a run left: figures of every domain, of its training, and how long it took (s), shared parts apart."""

    domains: dict[str, dict[str, float | None]]
    training: dict[str, float]
    seconds: float


def identity(entry: Entry, names: Sequence[str], num_images: int) -> dict[str, Any]:
    """What an outcome depends on, as JSON values."""
    config = json.loads(json.dumps(dataclasses.asdict(entry.config)))
    return {
        "config": config,
        "adaptation": entry.adaptation,
        "domains": list(names),
        "num_images": num_images,
        "ruac_jax": version("ruac_jax"),
    }


def load_outcome(file: Path, expected: Mapping[str, Any]) -> Outcome | None:
    """The outcome in a file; None where there is none, or one of other settings."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Outcome(**content["outcome"]) if content["identity"] == expected else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_entry(entry: Entry, names: Sequence[str], num_images: int, data_dir: str, folder: Path, file: Path) -> Outcome:
    """Trains and evaluates, or finds it done.

    Args:
      entry: system and seed.
      names: domains, as `evaluate` takes them; the first has unseen images of the source.
      num_images: of each.
      data_dir: where prepared datasets lie.
      folder: where networks are kept.
      file: where the outcome is remembered.
    """
    expected = identity(entry, names, num_images)
    if (found := load_outcome(file, expected)) is not None:
        return found
    config = with_stand_ins(entry.config, folder)
    start = _start(config, folder)
    clock = time.perf_counter()
    model = _train(config, start, folder)
    run = model.parent
    results = evaluate_model(
        model,
        names,
        run / f"evaluation-{entry.adaptation}",
        config=dataclasses.asdict(config),
        settings=EvaluationSettings(
            image_size=config.image_size or None,
            num_images=num_images,
            uncertainty=UncertaintySettings(variance=config.loss.variance),
            data_dir=data_dir,
            source=names[0],
            adaptation=entry.adaptation,
            pictures=0,
            replace=True,
        ),
        devices=jax.local_devices()[:1] if entry.adaptation != "none" else None,
    )
    assert results is not None  # there is one share
    domains = {name: {metric: row.get(metric) for metric in METRICS} for name, row in results.items()}
    outcome = Outcome(domains, _training_figures(run, config, names[0]), time.perf_counter() - clock)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"identity": expected, "outcome": outcome._asdict()}, indent=1) + "\n")
    unfinished.replace(file)
    jax.clear_caches()  # nothing of it serves the next run, and dozens of compiled steps fill the memory
    return outcome


def _start(config: Config, folder: Path) -> Path | None:
    """The network that a run starts from, trained on first use."""
    before = config.pretrain
    if before is None:
        return Path(config.model.checkpoint) if config.model.checkpoint else None
    return _train(before, _start(before, folder), folder)


def _train(config: Config, start: Path | None, folder: Path) -> Path:
    """The trained network, in a folder named after all it depends on; another process may be at it already."""
    text = json.dumps(dataclasses.asdict(config), sort_keys=True)
    run = folder / f"{config.model.head}-seed{config.seed}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
    with locked(folder / f".{run.name}.lock"):
        if (run / "model").is_dir():
            return run / "model"
        model = dataclasses.replace(config.model, checkpoint="" if start is None else str(start))
        return train(dataclasses.replace(config, pretrain=None, model=model), run)


def _training_figures(run: Path, config: Config, unseen: str) -> dict[str, float]:
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    figures = {name: last[key] for name, key in _TRAINING.items() if key in last}
    learned = config.schedule.adversarial_epochs and config.attack.kind == "learned" and config.optimizer.attack
    return figures | (attack_losses(run, config, unseen) if learned else {})
