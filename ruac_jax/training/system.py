"""What is trained: the network and its attack as one module, split into parameter groups."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from ruac_jax.attacks import kinds
from ruac_jax.attacks.attack import Attack
from ruac_jax.config import Config, OptimizerConfig
from ruac_jax.model import SAM2
from ruac_jax.training.groups import GROUPS, Group, group_of


class System(nnx.Module):
    """A network and the attack that hardens it (None where no phase is adversarial)."""

    def __init__(self, model: SAM2, attack: Attack | None):
        self.model = model
        self.attack = attack


def split_system(system: System, rates: OptimizerConfig) -> tuple[nnx.GraphDef, dict[Group, Any], Any]:
    """Splits a system for a training step.

    Returns:
      The static graph, the trainable parameters by group (pure dicts, float32; empty groups left out) and the
      frozen rest.
    """
    filters = [lambda path, value, group=group: group_of(path, value, rates) == group for group in GROUPS]
    graph, *states = nnx.split(system, *filters, ...)
    trainable = {
        group: nnx.to_pure_dict(state)
        for group, state in zip(GROUPS, states[:-1], strict=True)
        if jax.tree.leaves(state)
    }
    return graph, trainable, nnx.to_pure_dict(states[-1])


def merge_system(graph: nnx.GraphDef, trainable: dict[Group, Any], frozen: Any) -> System:
    """Puts a split system together again; gradients flow to whatever arrays are passed in."""
    merged: dict[Any, Any] = {}
    for part in (*trainable.values(), frozen):
        _insert(merged, part)
    return nnx.merge(graph, nnx.State(merged))


def cast_for_compute(trainable: dict[Group, Any], frozen: Any, dtype: jnp.dtype) -> tuple[dict[Group, Any], Any]:
    """Casts network parameters to the compute dtype.

    Head, attack and the memory encoder that serves it stay float32, and so does the random matrix of the position
    encoding, whose products with coordinates need the digits.
    """

    def cast(path: tuple[Any, ...], x: Array) -> Array:
        exact = any(str(entry.key) in ("memory_encoder", "pe_layer") for entry in path)
        return x if exact or not jnp.issubdtype(x.dtype, jnp.floating) else x.astype(dtype)

    def cast_tree(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(cast, tree)

    network = ("encoder", "adapter", "decoder")
    return {g: cast_tree(p) if g in network else p for g, p in trainable.items()}, cast_tree(frozen)


def _insert(target: dict[Any, Any], source: dict[Any, Any]) -> None:
    for key, value in source.items():
        if isinstance(value, dict):
            _insert(target.setdefault(key, {}), value)
        else:
            target[key] = value


def create_attack(config: Config, d_model: int, rngs: nnx.Rngs) -> Attack | None:
    """The attack that a configuration names; None where no epoch is adversarial."""
    if not config.schedule.adversarial_epochs:
        return None
    return kinds.create_attack(config.attack, d_model, rngs=rngs)
