"""What changes from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from ruac_jax.config import OptimizerConfig
from ruac_jax.training.groups import Group
from ruac_jax.training.optimizer import init_optimizer


class TrainState(NamedTuple):
    """A run's state on device; replicated, donated to each step.

    Attributes:
      step: optimiser steps tried so far, skipped ones included.
      params: trainable parameters by group, float32.
      optimizer: Adam state by group.
      average: running average of the network's parameters by group; empty where none is kept.
      key: random key of the run; a step draws from `fold_in(key, step)`.
      skipped: steps left out because a gradient was not finite.
      first_skipped: the first of them, -1 if none.
      last_skipped: the last of them, -1 if none.
    """

    step: Int[Array, ""]
    params: dict[Group, Any]
    optimizer: dict[Group, Any]
    average: dict[Group, Any]
    key: PRNGKeyArray
    skipped: Int[Array, ""]
    first_skipped: Int[Array, ""]
    last_skipped: Int[Array, ""]


def init_state(params: dict[Group, Any], seed: int, settings: OptimizerConfig) -> TrainState:
    """The state before the first step. The key is a raw `uint32` key, which checkpoints as a plain array."""
    averaged = [group for group in params if group != "attack"] if settings.average_decay else []
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=init_optimizer(params, settings),
        average={group: jax.tree.map(jnp.copy, params[group]) for group in averaged},  # a step is given both
        key=jax.random.PRNGKey(seed),
        skipped=jnp.zeros((), jnp.int32),
        first_skipped=jnp.full((), -1, jnp.int32),
        last_skipped=jnp.full((), -1, jnp.int32),
    )
