"""Our side of the train-step benchmark: one optimiser step of SAM2's fine-tuning (phase "segmentation"), float32."""

import dataclasses

import jax
import numpy as np
from flax import nnx

from ruac_jax.benchmarks.inputs import squares
from ruac_jax.benchmarks.timing import report, settings_from_command_line
from ruac_jax.config import Config, DataConfig, InteractionConfig, ModelConfig, RuntimeConfig, ScheduleConfig
from ruac_jax.data.record import Batch
from ruac_jax.training.objective import PHASES
from ruac_jax.training.state import init_state
from ruac_jax.training.step import data_mesh, make_step, replicated, shard_batch
from ruac_jax.training.system import System, split_system
from ruac_jax.weights import create_model


def main() -> None:
    """Times the compiled step."""
    settings = settings_from_command_line()
    batch = settings["batch"]
    config = dataclasses.replace(
        Config(),
        model=ModelConfig(settings["variant"], "hypernetwork"),
        interaction=InteractionConfig(corrections=settings["corrections"]),
        data=DataConfig(batch_size=batch, images_per_device=batch, max_objects=settings["objects"]),
        runtime=RuntimeConfig("float32", rematerialize=False),
        schedule=ScheduleConfig(segmentation_epochs=1, kl_epochs=0, adversarial_epochs=0),
    )
    model = create_model(settings["variant"], "hypernetwork", rngs=nnx.Rngs(0))
    graph, params, frozen = split_system(System(model, None), config.optimizer)
    mesh = data_mesh()
    state = jax.device_put(init_state(params, 0, config.optimizer), replicated(mesh))
    step = make_step(graph, PHASES[0], config, 100, mesh)
    image, masks = squares(batch, settings["objects"], settings["size"])
    micro = shard_batch(Batch(image, masks, np.ones(masks.shape[:2], bool)), 1, mesh)

    def call() -> None:
        nonlocal state
        state, metrics = step(state, frozen, micro)
        jax.block_until_ready((state, metrics))

    report(call, settings["repeats"])


if __name__ == "__main__":
    main()
