"""One optimiser step: micro-batches, gradients, update. Compiled once per phase, sharded over a ('data',) mesh."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ruac_jax.config import Config
from ruac_jax.data.record import Batch
from ruac_jax.training.objective import DeviceBatch, Phase, Sums, count_objects, gradients
from ruac_jax.training.optimizer import apply_gradients, learning_rate, update_average
from ruac_jax.training.state import TrainState

Step = Callable[[TrainState, Any, DeviceBatch], tuple[TrainState, Sums]]


def data_mesh() -> Mesh:
    """All devices of all processes along one axis, 'data'."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def micro_batches(config: Config, devices: int) -> int:
    """Number of micro-batches that make up the effective batch on this many devices."""
    return config.data.batch_size // (config.data.images_per_device * devices)


def shard_batch(batch: Batch, accumulation: int, mesh: Mesh) -> DeviceBatch:
    """Puts this process's share of the effective batch on its devices.

    Args:
      batch: host arrays, images first.
      accumulation: micro-batches per step.
      mesh: the data mesh.

    Returns:
      Arrays [accumulation, images of a micro-batch, ...], the second axis sharded over 'data'.
    """
    sharding = NamedSharding(mesh, PartitionSpec(None, "data"))

    def put(x: np.ndarray) -> jax.Array:
        local = x.reshape(accumulation, x.shape[0] // accumulation, *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, local)

    return DeviceBatch(put(batch.image), put(batch.masks), put(batch.valid))


def make_step(graph: nnx.GraphDef, phase: Phase, config: Config, total_steps: int, mesh: Mesh) -> Step:
    """Builds the compiled step of one phase.

    Args:
      graph: static part of the system.
      phase: which terms take part.
      config: settings; `data.batch_size` images per step.
      total_steps: length of the whole run, for the learning rates.
      mesh: where batches are sharded and the state is replicated.

    Returns:
      `step(state, frozen, batch) -> (state, metrics)`; the state is donated. Metrics are scalars: each term's mean
      over objects, gradient norms and learning rates by group, `loss`, `objects` and `finite`.
    """

    def step(state: TrainState, frozen: Any, batch: DeviceBatch) -> tuple[TrainState, Sums]:
        key = jax.random.fold_in(state.key, state.step)
        objects = count_objects(batch.valid).astype(jnp.float32)

        def accumulate(index: jax.Array, micro: DeviceBatch) -> Any:
            key_micro = jax.random.fold_in(key, index)
            return gradients(graph, state.params, frozen, micro, key_micro, phase, config)

        accumulation = batch.valid.shape[0]
        total = accumulate(jnp.zeros((), jnp.int32), jax.tree.map(lambda x: x[0], batch))
        if accumulation > 1:
            rest = jax.tree.map(lambda x: x[1:], batch)
            total, _ = jax.lax.scan(
                lambda total, item: (jax.tree.map(jnp.add, total, accumulate(*item)), None),
                total,
                (jnp.arange(1, accumulation), rest),
            )
        grads, channels, sums = jax.tree.map(lambda x: x / objects, total)

        active = [group for group in state.params if group != "attack" or phase.adversarial]
        update = apply_gradients(
            grads, state.optimizer, state.params, state.step, active, total_steps, config.optimizer
        )
        skipped = ~update.finite
        metrics = dict(sums) | _weighted(sums, config, phase)
        metrics |= {"loss": sum(channels), "objects": objects, "finite": update.finite.astype(jnp.float32)}
        metrics |= {f"gradient_norm/{group}": norm for group, norm in update.norms.items()}
        metrics |= {
            f"learning_rate/{group}": learning_rate(
                getattr(config.optimizer, group), state.step, total_steps, config.optimizer
            )
            for group in active
        }
        if phase.adversarial:
            metrics["attack/loss_ratio"] = sums["adversarial/segmentation"] / sums["clean/segmentation"]
        state = TrainState(
            step=state.step + 1,
            params=update.params,
            optimizer=update.state,
            average=update_average(state.average, update.params, state.step, config.optimizer.average_decay),
            key=state.key,
            skipped=state.skipped + skipped.astype(jnp.int32),
            first_skipped=jnp.where(skipped & (state.first_skipped < 0), state.step, state.first_skipped),
            last_skipped=jnp.where(skipped, state.step, state.last_skipped),
        )
        return state, metrics

    everywhere = replicated(mesh)
    batch_sharding = NamedSharding(mesh, PartitionSpec(None, "data"))
    return jax.jit(
        step,
        in_shardings=(everywhere, everywhere, batch_sharding),
        out_shardings=everywhere,
        donate_argnums=0,
    )


def _weighted(sums: Sums, config: Config, phase: Phase) -> Sums:
    """Each term as it enters the total, so that the weighted values add up to `loss`."""
    weights = config.loss
    of_term = {
        "focal": weights.focal,
        "dice": weights.dice,
        "iou": weights.iou,
        "object": weights.object_score,
        "likelihood": 1.0,
        "kl": weights.kl * weights.kl_stream if phase.kl else 0.0,
        "calibration_error": weights.calibration,
        "calibration_uncertainty": weights.calibration,
    }
    clean_share = 1 - weights.adversarial if phase.adversarial else 1.0
    weighted = {}
    for name, value in sums.items():
        branch, term = name.split("/")
        if branch in ("clean", "adversarial") and term in of_term:
            share = weights.adversarial if branch == "adversarial" else (1.0 if term == "kl" else clean_share)
            weighted[f"weighted/{branch}_{term}"] = share * of_term[term] * value
    return weighted
