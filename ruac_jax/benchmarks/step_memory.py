"""Memory of a training step, phase by phase, read off the compiled program; nothing is run."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ruac_jax.config import Config
from ruac_jax.sam2.variants import variant
from ruac_jax.training.objective import DeviceBatch, Phase
from ruac_jax.training.state import init_state
from ruac_jax.training.step import data_mesh, make_step, micro_batches
from ruac_jax.training.system import System, cast_for_compute, create_attack, split_system
from ruac_jax.weights import abstract_model


class StepMemory(NamedTuple):
    """Bytes on one device.

    Attributes:
      arguments: parameters, optimiser and batch.
      temporaries: the most that intermediate results take at once.
      outputs: results that do not take the place of an argument (the state is donated).
    """

    arguments: int
    temporaries: int
    outputs: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.arguments + self.temporaries + self.outputs


def step_memory(config: Config, phase: Phase) -> StepMemory:
    """Compiles the step of one phase for the devices at hand and asks the compiler.

    Args:
      config: settings of a run; the micro-batches of one step are compiled as the loop would run them.
      phase: one of `PHASES`.

    Returns:
      Bytes on one device.
    """
    size = config.image_size or variant(config.model.variant).image_size
    d_model = variant(config.model.variant).d_model
    attack = nnx.eval_shape(lambda: create_attack(config, d_model, nnx.Rngs(0)))
    system = System(abstract_model(config.model.variant, config.model.head), attack)
    graph, params, frozen = split_system(system, config.optimizer)
    dtype = jnp.dtype(config.runtime.compute_dtype)

    def shapes(x: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)

    state = jax.eval_shape(lambda params: init_state(params, 0, config.optimizer), shapes(params))
    stored = jax.eval_shape(lambda frozen: cast_for_compute({}, frozen, dtype)[1], shapes(frozen))
    accumulation = micro_batches(config, jax.device_count())
    lead = (accumulation, config.data.batch_size // accumulation)
    slots = (*lead, config.data.max_objects)
    batch = DeviceBatch(
        jax.ShapeDtypeStruct((*lead, size, size, 3), jnp.uint8),
        jax.ShapeDtypeStruct((*slots, size, size), jnp.bool_),
        jax.ShapeDtypeStruct(slots, jnp.bool_),
    )
    step = make_step(graph, phase, config, 1000, data_mesh())
    found = step.lower(state, stored, batch).compile().memory_analysis()
    return StepMemory(
        # Not the compiler's figure: it leaves out what a phase does not read, which lies on the device all the same.
        arguments=_size(state) + _size(stored) + _size(batch) // jax.device_count(),
        temporaries=found.temp_size_in_bytes,
        outputs=found.output_size_in_bytes - found.alias_size_in_bytes,
    )


def _size(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
