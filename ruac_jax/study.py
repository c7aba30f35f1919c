"""Studies of a checkpoint: `python -m ruac_jax.study sampling`, `... alignment`, `... parameters` (docs/studies.md).

For example `python -m ruac_jax.study sampling --checkpoint runs/quickstart/model --datasets shapes/all --output out`.
Each writes `NAME.json`, `NAME.md` and `NAME.png`, and prints its tables.

`python -m ruac_jax.study shift --seeds 3 --output out/shift` is the shift benchmark: it trains every system on the
embedded source domain and compares them on all domains (docs/systems.md). Started again, it goes on where it stopped.
"""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from configs.systems import BENCHMARK, trained_on
from ruac_jax.attacks.combined import RUACAttack
from ruac_jax.config import Config, parse_config
from ruac_jax.errors import UserError, run_main
from ruac_jax.evaluation.run import EvaluationSettings, Subject, expand_names, open_subject
from ruac_jax.evaluation.studies.alignment import study_alignment
from ruac_jax.evaluation.studies.output import Finding, write_finding
from ruac_jax.evaluation.studies.parameters import study_parameters
from ruac_jax.evaluation.studies.perturbations import load_attack, load_config, parts_of, untrained_attack
from ruac_jax.evaluation.studies.sampling import study_sampling
from ruac_jax.hub import find_checkpoint
from ruac_jax.sam2.variants import variant
from ruac_jax.shift.runs import Entry
from ruac_jax.shift.study import GENERATED_DOMAINS, named_domains, run_study, write_report
from ruac_jax.weights import ModelMetadata, abstract_model, load_metadata, load_model

_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "Folder, file or name of a model (docs/checkpoints.md).")
_DATASETS = flags.DEFINE_list("datasets", [], "Names as `evaluate` takes them; for alignment the source domain first.")
_DATA_DIR = flags.DEFINE_string("data_dir", "datasets", "Where prepared datasets lie.")
_OUTPUT = flags.DEFINE_string("output", "", "Folder for the results.")
_IMAGES = flags.DEFINE_integer("num_images", 40, "Images of each dataset, evenly spaced.", lower_bound=1)
_DRAWS = flags.DEFINE_integer("draws", 2000, "sampling: draws that the closed forms are compared with.", lower_bound=2)
_RUN = flags.DEFINE_string(
    "run",
    "",
    "Folder of a training run. alignment: its learned attack is measured beside an untrained one; parameters: its "
    "settings say what is trained. Default: no learned attack, the paper's settings.",
)


_SEEDS = flags.DEFINE_integer("seeds", 3, "shift: seeds 0, 1, ... of every system.", lower_bound=1)
_SYSTEMS = flags.DEFINE_list("systems", [], "shift: which (default: all).")
_REFERENCE = flags.DEFINE_string("reference", "bayes", "shift: what all are compared with.")
_TRAIN_ON = flags.DEFINE_string(
    "train_on", "", "shift: prepared dataset NAME or NAME:SPLIT to train on, judged on --datasets, the source first."
)
_HELD_OUT = flags.DEFINE_bool("held_out", False, "shift: report the held-out domains too, when every choice is made.")


def main(argv: Sequence[str]) -> None:
    """Runs one study."""
    if len(argv) != 2 or argv[1] not in (*_STUDIES, _SHIFT):
        raise UserError(f"which study? One of: {', '.join((*_STUDIES, _SHIFT))}")
    name = argv[1]
    if name == _SHIFT:
        print(_shift())
        return
    for flag in (_CHECKPOINT, _OUTPUT, *([_DATASETS] if name != "parameters" else [])):
        if not flag.value:
            raise UserError(f"--{flag.name} is missing; see --help")
    if _DRAWS.value % 2:
        raise UserError(f"--draws {_DRAWS.value}: expected an even number, since its two halves are compared")
    checkpoint = find_checkpoint(_CHECKPOINT.value)
    metadata = load_metadata(checkpoint)
    finding = _STUDIES[name](checkpoint, metadata)
    write_finding(Path(_OUTPUT.value), name, finding, _settings(name, metadata))
    print(finding.tables)


def _sampling(checkpoint: Path, metadata: ModelMetadata) -> Finding:
    subjects = _subjects(metadata)
    model, _ = load_model(checkpoint)
    return study_sampling(model, _image_size(metadata), subjects, _DRAWS.value)


def _alignment(checkpoint: Path, metadata: ModelMetadata) -> Finding:
    attacks, subjects = _attacks(metadata), _subjects(metadata)
    model, _ = load_model(checkpoint)
    return study_alignment(model, _image_size(metadata), subjects, attacks)


