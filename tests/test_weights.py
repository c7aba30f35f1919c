import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from ruac_jax.errors import UserError
from ruac_jax.heads.weibull import WeibullHead
from ruac_jax.sam2.variants import variant
from ruac_jax.weights import (
    FORMAT_VERSION,
    ModelMetadata,
    abstract_model,
    create_model,
    fingerprint,
    leaves,
    load_carried,
    load_metadata,
    load_model,
    replace_head,
    save_model,
    with_leaves,
)

SETTINGS = {"kappa_range": (0.2, 5.0), "prior": (2.0, 1.0)}


@pytest.fixture(scope="module")
def model():
    return create_model("nano", "weibull", SETTINGS, rngs=nnx.Rngs(0))


@pytest.fixture
def saved(model, tmp_path):
    carried = {"memory_attention.norm.bias": np.arange(3, dtype=np.float32)}
    save_model(tmp_path / "m", model, ModelMetadata("nano", "weibull", SETTINGS, source="run"), carried)
    return tmp_path / "m"


def test_saved_model_comes_back_bit_for_bit(model, saved):
    loaded, metadata = load_model(saved)
    values, expected = leaves(loaded), leaves(model)
    assert values.keys() == expected.keys()
    for path, value in expected.items():
        assert isinstance(values[path], jax.Array)
        assert np.asarray(values[path]).tobytes() == np.asarray(value).tobytes()
    assert (metadata.variant, metadata.head, metadata.source) == ("nano", "weibull", "run")
    assert (loaded.head.kappa_range, loaded.head.prior) == (SETTINGS["kappa_range"], SETTINGS["prior"])
    assert metadata.carried == ("memory_attention.norm.bias",)
    np.testing.assert_array_equal(load_carried(saved)["memory_attention.norm.bias"], [0, 1, 2])
    assert metadata.fingerprint == fingerprint(leaves(model))


def test_nothing_else_is_left_beside_the_model(saved):
    assert [path.name for path in saved.parent.iterdir()] == ["m"]
    assert {path.name for path in saved.iterdir()} == {"metadata.json", "parameters", "carried.safetensors"}
    assert len(load_file(saved / "carried.safetensors")) == 1


def test_loaded_model_runs_under_jit(saved):
    loaded, _ = load_model(saved)
    graph, state = nnx.split(loaded)
    image = jnp.zeros((1, variant("nano").image_size, variant("nano").image_size, 3))
    features = jax.eval_shape(
        lambda state, image: (m := nnx.merge(graph, state)).project(m.backbone(image)), state, image
    )
    assert features.embedding.shape == (1, 8, 8, 128)


def test_half_precision_is_saved_as_float32(model, tmp_path):
    half = with_leaves(model, {path: np.asarray(value).astype(jnp.bfloat16) for path, value in leaves(model).items()})
    save_model(tmp_path / "m", half, ModelMetadata("nano", "weibull", SETTINGS))
    loaded, _ = load_model(tmp_path / "m")
    for path, value in leaves(loaded).items():
        assert value.dtype == jnp.float32
        np.testing.assert_array_equal(value, np.asarray(leaves(half)[path], np.float32))
    assert load_carried(tmp_path / "m") == {}


def test_abstract_model_has_the_real_one_s_shapes_and_no_values(model):
    abstract = leaves(abstract_model("nano", "weibull"))
    assert all(isinstance(value, jax.ShapeDtypeStruct) for value in abstract.values())
    assert {path: (v.shape, v.dtype) for path, v in abstract.items()} == {
        path: (v.shape, v.dtype) for path, v in leaves(model).items()
    }


def test_fingerprint_sees_every_bit_name_and_shape(rng):
    values = {("a", 0): rng.standard_normal((2, 3), np.float32), ("b",): np.float32([0.0])}
    same = fingerprint(values)
    assert fingerprint(dict(reversed(values.items()))) == same
    assert fingerprint(values | {("b",): np.float32([-0.0])}) != same
    assert fingerprint(values | {("a", 0): values["a", 0].reshape(3, 2)}) != same
    assert fingerprint({("a", 1): values["a", 0], ("b",): values["b",]}) != same
    assert fingerprint({("a", 0): jnp.asarray(values["a", 0]), ("b",): values["b",]}) == same


def test_existing_folder_is_kept_unless_overwritten(model, saved):
    before = load_metadata(saved)
    with pytest.raises(UserError, match="exists already"):
        save_model(saved, model, ModelMetadata("nano", "weibull", SETTINGS, source="second"))
    assert load_metadata(saved) == before
    save_model(saved, model, ModelMetadata("nano", "weibull", SETTINGS, source="second"), overwrite=True)
    assert load_metadata(saved).source == "second"
    assert load_carried(saved) == {}


