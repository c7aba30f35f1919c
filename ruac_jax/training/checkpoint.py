"""Checkpoints of a run: trainable parameters, optimiser, key, counters, data iterator, configuration.

The frozen weights are not repeated in every checkpoint; their fingerprint is, and resuming on other weights fails.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from ruac_jax.config import Config
from ruac_jax.errors import UserError
from ruac_jax.training.state import TrainState


class RunCheckpoints:
    """Saves and restores a run in the background, keeping the newest few."""

    def __init__(self, directory: Path, config: Config, frozen_fingerprint: str):
        """Opens the folder of checkpoints, making it if it is not there."""
        self._directory = directory
        self._identity = {"config": dataclasses.asdict(config), "frozen": frozen_fingerprint}
        self._manager = ocp.CheckpointManager(
            directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=config.runtime.checkpoints_kept, create=True),
        )

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, iterator_state: Any) -> None:
        """Saves in the background; `iterator_state` is what the data iterator's `get_state()` returned (JSON)."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state._asdict()),
                iterator=ocp.args.JsonSave({"state": iterator_state, "processes": jax.process_count()}),
                identity=ocp.args.JsonSave(json.loads(json.dumps(self._identity))),
            ),
        )

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, Any]:
        """Restores a checkpoint onto the shapes and shardings of `like`.

        Returns:
          The state and the data iterator's state.

        Raises:
          UserError: the checkpoint belongs to other frozen weights or to settings that change the course of the run.
        """
        identity = self._manager.restore(step, args=ocp.args.Composite(identity=ocp.args.JsonRestore()))["identity"]
        self._check(identity, step)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like._asdict())
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), iterator=ocp.args.JsonRestore()),
        )
        if restored["iterator"]["processes"] != jax.process_count():
            raise UserError(
                f"{self._directory}: saved by {restored['iterator']['processes']} processes, resumed by "
                f"{jax.process_count()}: the data order depends on their number, use the same"
            )
        return TrainState(**restored["state"]), restored["iterator"]["state"]

    def close(self) -> None:
        """Waits for the checkpoint being written."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _check(self, identity: dict[str, Any], step: int) -> None:
        where = f"{self._directory}: the checkpoint of step {step}"
        if identity["frozen"] != self._identity["frozen"]:
            raise UserError(f"{where} was made on other frozen weights; use another --workdir, or the same checkpoint")
        saved, current = _relevant(identity["config"]), _relevant(json.loads(json.dumps(self._identity["config"])))
        changed = sorted(name for name in saved.keys() | current.keys() if saved.get(name) != current.get(name))
        if changed:
            lines = "\n  ".join(f"{name}: was {saved.get(name)!r}, is {current.get(name)!r}" for name in changed)
            raise UserError(f"{where} was made with other settings; use another --workdir, or restore\n  {lines}")


def _relevant(config: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Flattens the settings that a resumed run must share with the one it continues."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        full = f"{path}.{name}" if path else name
        if full.startswith(("runtime.log", "runtime.picture", "runtime.checkpoint", "evaluation", "data.data_dir")):
            continue
        if isinstance(value, dict):
            flat |= _relevant(value, full)
        else:
            flat[full] = value
    return flat
