"""The training loop: phases in order, one compiled step each, logged, pictured, checkpointed and resumed exactly."""

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from tqdm import tqdm

from ruac_jax.adapters.lora import add_lora, merge_lora
from ruac_jax.config import Config
from ruac_jax.data.sources import training_batches
from ruac_jax.errors import UserError
from ruac_jax.model import SAM2
from ruac_jax.sam2.variants import variant
from ruac_jax.training.checkpoint import RunCheckpoints
from ruac_jax.training.metrics import MetricsLog, mean_of
from ruac_jax.training.objective import PHASES, DeviceBatch, Phase
from ruac_jax.training.pictures import draw_snapshot, make_snapshot
from ruac_jax.training.state import TrainState, init_state
from ruac_jax.training.step import data_mesh, make_step, micro_batches, replicated, shard_batch
from ruac_jax.training.system import System, cast_for_compute, create_attack, merge_system, split_system
from ruac_jax.weights import (
    ModelMetadata,
    create_model,
    fingerprint,
    load_carried,
    load_model,
    replace_head,
    save_model,
)


class Stretch(NamedTuple):
    """Steps `start` to `stop` - 1 belong to `phase`."""

    phase: Phase
    start: int
    stop: int


def stretches(config: Config, steps_per_epoch: int) -> list[Stretch]:
    """Lays the phases out over optimiser steps, empty ones left out."""
    schedule, laid_out, start = config.schedule, [], 0
    epochs = (schedule.segmentation_epochs, schedule.kl_epochs, schedule.adversarial_epochs)
    for phase, length in zip(PHASES, epochs, strict=True):
        if length:
            laid_out.append(Stretch(phase, start, start + length * steps_per_epoch))
            start = laid_out[-1].stop
    return laid_out


def initial_model(config: Config, weights: Path | None) -> tuple[SAM2, ModelMetadata, dict[str, Any]]:
    """The network a run starts from.

    Args:
      config: settings; a checkpoint with another head gets one of the kind that `model.head` names, fresh but for what
        both contain of SAM2's own (`weights.replace_head`). Kappa's range, prior and rectifier always come from here.
      weights: folder of a converted or trained model; None: random weights.

    Returns:
      The network, what it is, and the SAM2 tensors that its checkpoint carries for other uses.

    Raises:
      UserError: no checkpoint there, or it holds another variant.
    """
    settings = config.model
    head = {
        "kappa_range": (settings.kappa_min, settings.kappa_max),
        "prior": (settings.prior_shape, settings.prior_rate),
        "rectifier": settings.rectifier,
    }
    head = head if settings.head == "weibull" else {}
    rngs = nnx.Rngs(config.seed)
    if weights is None:
        metadata = ModelMetadata(settings.variant, settings.head, head)
        return create_model(settings.variant, settings.head, head, rngs=rngs), metadata, {}
    model, metadata = load_model(weights)
    if metadata.variant != settings.variant:
        raise UserError(
            f"{weights} holds the variant {metadata.variant!r}, model.variant is {settings.variant!r}: "
            "set one to match the other"
        )
    carried = load_carried(weights)
    if metadata.head == settings.head:
        for name, value in head.items():
            setattr(model.head, name, value)
        return model, dataclasses.replace(metadata, head_settings=metadata.head_settings | head), carried
    return replace_head(model, metadata, carried, settings.head, head, rngs=rngs)


