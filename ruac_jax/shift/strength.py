"""How hard a run's attack is for the network that was trained against it, beside the same at random."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ruac_jax.attacks.controls import ControlAttack
from ruac_jax.config import Config
from ruac_jax.data.record import Batch
from ruac_jax.data.sources import training_batches
from ruac_jax.evaluation.run import dataset_and_split
from ruac_jax.evaluation.studies.perturbations import load_attack
from ruac_jax.sam2.variants import variant
from ruac_jax.training.objective import PHASES, DeviceBatch, Sums, objective
from ruac_jax.training.system import System
from ruac_jax.weights import load_model

BATCHES = 5


def attack_losses(run: Path, config: Config, unseen: str, batches: int = BATCHES) -> dict[str, float]:
    """Segmentation loss per object on unseen source images, clean and attacked.

    Args:
      run: folder of a finished run with a learned attack.
      config: its settings.
      unseen: images of the source domain that it did not see, as `evaluate` names them.
      batches: of `config.data.batch_size` such images.

    Returns:
      `loss_clean`, and `loss_learned`, `loss_signs` (the learned sizes, random directions), `loss_uniform` (evenly
      within the budget).
    """
    model, _ = load_model(run / "model")
    learned = load_attack(run)
    attacks = {
        "learned": learned,
        "signs": ControlAttack(learned, "signs"),
        "uniform": ControlAttack(learned, "uniform"),
    }
    size = config.image_size or variant(config.model.variant).image_size
    data = _batches(config, unseen, size, batches)
    losses = {name: _mean_losses(System(model, attack), config, data) for name, attack in attacks.items()}
    clean = losses["learned"]["clean"]
    return {"loss_clean": clean, **{f"loss_{name}": found["adversarial"] for name, found in losses.items()}}


def _batches(config: Config, name: str, size: int, batches: int) -> list[Batch]:
    dataset, split = dataset_and_split(name)
    data = dataclasses.replace(config.data, dataset=dataset, split=split, clips="", augment=False)
    iterator = training_batches(data, size, seed=0)
    found = [next(iterator) for _ in range(batches)]
    iterator.close()
    return found


def _mean_losses(system: System, config: Config, data: list[Batch]) -> dict[str, float]:
    graph, state = nnx.split(system)

    @jax.jit
    def evaluate(state: object, batch: DeviceBatch, number: jax.Array) -> Sums:
        return objective(nnx.merge(graph, state), batch, jax.random.key(number), PHASES[-1], config)[1]

    sums = [evaluate(state, DeviceBatch(*map(jnp.asarray, batch)), jnp.uint32(i)) for i, batch in enumerate(data)]
    objects = sum(int(np.sum(batch.valid)) for batch in data)
    return {
        branch: float(sum(s[f"{branch}/segmentation"] for s in sums)) / objects for branch in ("clean", "adversarial")
    }
