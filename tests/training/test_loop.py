import dataclasses
import json

import numpy as np
import pytest
from flax import nnx

from convert.flax_to_sam2 import sam2_tensors
from ruac_jax.config import Config, DataConfig, InteractionConfig, ModelConfig, RuntimeConfig, ScheduleConfig
from ruac_jax.errors import UserError
from ruac_jax.training import loop
from ruac_jax.training.loop import initial_model, stretches, train
from ruac_jax.training.objective import PHASES
from ruac_jax.weights import ModelMetadata, create_model, load_metadata, save_model


@pytest.fixture
def small_run() -> Config:
    """Four segmentation steps on generated images, a checkpoint after every second one."""
    return Config(
        image_size=64,
        model=ModelConfig(variant="nano"),
        interaction=InteractionConfig(corrections=0),
        schedule=ScheduleConfig(1, 0, 0, steps_per_epoch=4),
        data=DataConfig(
            "shapes/source", num_images=12, batch_size=8, images_per_device=1, max_objects=1, augment=False
        ),
        runtime=RuntimeConfig("float32", False, log_every=1, picture_every=0, checkpoint_every=2),
    )


def test_phases_are_laid_out_over_steps():
    config = Config(schedule=ScheduleConfig(5, 2, 13))
    plan = stretches(config, 155)
    assert [(part.phase.name, part.start, part.stop) for part in plan] == [
        ("segmentation", 0, 775),
        ("kl", 775, 1085),
        ("adversarial", 1085, 3100),
    ]
    config = dataclasses.replace(config, schedule=ScheduleConfig(0, 0, 2))
    assert [part.phase for part in stretches(config, 10)] == [PHASES[2]]


def test_batch_that_does_not_fit_the_devices_is_refused(small_run, tmp_path):
    config = dataclasses.replace(small_run, data=dataclasses.replace(small_run.data, batch_size=12))
    with pytest.raises(UserError, match="no multiple of 8 images"):
        train(config, tmp_path)


def test_missing_weights_say_how_to_get_them(small_run, tmp_path):
    model = dataclasses.replace(small_run.model, checkpoint=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"convert\.sam2_to_flax"):
        train(dataclasses.replace(small_run, model=model), tmp_path / "run")


def test_a_replaced_head_is_kept_for_the_way_back(small_run, tmp_path):
    sam2 = create_model("nano", "hypernetwork", rngs=nnx.Rngs(3))
    save_model(tmp_path / "sam2", sam2, ModelMetadata("nano", "hypernetwork"))
    model, metadata, carried = initial_model(small_run, tmp_path / "sam2")
    assert metadata.head == "weibull"
    save_model(tmp_path / "ruac", model, metadata, carried)
    before, after = sam2_tensors(tmp_path / "sam2"), sam2_tensors(tmp_path / "ruac")
    assert {name for name in after if name not in before} == {name for name in after if "pixel_bndl" in name}
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)

    # Back to SAM2's head, a fresh one: what was kept of the old one must not come in its place.
    again = dataclasses.replace(small_run, model=dataclasses.replace(small_run.model, head="hypernetwork"))
    _, metadata, carried = initial_model(again, tmp_path / "ruac")
    assert (metadata.head, carried) == ("hypernetwork", {})


def test_an_evidential_head_starts_from_sam2_s_own(small_run, tmp_path):
    sam2 = create_model("nano", "hypernetwork", rngs=nnx.Rngs(3))
    save_model(tmp_path / "sam2", sam2, ModelMetadata("nano", "hypernetwork"))
    config = dataclasses.replace(small_run, model=dataclasses.replace(small_run.model, head="evidential"))
    model, metadata, carried = initial_model(config, tmp_path / "sam2")
    assert (metadata.head, metadata.head_settings, carried) == ("evidential", {}, {})
    save_model(tmp_path / "ur_ern", model, metadata, carried)
    before, after = sam2_tensors(tmp_path / "sam2"), sam2_tensors(tmp_path / "ur_ern")
    added = {f"sam_mask_decoder.ur_ern_head.{part}" for part in ("weight", "bias")}
    assert after.keys() - before.keys() == added
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


def test_what_a_head_is_made_with_comes_from_the_settings(small_run, tmp_path):
    save_model(tmp_path / "m", create_model("nano", "weibull", rngs=nnx.Rngs(0)), ModelMetadata("nano", "weibull"))
    settings = dataclasses.replace(small_run.model, kappa_min=0.5, kappa_max=50.0, prior_rate=2.0, rectifier="opening")
    model, metadata, _ = initial_model(dataclasses.replace(small_run, model=settings), tmp_path / "m")
    expected = {"kappa_range": (0.5, 50.0), "prior": (1.0, 2.0), "rectifier": "opening"}
    assert {name: getattr(model.head, name) for name in expected} == metadata.head_settings == expected


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(small_run, tmp_path, monkeypatch):
    last = train(small_run, tmp_path / "last")
    small_run = dataclasses.replace(small_run, optimizer=dataclasses.replace(small_run.optimizer, average_decay=0.9))
    whole = train(small_run, tmp_path / "whole")
    assert load_metadata(whole).fingerprint != load_metadata(last).fingerprint  # the average is what is saved

    calls = []
    original = loop.shard_batch

    def killed_at_the_fourth(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(loop, "shard_batch", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train(small_run, tmp_path / "killed")
    monkeypatch.setattr(loop, "shard_batch", original)
    resumed = train(small_run, tmp_path / "killed")

    assert load_metadata(resumed).fingerprint == load_metadata(whole).fingerprint

    def losses(run):
        records = [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        return [(record["step"], record["loss"]) for record in records]

    assert losses("killed") == losses("whole") == losses("last")
    assert [step for step, _ in losses("whole")] == [1, 2, 3, 4]

    changed = dataclasses.replace(small_run, optimizer=dataclasses.replace(small_run.optimizer, decoder=2e-6))
    with pytest.raises(UserError, match=r"optimizer\.decoder: was 1e-06, is 2e-06"):
        train(changed, tmp_path / "killed")
