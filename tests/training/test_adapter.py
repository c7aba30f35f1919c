"""LoRA in training: what moves, what does not, and what is saved."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ruac_jax.adapters.lora import add_lora
from ruac_jax.config import Config, DataConfig, InteractionConfig, ModelConfig, RuntimeConfig, ScheduleConfig
from ruac_jax.training import loop
from ruac_jax.training.loop import train
from ruac_jax.training.objective import PHASES
from ruac_jax.training.system import System, cast_for_compute, split_system
from ruac_jax.weights import ModelMetadata, create_model, leaves, load_metadata, load_model, save_model

from .test_step import take_step

SEGMENTATION = PHASES[0]


@pytest.fixture(scope="module")
def adapted(config):
    model = add_lora(create_model("nano", "hypernetwork", rngs=nnx.Rngs(0)), 4, rngs=nnx.Rngs(1))
    return split_system(System(model, None), config.optimizer)


def names(tree) -> set[str]:
    return {str(path[-1].key) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]}


def test_adapters_are_a_group_of_their_own(adapted):
    _, params, frozen = adapted
    assert list(params) == ["adapter", "decoder", "head"]
    assert names(params["adapter"]) == {"a", "b"}
    assert not {"a", "b"} & (names(params["decoder"]) | names(params["head"]) | names(frozen))
    attention = frozen["model"]["image_encoder"]["trunk"]["blocks"][0]["attn"]
    assert set(attention["qkv"]) == set(attention["proj"]) == {"base"}


def test_adapters_compute_in_the_encoder_s_type(adapted):
    _, params, frozen = adapted
    cast, rest = cast_for_compute(params, frozen, jnp.dtype("bfloat16"))
    assert {x.dtype.name for x in jax.tree.leaves(cast["adapter"])} == {"bfloat16"}
    encoder = rest["model"]["image_encoder"]
    assert {x.dtype.name for x in jax.tree.leaves(encoder)} == {"bfloat16"}


def test_a_learning_rate_of_zero_freezes_them(config):
    model = add_lora(create_model("nano", "hypernetwork", rngs=nnx.Rngs(0)), 4, rngs=nnx.Rngs(1))
    rates = dataclasses.replace(config.optimizer, adapter=0.0)
    assert "adapter" not in split_system(System(model, None), rates)[1]


@pytest.mark.slow
def test_a_step_moves_adapters_and_decoder_alone(adapted, batch, config):
    before = jax.device_get(adapted[1])
    rates = dataclasses.replace(config.optimizer, adapter=1e-3)
    config = dataclasses.replace(config, optimizer=rates)
    state, metrics = take_step(adapted, batch, config, SEGMENTATION, devices=1, steps=2)
    assert metrics["learning_rate/adapter"] > 0
    assert metrics["gradient_norm/adapter"] > 0
    assert state.params.keys() == before.keys()
    # The first step moves b, which starts at zero, and the second a.
    for path, old in jax.tree_util.tree_flatten_with_path(before["adapter"])[0]:
        new = state.params["adapter"]
        for entry in path:
            new = new[entry.key]
        assert np.any(new != old), path
    changed = jax.tree.map(lambda new, old: bool(np.any(new != old)), state.params["decoder"], before["decoder"])
    assert any(jax.tree.leaves(changed))


@pytest.mark.slow
def test_a_run_resumes_to_the_same_bits_and_saves_a_plain_model(tmp_path, monkeypatch):
    base = create_model("nano", "hypernetwork", rngs=nnx.Rngs(3))
    save_model(tmp_path / "base", base, ModelMetadata("nano", "hypernetwork"))
    config = Config(
        image_size=64,
        model=ModelConfig("nano", "hypernetwork", str(tmp_path / "base"), lora_rank=4),
        interaction=InteractionConfig(corrections=0),
        schedule=ScheduleConfig(1, 0, 0, steps_per_epoch=3),
        data=DataConfig("shapes/source", num_images=8, batch_size=8, images_per_device=1, max_objects=1, augment=False),
        runtime=RuntimeConfig("float32", False, log_every=1, picture_every=0, checkpoint_every=2),
    )
    whole = train(config, tmp_path / "whole")

    calls = []
    original = loop.shard_batch

    def killed_at_the_third(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(loop, "shard_batch", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "killed")
    monkeypatch.setattr(loop, "shard_batch", original)
    resumed = train(config, tmp_path / "killed")
    assert load_metadata(resumed).fingerprint == load_metadata(whole).fingerprint
    records = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3]

    model, metadata = load_model(whole)
    assert metadata.head == "hypernetwork"
    after, before = leaves(model), leaves(base)
    assert after.keys() == before.keys()
    changed = {path for path in after if np.any(np.asarray(after[path]) != np.asarray(before[path]))}
    in_encoder = {path[-3:] for path in changed if path[0] == "image_encoder"}
    assert in_encoder == {("attn", "qkv", "kernel"), ("attn", "proj", "kernel")}
    assert not any(path[0] == "memory_encoder" for path in changed)
