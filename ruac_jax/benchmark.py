"""Speed beside PyTorch and memory: `python -m ruac_jax.benchmark encoder`, `... train-step`, `... memory`.

Speed: each implementation runs in a process of its own, in turn (A B A B ...), on the same shapes, inputs and threads;
the ratio PyTorch time / ours of the medians is the figure to quote, since machines differ and drift. Needs the
`parity` extra for the PyTorch side; without it only our side is timed.

Memory: the training step of every phase, with the settings of the paper's run, is compiled and its memory read off the
program; nothing is run.
"""

import dataclasses
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from ruac_jax.config import Config, DataConfig, InteractionConfig, ModelConfig
from ruac_jax.errors import UserError, run_main

_VARIANT = flags.DEFINE_string("variant", "base_plus", "Network size.")
_SIZES = flags.DEFINE_list("sizes", ["512", "1024"], "Image sizes.")
_BATCH = flags.DEFINE_integer("batch", 1, "Images at once.")
_OBJECTS = flags.DEFINE_integer("objects", 3, "Objects per image (train-step, memory).")
_CORRECTIONS = flags.DEFINE_integer("corrections", 7, "Correction clicks (train-step, memory).")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "How often each side is started.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed calls per start, after two that are not counted.")
_OUTPUT = flags.DEFINE_string("output", "", "Markdown file to append the table to.")

SIDES = ("jax", "torch")
MODULES = {"encoder": "encoder", "train-step": "train_step"}
MEMORY = "memory"


def main(argv: Sequence[str]) -> None:
    """Measures one task at every size and prints a table."""
    if len(argv) != 2 or argv[1] not in (*MODULES, MEMORY):
        raise UserError(f"what is to be measured? One of: {', '.join((*MODULES, MEMORY))}")
    text = _memory() if argv[1] == MEMORY else _speed(argv[1])
    print(text)
    if _OUTPUT.value:
        path = Path(_OUTPUT.value)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def _speed(task: str) -> str:
    sides = [side for side in SIDES if side != "torch" or importlib.util.find_spec("sam2") is not None]
    if "torch" not in sides:
        print("PyTorch sam2 is not installed (see docs/parity.md): timing our side alone", file=sys.stderr)
    rows = []
    bar = tqdm(total=len(_SIZES.value) * _ROUNDS.value * len(sides), unit="start", desc=task)
    for size in _SIZES.value:
        settings = {
            "variant": _VARIANT.value,
            "size": int(size),
            "batch": _BATCH.value,
            "objects": _OBJECTS.value,
            "corrections": _CORRECTIONS.value,
            "repeats": _REPEATS.value,
        }
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(_ROUNDS.value):
            for side in sides:
                found[side].append(_start(task, side, settings))
                bar.update()
        rows.append(_summary(settings, found))
    bar.close()
    return _table(task, rows)


def _memory() -> str:
    """Compiles every phase at every size: images, objects and corrections as the flags say, else the paper's run."""
    # The other tasks leave JAX to processes of their own.
    from ruac_jax.benchmarks.step_memory import step_memory
    from ruac_jax.training.objective import PHASES

    lines = [f"## {MEMORY}: {_VARIANT.value}, bfloat16, {_machine()}", "", f"`{_command(MEMORY)}`", ""]
    lines += ["| size | batch | phase | parameters, optimiser, batch, GiB | temporaries, GiB | together, GiB |"]
    lines += ["|---|---|---|---|---|---|"]
    config = dataclasses.replace(
        Config(),
        model=ModelConfig(_VARIANT.value),
        interaction=InteractionConfig(corrections=_CORRECTIONS.value),
        data=DataConfig(batch_size=_BATCH.value, images_per_device=_BATCH.value, max_objects=_OBJECTS.value),
    )
    for size, phase in tqdm([(int(size), phase) for size in _SIZES.value for phase in PHASES], unit="program"):
        found = step_memory(dataclasses.replace(config, image_size=size), phase)
        gib = " | ".join(f"{x / 2**30:.2f}" for x in (found.arguments + found.outputs, found.temporaries, found.total))
        lines.append(f"| {size} | {_BATCH.value} | {phase.name} | {gib} |")
    return "\n".join([*lines, ""])


def _start(task: str, side: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Runs one side in a process of its own: {"seconds": [...], "peak_mib": ..., "notes": {...}}."""
    command = [sys.executable, "-m", f"ruac_jax.benchmarks.{MODULES[task]}_{side}", json.dumps(settings)]
    threads = {"OMP_NUM_THREADS": str(os.cpu_count()), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads, check=False)
    if done.returncode:
        raise UserError(f"the {side} side of {task} failed at size {settings['size']}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _summary(settings: dict[str, Any], found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    row: dict[str, Any] = {"size": settings["size"], "batch": settings["batch"]}
    for side, starts in found.items():
        seconds = sorted(s for start in starts for s in start["seconds"])
        row[f"{side}_seconds"] = statistics.median(seconds)
        row[f"{side}_range"] = (seconds[0], seconds[-1])
        row[f"{side}_mib"] = max(start["peak_mib"] for start in starts)
    if "torch" in found:
        row["ratio"] = row["torch_seconds"] / row["jax_seconds"]
        row["memory"] = row["jax_mib"] / row["torch_mib"]
    return row


def _table(task: str, rows: list[dict[str, Any]]) -> str:
    lines = [f"## {task}: {_VARIANT.value}, float32, {_machine()}", "", f"`{_command(task)}`", ""]
    lines += ["| size | batch | ours, s (range) | PyTorch, s (range) | PyTorch / ours | peak MiB ours / PyTorch |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in rows:
        ours = f"{row['jax_seconds']:.2f} ({row['jax_range'][0]:.2f}-{row['jax_range'][1]:.2f})"
        theirs, ratio, memory = "-", "-", f"{row['jax_mib']:.0f} / -"
        if "ratio" in row:
            theirs = f"{row['torch_seconds']:.2f} ({row['torch_range'][0]:.2f}-{row['torch_range'][1]:.2f})"
            ratio = f"{row['ratio']:.2f}"
            memory = f"{row['jax_mib']:.0f} / {row['torch_mib']:.0f} = {row['memory']:.2f}"
        lines.append(f"| {row['size']} | {row['batch']} | {ours} | {theirs} | {ratio} | {memory} |")
    return "\n".join([*lines, ""])


def _command(task: str) -> str:
    sizes = ",".join(_SIZES.value)
    command = f"python -m ruac_jax.benchmark {task} --variant {_VARIANT.value} --sizes {sizes} --batch {_BATCH.value}"
    if task != "encoder":
        command += f" --objects {_OBJECTS.value} --corrections {_CORRECTIONS.value}"
    return command if task == MEMORY else f"{command} --rounds {_ROUNDS.value} --repeats {_REPEATS.value}"


def _machine() -> str:
    versions = []
    for package in ("jax", "flax", "torch", "sam2"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return (
        f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}, {', '.join(versions)}"
    )


if __name__ == "__main__":
    run_main(main, positional=1)
