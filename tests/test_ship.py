import numpy as np
import pytest
from flax import nnx

import ruac_jax.ship
from ruac_jax.errors import UserError
from ruac_jax.ship import logit_difference, ship
from ruac_jax.sums import SUMS, read_sums, sha256
from ruac_jax.weights import ModelMetadata, create_model, load_metadata, load_model, packed_model, save_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    carried = {"no_obj_ptr": np.ones((1, 128), np.float32)}
    model = create_model("nano", "hypernetwork", rngs=nnx.Rngs(0))
    save_model(folder, model, ModelMetadata("nano", "hypernetwork", source="run"), carried)
    return folder


@pytest.mark.slow
def test_a_model_becomes_one_small_file(saved, tmp_path):
    output = tmp_path / "out" / "m.safetensors"
    summary = ship(saved, output)
    assert output.stat().st_size < 4_000_000
    assert {path.name for path in output.parent.iterdir()} == {"m.safetensors", SUMS}
    assert read_sums(output.with_name(SUMS)) == {"m.safetensors": sha256(output)}
    metadata = load_metadata(output)
    assert (metadata.variant, metadata.head, metadata.source, metadata.carried) == ("nano", "hypernetwork", "run", ())
    assert metadata.fingerprint in summary
    assert sha256(output) in summary
    assert "left out     1 tensors of SAM2's video path" in summary

    before = output.read_bytes()
    with pytest.raises(UserError, match="exists already; --overwrite replaces it"):
        ship(saved, output)
    ship(saved, output, overwrite=True)
    assert output.read_bytes() == before


@pytest.mark.slow
def test_the_difference_is_that_of_the_logits(saved, monkeypatch):
    monkeypatch.setattr(ruac_jax.ship, "_DOMAINS", ("source",))
    monkeypatch.setattr(ruac_jax.ship, "_IMAGES", 1)
    model, _ = load_model(saved)
    assert logit_difference(model, model) == 0.0
    assert 0.0 < logit_difference(model, packed_model(model)[0]) < 1e-2
    # Logits are products with the last layer of their hypernetworks: to double it doubles them.
    doubled, _ = load_model(saved)
    for mlp in doubled.head.output_hypernetworks_mlps:
        mlp.layers[-1].kernel[...] = mlp.layers[-1].kernel[...] * np.float32(2)
        mlp.layers[-1].bias[...] = mlp.layers[-1].bias[...] * np.float32(2)
    once = logit_difference(model, doubled)
    for mlp in doubled.head.output_hypernetworks_mlps:
        mlp.layers[-1].kernel[...] = mlp.layers[-1].kernel[...] * np.float32(1.5)
        mlp.layers[-1].bias[...] = mlp.layers[-1].bias[...] * np.float32(1.5)
    assert logit_difference(model, doubled) == pytest.approx(2 * once, rel=1e-4)


def test_too_large_a_difference_writes_nothing(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(ruac_jax.ship, "logit_difference", lambda *_: 0.02)
    with pytest.raises(UserError, match=r"rounded to 16 bits, its logits differ by 0\.02, over 0\.01"):
        ship(saved, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_other_endings_are_refused(saved, tmp_path):
    with pytest.raises(UserError, match=r"expected a name that ends in \.safetensors"):
        ship(saved, tmp_path / "m.bin")
