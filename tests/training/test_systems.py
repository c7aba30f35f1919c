"""Every kind of attack in a training step: it changes what it should, follows from the key, scatters no floats."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType

from ruac_jax.sam2.variants import variant
from ruac_jax.training.objective import PHASES
from ruac_jax.training.state import init_state
from ruac_jax.training.step import make_step, replicated, shard_batch
from ruac_jax.training.system import System, create_attack, split_system

KINDS = {
    "random": {"kind": "random"},
    "noise": {"kind": "noise"},
    "pgd": {"kind": "pgd"},
    "patch": {"kind": "patch"},
    "mixstyle": {"kind": "mixstyle"},
    "dsu": {"kind": "dsu"},
    "single": {"scope": "single", "graph": False, "deformation": False},
    "image": {"scope": "image", "graph": False, "deformation": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_the_decoder_the_head_and_what_is_learned(kind, system, config, batch_of):
    config = dataclasses.replace(
        config,
        attack=dataclasses.replace(config.attack, **KINDS[kind]),
        interaction=dataclasses.replace(config.interaction, corrections=0),
        data=dataclasses.replace(config.data, batch_size=4, images_per_device=4),
    )
    whole = System(system.model, create_attack(config, variant("nano").d_model, nnx.Rngs(1)))
    graph, params, frozen = split_system(whole, config.optimizer)
    learned = config.attack.kind == "learned"
    assert params.keys() == {"decoder", "head"} | ({"attack"} if learned else set())
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    step = make_step(graph, PHASES[-1], config, 10, mesh)
    batch = shard_batch(batch_of(4), 1, mesh)

    def fresh(seed):
        state = init_state(jax.tree.map(jnp.copy, params), seed, config.optimizer)
        return jax.device_put(state, replicated(mesh))

    compiled = step.lower(fresh(0), frozen, batch).compile()
    assert re.findall(r"= (f\d+|bf16)\[[^\n]* scatter\(", compiled.as_text()) == []
    once, again, other = (compiled(fresh(seed), frozen, batch)[1] for seed in (0, 0, 1))
    state, metrics = compiled(fresh(0), frozen, batch)
    for group, part in params.items():
        moved = [
            not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (part, state.params[group])), strict=True)
        ]
        assert any(moved), group
    assert metrics["finite"] == 1
    assert once["adversarial/segmentation"] == again["adversarial/segmentation"] == metrics["adversarial/segmentation"]
    assert once["adversarial/segmentation"] != other["adversarial/segmentation"]
    weighted = sum(float(value) for name, value in metrics.items() if name.startswith("weighted/"))
    np.testing.assert_allclose(weighted, metrics["loss"], rtol=1e-5)
