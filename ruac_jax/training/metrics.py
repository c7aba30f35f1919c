"""Where a run's figures go: one JSON line a record, and TensorBoard."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter


class MetricsLog:
    """Appends records to `metrics.jsonl` and TensorBoard event files in one folder."""

    def __init__(self, directory: Path, resumed_at: int):
        """Opens the log; records at or after step `resumed_at` are left over from a killed run and removed."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "metrics.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= resumed_at]
            path.write_text("".join(line + "\n" for line in kept))
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=resumed_at)

    def write(self, step: int, phase: str, values: Mapping[str, float]) -> None:
        """Writes one record; `step` counts optimiser steps done."""
        self._file.write(json.dumps({"step": step, "phase": phase, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both files."""
        self._file.close()
        self._board.close()


def mean_of(records: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """Averages metrics over steps, on the host."""
    return {name: float(np.mean([np.asarray(record[name]) for record in records])) for name in records[0]}


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the last line of a killed run may be cut short
        return np.iinfo(np.int64).max
