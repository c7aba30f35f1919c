"""A system small enough to differentiate in seconds: nano network at 64 px, fixed batch of generated images."""

import jax
import numpy as np
import pytest
from flax import nnx

from ruac_jax.config import (
    Config,
    DataConfig,
    InteractionConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RuntimeConfig,
    ScheduleConfig,
)
from ruac_jax.data.record import Batch
from ruac_jax.sam2.variants import variant
from ruac_jax.training.system import System, create_attack, split_system
from ruac_jax.weights import create_model

SIZE = 64


@pytest.fixture(scope="session")
def config() -> Config:
    return Config(
        image_size=SIZE,
        model=ModelConfig(variant="nano"),
        interaction=InteractionConfig(corrections=1),
        loss=LossConfig(kl_stream=1e-3),  # heavy enough to be seen beside the other terms
        schedule=ScheduleConfig(1, 1, 1, steps_per_epoch=2),
        optimizer=OptimizerConfig(decoder=1e-3, head=1e-3, attack=1e-3),
        data=DataConfig(batch_size=8, images_per_device=8, max_objects=2),
        runtime=RuntimeConfig(compute_dtype="float32", rematerialize=False),
    )


@pytest.fixture(scope="session")
def system(config) -> System:
    """Network and attack; the zero-initialised last layer of the deformation is moved so that it deforms."""
    model = create_model("nano", "weibull", rngs=nnx.Rngs(0))
    attack = create_attack(config, variant("nano").d_model, nnx.Rngs(1))
    noise = np.random.default_rng(2)

    def stir(x: jax.Array) -> jax.Array:
        return x + 0.05 * noise.normal(size=x.shape).astype(np.float32)

    nnx.update(attack, jax.tree.map(stir, nnx.state(attack, nnx.Param)))
    return System(model, attack)


@pytest.fixture(scope="session")
def parts(system, config):
    """(graph, trainable, frozen) of the system."""
    return split_system(system, config.optimizer)


def make_batch(images: int, objects: int = 2, seed: int = 0) -> Batch:
    """Disks of one colour on noise; the last slot of every third image is empty."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    image = rng.integers(0, 120, (images, SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((images, objects, SIZE, SIZE), bool)
    valid = np.ones((images, objects), bool)
    for i in range(images):
        for k in range(objects):
            if i % 3 == 0 and k == objects - 1:
                valid[i, k] = False
                continue
            cx, cy = rng.integers(14, SIZE - 14, 2)
            masks[i, k] = (x - cx) ** 2 + (y - cy) ** 2 <= int(rng.integers(5, 12)) ** 2
            image[i][masks[i, k]] = rng.integers(130, 255, 3)
    return Batch(image, masks, valid)


@pytest.fixture(scope="session")
def batch() -> Batch:
    return make_batch(8)


@pytest.fixture(scope="session")
def batch_of():
    """Makes other batches: `batch_of(images, objects, seed)`."""
    return make_batch