def train(config: Config, workdir: Path) -> Path:
    """Runs a configuration from start, or from its newest checkpoint, to end.

    Args:
      config: checked settings.
      workdir: folder of the run: `checkpoints/`, `metrics.jsonl`, `tensorboard/`, `pictures/`, `config.json`,
        `pretrain/` (a run of its own) and, once done, `model/`.

    Returns:
      The folder of the trained model.

    Raises:
      UserError: missing data or weights, a workdir of another run, too many non-finite steps.
    """
    finished = workdir / "model"
    weights = Path(config.model.checkpoint) if config.model.checkpoint else None
    if config.pretrain is not None:
        weights = train(config.pretrain, workdir / "pretrain")
    mesh = data_mesh()
    images = config.data.images_per_device * jax.device_count()
    if config.data.batch_size % images:
        raise UserError(
            f"data.batch_size is {config.data.batch_size}, which is no multiple of {images} images at once "
            f"(data.images_per_device {config.data.images_per_device} on {jax.device_count()} devices)"
        )
    size = config.image_size or variant(config.model.variant).image_size
    data = training_batches(config.data, size, config.seed)
    steps_per_epoch = config.schedule.steps_per_epoch or data.samples_per_epoch // config.data.batch_size
    if not steps_per_epoch:
        raise UserError(
            f"one epoch has {data.samples_per_epoch} samples, less than data.batch_size {config.data.batch_size}"
        )
    plan = stretches(config, steps_per_epoch)
    model, metadata, carried = initial_model(config, weights)
    if config.model.lora_rank:
        add_lora(model, config.model.lora_rank, rngs=nnx.Rngs(config.seed + 2))
    attack = create_attack(config, variant(config.model.variant).d_model, nnx.Rngs(config.seed + 1))
    graph, params, frozen = split_system(System(model, attack), config.optimizer)

    total_steps = plan[-1].stop
    workdir.mkdir(parents=True, exist_ok=True)
    checkpoints = RunCheckpoints((workdir / "checkpoints").resolve(), config, _fingerprint(frozen))
    state = jax.device_put(init_state(params, config.seed, config.optimizer), replicated(mesh))
    if (newest := checkpoints.latest()) is not None:
        state, iterator_state = checkpoints.restore(newest, state)
        data.set_state(iterator_state)
    done = int(state.step)
    on_device = jax.device_put(_store(frozen, jnp.dtype(config.runtime.compute_dtype)), replicated(mesh))
    (workdir / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    accumulation = micro_batches(config, jax.device_count())
    snapshot = make_snapshot(graph, config)

    with (
        contextlib.closing(checkpoints),
        contextlib.closing(MetricsLog(workdir, resumed_at=done)) as log,
        tqdm(total=total_steps, initial=done, unit="step", desc=workdir.name, dynamic_ncols=True) as bar,
    ):
        for phase, _, stop in plan:
            if done >= stop:
                continue
            step = make_step(graph, phase, config, total_steps, mesh)
            bar.set_description(f"{workdir.name}: {phase.name}")
            pending: list[dict[str, Any]] = []
            clock = time.perf_counter()
            while done < stop:
                host_batch = next(data)
                state, metrics = step(state, on_device, shard_batch(host_batch, accumulation, mesh))
                done += 1
                pending.append(metrics)
                bar.update()
                if done % config.runtime.log_every == 0 or done == stop:
                    values = mean_of(jax.device_get(pending))
                    seconds = (time.perf_counter() - clock) / len(pending)
                    values["images_per_second"] = config.data.batch_size / seconds
                    log.write(done, phase.name, values)
                    bar.set_postfix(loss=f"{values['loss']:.4f}", images_s=f"{values['images_per_second']:.1f}")
                    _stop_if_broken(state, config)
                    pending, clock = [], time.perf_counter()
                every = config.runtime.picture_every
                if every and (done % every == 0 or done == stop):
                    sample = DeviceBatch(*(jnp.asarray(x[:3]) for x in host_batch))
                    picture = jax.device_get(snapshot(state.params, on_device, sample, state.key))
                    draw_snapshot(picture, workdir / "pictures" / f"{done:06d}_{phase.name}.png")
                    clock = time.perf_counter()
                if done % config.runtime.checkpoint_every == 0 or done == stop:
                    checkpoints.save(done, state, data.get_state())
    if not finished.exists():
        trained = merge_lora(merge_system(graph, jax.device_get(state.params | state.average), frozen).model)
        save_model(finished, trained, dataclasses.replace(metadata, source=workdir.name, source_sha256=None), carried)
    return finished


def _store(frozen: Any, dtype: jnp.dtype) -> Any:
    """Frozen parameters in the type they are computed in, which halves their memory in bfloat16."""
    return cast_for_compute({}, frozen, dtype)[1]


def _fingerprint(frozen: Any) -> str:
    leaves = jax.tree_util.tree_flatten_with_path(frozen)[0]
    return fingerprint({tuple(entry.key for entry in path): leaf for path, leaf in leaves})


def _stop_if_broken(state: TrainState, config: Config) -> None:
    skipped = int(state.skipped)
    if skipped >= config.optimizer.max_nonfinite_steps:
        raise UserError(
            f"{skipped} steps between step {int(state.first_skipped)} and step {int(state.last_skipped)} had gradients "
            f"that were not finite (allowed: fewer than {config.optimizer.max_nonfinite_steps}); the parameters are "
            "those of the last good step. Lower the learning rates or the attack's epsilons"
        )
