import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from ruac_jax.benchmarks.step_memory import step_memory
from ruac_jax.config import Config, DataConfig, InteractionConfig, ModelConfig, RuntimeConfig, ScheduleConfig
from ruac_jax.training.objective import PHASES
from ruac_jax.weights import create_model, leaves

CONFIG = Config(
    image_size=64,
    model=ModelConfig("nano"),
    interaction=InteractionConfig(corrections=0),
    schedule=ScheduleConfig(1, 0, 0),
    data=DataConfig(batch_size=8, images_per_device=1, max_objects=2),
    runtime=RuntimeConfig("float32", rematerialize=False),
)

TRAINED = ("sam_prompt_encoder", "sam_mask_decoder", "no_mem_embed", "head")


@pytest.fixture(scope="module")
def small():
    return step_memory(CONFIG, PHASES[0])


def test_arguments_are_parameters_moments_and_one_device_s_images(small):
    assert jax.device_count() == 8
    sizes = {path: x.size for path, x in leaves(create_model("nano", "weibull", rngs=nnx.Rngs(0))).items()}
    constant = "positional_encoding_gaussian_matrix"
    trained = sum(size for path, size in sizes.items() if path[0] in TRAINED and constant not in path)
    image = 64 * 64 * 3 + 2 * 64 * 64 + 2  # uint8 colours, two masks, two flags
    expected = 4 * (sum(sizes.values()) + 2 * trained) + image
    np.testing.assert_allclose(small.arguments, expected, atol=64)  # step, key, counters


def test_more_images_take_more_temporary_memory(small):
    more = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, batch_size=32, images_per_device=4))
    found = step_memory(more, PHASES[0])
    # Four times the activations; gradients and the update, a part of the temporaries, stay as they are.
    assert 1.5 * small.temporaries < found.temporaries < 4 * small.temporaries
    assert found.total == found.arguments + found.temporaries + found.outputs
