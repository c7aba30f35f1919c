"""What images are perturbed by, to see which features move: noise, and the attack, untrained or as a run learned it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jaxtyping import Array, Bool, Float, UInt32

from ruac_jax.attacks.attack import AttackOutput, unmoved
from ruac_jax.attacks.combined import RUACAttack
from ruac_jax.attacks.pixel import add_noise
from ruac_jax.config import AttackConfig, Config, parse_config
from ruac_jax.errors import UserError
from ruac_jax.sam2.variants import variant


def noise_attack(
    image: Float[Array, "b h w 3"], masks: Bool[Array, "b k h w"], number: UInt32[Array, ""]
) -> AttackOutput:
    """The paper's Random Noise, which follows from `number`; objects stay in place."""
    return unmoved(add_noise(image, jax.random.key(number)), masks)


def parts_of(attack: RUACAttack) -> dict[str, RUACAttack]:
    """The halves of an attack, each alone, and both together; those that it has."""
    parts = {}
    if attack.style is not None:
        parts["style"] = RUACAttack(attack.style, attack.graph, None, attack.settings)
    if attack.deformation is not None:
        parts["deformation"] = RUACAttack(None, None, attack.deformation, attack.settings)
    if len(parts) > 1:
        parts["style and deformation"] = attack
    return parts


def untrained_attack(settings: AttackConfig, d_model: int, seed: int = 0) -> RUACAttack:
    """An attack of random networks within the budgets of the settings.

    Kernels are drawn at unit gain (deviation sqrt(2 / inputs)): with nearly zero weights, as a run starts, an attack
    changes almost nothing.
    """
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], value: jax.ShapeDtypeStruct) -> Array:
        kind = path[-1].key
        if kind != "kernel":
            return jnp.full(value.shape, 1.0 if kind == "scale" else 0.0, value.dtype)
        deviation = (2 * value.shape[-1] / value.size) ** 0.5
        return jnp.asarray(rng.normal(0, deviation, value.shape), value.dtype)

    attack, shapes = _abstract_attack(settings, d_model)
    return _with_parameters(attack, jax.tree_util.tree_map_with_path(draw, shapes))


def load_config(run: Path) -> Config:
    """The settings of a training run.

    Raises:
      UserError: there is no run.
    """
    file = run / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{run}: not the folder of a training run (expected {file.name} in it)") from error
    return parse_config(content)


def load_attack(run: Path) -> RUACAttack:
    """The attack of a run's newest checkpoint: models are saved without theirs, checkpoints with it.

    Raises:
      UserError: no run there, or it has learned no attack.
    """
    config = load_config(run)
    if not config.schedule.adversarial_epochs or not config.optimizer.attack or config.attack.kind != "learned":
        raise UserError(f"{run}: that run trained no attack; leave --run out to measure untrained ones")
    attack, shapes = _abstract_attack(config.attack, variant(config.model.variant).d_model)
    folder = (run / "checkpoints").resolve()
    steps = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
    if not steps:
        raise UserError(f"{run}: no checkpoint in {folder.name}/, which a learned attack could be read from")
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
    # Of the run's state only this: optimiser and network stay on disk.
    target = {"params": {"attack": {"attack": wanted}}}
    options = ocp.args.PyTreeRestore(
        target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
    )
    with ocp.PyTreeCheckpointer() as checkpointer:
        found = checkpointer.restore(folder / str(max(steps)) / "state", args=options)
    return _with_parameters(attack, found["params"]["attack"]["attack"])


def _abstract_attack(settings: AttackConfig, d_model: int) -> tuple[RUACAttack, dict[str, Any]]:
    """An attack without values, and the shapes of its parameters."""
    attack = nnx.eval_shape(lambda: RUACAttack.create(settings, d_model, rngs=nnx.Rngs(0)))
    return attack, nnx.to_pure_dict(nnx.state(attack, nnx.Param))


def _with_parameters(attack: RUACAttack, values: Mapping[str, Any]) -> RUACAttack:
    state = nnx.state(attack, nnx.Param)
    # As numpy arrays they are bound to no device, so that attacks of one structure share a compilation.
    nnx.replace_by_pure_dict(state, jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), values))
    nnx.update(attack, state)
    return attack
