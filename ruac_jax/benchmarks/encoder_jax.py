"""Our side of the encoder benchmark: image to the three levels the decoder reads, float32."""

import jax
import numpy as np
from flax import nnx

from ruac_jax.benchmarks.timing import report, settings_from_command_line
from ruac_jax.weights import create_model


def main() -> None:
    """Times the compiled encoder."""
    settings = settings_from_command_line()
    graph, state = nnx.split(create_model(settings["variant"], "hypernetwork", rngs=nnx.Rngs(0)))
    shape = (settings["batch"], settings["size"], settings["size"], 3)
    image = jax.numpy.asarray(np.random.default_rng(0).normal(size=shape), jax.numpy.float32)

    @jax.jit
    def encode(state: nnx.State, image: jax.Array) -> object:
        model = nnx.merge(graph, state)
        return model.project(model.backbone(image))

    report(lambda: jax.block_until_ready(encode(state, image)), settings["repeats"])


if __name__ == "__main__":
    main()