def test_interrupted_save_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("ruac_jax.weights.save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        save_model(tmp_path / "m", model, ModelMetadata("nano", "weibull", SETTINGS), {"a": np.zeros(1, np.float32)})
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_says_what_was_expected(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder; expected a model.*convert\.sam2_to_flax"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content", [None, "{", "[]", "{}", '{"format_version": 1}', '{"format_version": 1, "what": 2}']
)
def test_other_folders_are_not_models(tmp_path, content):
    if content is not None:
        (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(UserError, match="not a model saved by this project"):
        load_model(tmp_path)


def change_metadata(folder, **changes):
    content = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(content | changes))


def test_newer_format_is_named(saved):
    change_metadata(saved, format_version=FORMAT_VERSION + 1, of_the_future=True)
    with pytest.raises(UserError, match=f"format {FORMAT_VERSION + 1}, newer than {FORMAT_VERSION}; update"):
        load_model(saved)


def test_parameters_of_another_network_are_listed(saved):
    change_metadata(saved, head="hypernetwork", head_settings={})
    with pytest.raises(UserError) as error:
        load_model(saved)
    lines = str(error.value).splitlines()
    assert "  missing head.output_hypernetworks_mlps.3.layers.2.kernel (128, 16)" in lines
    assert "  unexpected head.token_kappa.kernel (2, 1)" in lines
    assert len(lines) == 1 + 24 + 14


def test_wrong_shapes_are_listed(model, tmp_path):
    model = nnx.clone(model)
    model.no_mem_embed = nnx.Param(jnp.zeros((1, 1, 5)))
    save_model(tmp_path / "m", model, ModelMetadata("nano", "weibull", SETTINGS))
    with pytest.raises(UserError, match=r"no_mem_embed: expected \(1, 1, 128\), found \(1, 1, 5\)"):
        load_model(tmp_path / "m")


def test_changed_parameters_are_noticed(saved):
    change_metadata(saved, fingerprint="0" * 64)
    with pytest.raises(UserError, match="fingerprint differs"):
        load_model(saved)


def test_missing_parameters_are_noticed(saved):
    (saved / "parameters").rename(saved / "elsewhere")
    with pytest.raises(UserError, match=r"parameters: missing; expected the parameters"):
        load_model(saved)


def test_truncated_parameters_are_noticed(saved):
    for path in (saved / "parameters").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    # In a process of its own: when one read fails, Orbax leaves the others unawaited, which warns when Python ends.
    program = f"""
from ruac_jax.errors import UserError
from ruac_jax.weights import load_model
try:
    load_model({str(saved)!r})
except UserError as error:
    print(error, flush=True)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ran.stdout.startswith(f"{saved}/parameters: "), ran.stderr[-2000:]
    assert "damaged" in ran.stdout
    assert ran.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "base_pluss"}, "base_plus"),
        ({"head": "weibul"}, "did you mean 'weibull'"),
        ({"head_settings": {"kappa": 3}}, "kappa"),
    ],
)
def test_unknown_names_are_user_errors_when_loading(saved, changes, message):
    change_metadata(saved, **changes)
    with pytest.raises(UserError, match=message):
        load_model(saved)


def test_unknown_head_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown head 'hypernet'; did you mean 'hypernetwork'\?"):
        create_model("nano", "hypernet", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="there are hypernetwork, weibull, evidential"):
        create_model("nano", "xyz", rngs=nnx.Rngs(0))


def replaced(model, head, carried, new):
    metadata = ModelMetadata("nano", head, {}, source="run")
    return replace_head(model, metadata, carried, new, {}, rngs=nnx.Rngs(7))


@pytest.mark.parametrize(("old", "new"), [("hypernetwork", "evidential"), ("evidential", "hypernetwork")])
def test_heads_that_contain_sam2_s_own_hand_it_on(old, new):
    model = create_model("nano", old, rngs=nnx.Rngs(3))
    before = model.head.sam2_tensors()
    carried = {"no_obj_ptr": np.ones(1, np.float32)}
    model, metadata, kept = replaced(model, old, carried, new)
    assert (metadata.head, metadata.source) == (new, "run")
    assert kept.keys() == {"no_obj_ptr"}
    assert leaves(model).keys() == leaves(abstract_model("nano", new)).keys()
    for name, array in model.head.sam2_tensors().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_an_evidential_head_leaves_sam2_s_own_behind_for_the_way_back():
    model = create_model("nano", "evidential", rngs=nnx.Rngs(3))
    before = model.head.sam2_tensors()
    model, metadata, kept = replaced(model, "evidential", {}, "weibull")
    assert (metadata.head, type(model.head)) == ("weibull", WeibullHead)
    assert kept.keys() == before.keys()
    for name, array in kept.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_settings_read_from_json_are_hashable():
    model = abstract_model("nano", "weibull", {"kappa_range": [0.2, 5.0]})
    assert isinstance(model.head, WeibullHead)
    assert hash(model.head.kappa_range) == hash((0.2, 5.0))