def _parameters(checkpoint: Path, metadata: ModelMetadata) -> Finding:
    del checkpoint  # shapes are enough
    model = abstract_model(metadata.variant, metadata.head, metadata.head_settings)
    return study_parameters(model, metadata, _config(metadata))


_STUDIES: dict[str, Callable[[Path, ModelMetadata], Finding]] = {
    "sampling": _sampling,
    "alignment": _alignment,
    "parameters": _parameters,
}


_SHIFT = "shift"


def _shift() -> str:
    if not _OUTPUT.value:
        raise UserError("--output is missing; see --help")
    systems = _SYSTEMS.value or list(BENCHMARK)
    for system in (*systems, _REFERENCE.value):
        if system not in BENCHMARK:
            near = difflib.get_close_matches(system, BENCHMARK, n=1, cutoff=0.0)[0]
            raise UserError(f"no system {system!r}; did you mean {near!r}? There are {', '.join(BENCHMARK)}")
    order = [system for system in BENCHMARK if system in {*systems, _REFERENCE.value}]
    if bool(_TRAIN_ON.value) != bool(_DATASETS.value):
        raise UserError("--train_on and --datasets (the source's unseen split first) go together: give both or neither")
    domains = named_domains(_DATASETS.value) if _DATASETS.value else GENERATED_DOMAINS
    entries = [
        Entry(system, parse_config(_benchmark_config(system, seed)), "uctta" if system == "uctta" else "none")
        for seed in range(_SEEDS.value)
        for system in order
    ]
    _check_datasets(entries, domains.names)
    output = Path(_OUTPUT.value)
    outcomes = run_study(entries, domains, output, _IMAGES.value, _DATA_DIR.value)
    given = [
        f"--{flag.name} {','.join(flag.value) if isinstance(flag.value, list) else flag.value}"
        for flag in (_SEEDS, _SYSTEMS, _TRAIN_ON, _DATASETS, _IMAGES, _OUTPUT)
        if flag.value != flag.default
    ]
    command = " ".join(["python -m ruac_jax.study shift", *given, *(["--held_out"] if _HELD_OUT.value else [])])
    return write_report(
        {system: outcomes[system] for system in order},
        domains,
        _REFERENCE.value,
        output,
        held_out=_HELD_OUT.value,
        command=command,
    )


def _check_datasets(entries: Sequence[Entry], names: Sequence[str]) -> None:
    """A dataset that is not there is better missed now than after an hour."""
    config = entries[0].config
    settings = EvaluationSettings(num_images=_IMAGES.value, data_dir=_DATA_DIR.value)
    for name in (f"{config.data.dataset}:{config.data.split}", *names):
        open_subject(name, settings, config.image_size)


def _benchmark_config(system: str, seed: int) -> ConfigDict:
    """What a row trains, and everything that it starts from, on the dataset of --train_on."""
    config = BENCHMARK[system](seed)
    if not _TRAIN_ON.value:
        return config
    name, _, split = _TRAIN_ON.value.partition(":")
    return trained_on(config, name, split or "train", _DATA_DIR.value)


def _attacks(metadata: ModelMetadata) -> dict[str, RUACAttack]:
    settings = _config(metadata).attack
    every = {"untrained": untrained_attack(settings, variant(metadata.variant).d_model)}
    if _RUN.value:
        every["learned"] = load_attack(Path(_RUN.value))
    return {f"{kind} {part}": half for kind, attack in every.items() for part, half in parts_of(attack).items()}


def _config(metadata: ModelMetadata) -> Config:
    """Settings of the run that was named, else the paper's."""
    if not _RUN.value:
        return Config()
    config = load_config(Path(_RUN.value))
    if config.model.variant != metadata.variant:
        raise UserError(
            f"--run {_RUN.value} trained the variant {config.model.variant!r}, --checkpoint {_CHECKPOINT.value} is a "
            f"{metadata.variant!r}: name the run that the checkpoint came from"
        )
    return config


def _subjects(metadata: ModelMetadata) -> list[Subject]:
    settings = EvaluationSettings(num_images=_IMAGES.value, data_dir=_DATA_DIR.value)
    return [open_subject(name, settings, _image_size(metadata)) for name in expand_names(_DATASETS.value)]


def _image_size(metadata: ModelMetadata) -> int:
    return variant(metadata.variant).image_size


def _settings(name: str, metadata: ModelMetadata) -> dict[str, Any]:
    """What the figures depend on."""
    settings: dict[str, Any] = {"checkpoint": {"path": _CHECKPOINT.value, "fingerprint": metadata.fingerprint}}
    if name != "parameters":
        settings |= {"datasets": expand_names(_DATASETS.value), "num_images": _IMAGES.value}
    return settings | ({"draws": _DRAWS.value} if name == "sampling" else {"run": _RUN.value or None})


if __name__ == "__main__":
    run_main(main, positional=1)
