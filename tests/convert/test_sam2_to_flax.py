import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from configs.ruac import get_config
from convert.names import HYPERNETWORK_PREFIX, WEIBULL_PREFIX, to_flax
from convert.sam2_to_flax import DEFAULT_CHECKPOINT, DEFAULT_OUTPUT, convert_file, convert_tensors
from ruac_jax.errors import UserError
from ruac_jax.weights import leaves, load_carried, load_metadata, load_model


@pytest.fixture
def checkpoint(tmp_path, nano_tensors):
    """A written nano checkpoint, possibly changed before, and its path."""

    def write(change=lambda tensors: None, **kind):
        tensors = nano_tensors(**kind)
        change(tensors)
        save_file(tensors, tmp_path / "source.safetensors")
        return tmp_path / "source.safetensors", tensors

    return write


def assert_nothing_written(folder: Path):
    assert [path.name for path in folder.iterdir()] == ["source.safetensors"]


@pytest.mark.parametrize(
    ("head", "version"), [("hypernetwork", "2.1"), ("hypernetwork", "2.0"), ("weibull", None), ("evidential", "2.1")]
)
def test_every_value_arrives(checkpoint, tmp_path, entries, head, version):
    path, tensors = checkpoint(head=head, version=version)
    metadata = convert_file(path, tmp_path / "model")
    model, loaded = load_model(tmp_path / "model")
    assert loaded == metadata == load_metadata(tmp_path / "model")
    assert (metadata.variant, metadata.head, metadata.sam2_version) == ("nano", head, version)
    assert metadata.source == "source.safetensors"
    values, carried = leaves(model), load_carried(tmp_path / "model")
    table = entries("nano", head)
    assert len(values) + len(carried) == len(tensors)
    for name, found in table.items():
        np.testing.assert_array_equal(values[found.path], to_flax(tensors[name], found))
    for name in carried:
        np.testing.assert_array_equal(carried[name], tensors[name])


def test_summary(checkpoint, tmp_path, capsys):
    path, tensors = checkpoint(version="2.1", change=lambda t: t.update({"style_gcn.w": np.ones((2, 3), np.float32)}))
    metadata = convert_file(path, tmp_path / "model")
    printed = capsys.readouterr().out
    assert "SAM2.1, nano, hypernetwork head" in printed
    assert "carried      120 tensors" in printed
    assert "dropped      1 tensors" in printed
    assert "style_gcn." in printed
    assert metadata.source_sha256 in printed
    values = sum(array.size for name, array in tensors.items() if name not in metadata.carried) - 6
    assert f"{values:,} values" in printed


def test_all_problems_are_listed_at_once_and_nothing_is_written(checkpoint, tmp_path):
    def spoil(tensors):
        del tensors["sam_mask_decoder.iou_token.weight"], tensors["memory_attention.norm.bias"]
        tensors["sam_mask_decoder.surprise"] = np.ones(3, np.float32)
        tensors["no_mem_embed"] = np.ones((1, 1, 7), np.float32)
        tensors["image_encoder.trunk.blocks.0.mlp.layers.0.weight"] = np.ones((24, 96), np.float32)

    path, _ = checkpoint(spoil, version="2.1")
    with pytest.raises(UserError) as error:
        convert_file(path, tmp_path / "model")
    assert str(error.value).splitlines() == [
        "5 tensors do not fit SAM2:",
        "  missing: memory_attention.norm.bias (128,)",
        "  missing: sam_mask_decoder.iou_token.weight (1, 128)",
        "  unexpected: sam_mask_decoder.surprise (3,)",
        "  wrong shape: image_encoder.trunk.blocks.0.mlp.layers.0.weight: expected (96, 24), found (24, 96)",
        "  wrong shape: no_mem_embed: expected (1, 1, 128), found (1, 1, 7)",
    ]
    assert_nothing_written(tmp_path)


def test_existing_output_is_kept_without_overwrite(checkpoint, tmp_path):
    path, _ = checkpoint()
    convert_file(path, tmp_path / "model")
    before = load_metadata(tmp_path / "model")
    path, _ = checkpoint()
    with pytest.raises(UserError, match="exists already; --overwrite replaces it"):
        convert_file(path, tmp_path / "model")
    assert load_model(tmp_path / "model")[1] == before
    convert_file(path, tmp_path / "model", overwrite=True)
    assert load_model(tmp_path / "model")[1].fingerprint != before.fingerprint


def test_a_folder_that_is_no_model_is_never_overwritten(checkpoint, tmp_path):
    path, _ = checkpoint()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    with pytest.raises(UserError, match="not a saved model, so it is not replaced"):
        convert_file(path, tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "one.jpg").exists()


def test_output_stands_beside_the_checkpoint_by_default(checkpoint, tmp_path):
    path, _ = checkpoint()
    convert_file(path)
    assert load_metadata(tmp_path / "source").variant == "nano"


def test_published_layout(nano_tensors, rng):
    """Unfamiliar head names in any order, both heads, attackers, a wrapper: as the published RUAC file might be."""
    own = nano_tensors("weibull", "2.1")
    hypernetwork = {name: a for name, a in nano_tensors().items() if name.startswith(HYPERNETWORK_PREFIX)}
    groups = sorted({name.rpartition(".")[0] for name in own if name.startswith(WEIBULL_PREFIX)})
    foreign = {groups[i]: f"{WEIBULL_PREFIX}unit{j}" for j, i in enumerate(rng.permutation(len(groups)))}
    published = {}
    for name, array in own.items():
        group, _, leaf = name.rpartition(".")
        published[f"{foreign[group]}.{leaf}" if group in foreign else name] = array
    published |= hypernetwork
    published |= {f"{part}.w": np.ones(3, np.float32) for part in ("style_attacker", "deform_attacker", "style_gcn")}
    published[f"{WEIBULL_PREFIX}out_bias"] = np.float32([0.5, -0.25])
    names = list(published)
    rng.shuffle(names)
    found, expected = convert_tensors({name: published[name] for name in names}), convert_tensors(own)
    assert (found.metadata.head, found.metadata.sam2_version) == ("weibull", "2.1")
    for path, value in leaves(expected.model).items():
        np.testing.assert_array_equal(leaves(found.model)[path], value)
    assert found.dropped.keys() == {"style_attacker.w", "deform_attacker.w", "style_gcn.w"}
    np.testing.assert_array_equal(found.model.head.class_bias[...], [0.5, -0.25])
    assert found.metadata.head_settings == {"class_bias": True}
    assert found.carried.keys() == expected.carried.keys() | hypernetwork.keys()
    assert found.notes == [f"class bias {WEIBULL_PREFIX}out_bias: taken as (foreground, background)"]


def test_ambiguous_head_is_refused(nano_tensors):
    tensors = nano_tensors("weibull")
    renamed = {name.replace("token_mlp.layers.1", "b"): array for name, array in tensors.items()}
    shape = tensors[f"{WEIBULL_PREFIX}token_mlp.layers.1.weight"].shape
    renamed |= {
        f"{WEIBULL_PREFIX}c.weight": np.ones(shape, np.float32),
        f"{WEIBULL_PREFIX}c.bias": np.ones(shape[0], np.float32),
    }
    with pytest.raises(UserError, match=r"several fit \S+token_mlp\.layers\.1"):
        convert_tensors(renamed)


def test_half_of_a_carried_head_is_an_error(nano_tensors):
    tensors = nano_tensors("weibull") | {f"{HYPERNETWORK_PREFIX}0.layers.0.bias": np.ones(128, np.float32)}
    with pytest.raises(UserError, match=r"23 tensors do not fit SAM2:\n  missing: \S+output_hypernetworks_mlps"):
        convert_tensors(tensors)


def test_two_heads_in_one_file_are_refused(nano_tensors):
    tensors = nano_tensors("weibull") | nano_tensors("evidential")
    with pytest.raises(UserError, match=r"2 tensors do not fit SAM2:\n  unexpected: \S+ur_ern_head\.bias"):
        convert_tensors(tensors)


def test_default_checkpoint_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"sam2\.1_hiera_base_plus\.pt.*facebookresearch/sam2.*put it at checkpoints/"):
        convert_file()
    assert list(tmp_path.iterdir()) == []
    assert Path(DEFAULT_CHECKPOINT).with_suffix("") == Path(DEFAULT_OUTPUT)


def test_command_line(checkpoint, tmp_path):
    path, _ = checkpoint()

    def run(*arguments):
        root = Path(__file__).parents[2]
        environment = os.environ | {"PYTHONPATH": str(root)}
        command = [sys.executable, "-m", "convert.sam2_to_flax", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    missing = run()
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: checkpoints/sam2.1_hiera_base_plus.pt: not here.")
    assert missing.stdout == ""
    assert_nothing_written(tmp_path)
    done = run("--checkpoint", str(path), "--output", "out")
    assert done.returncode == 0, done.stderr
    assert "nano, hypernetwork head" in done.stdout
    assert "converting: 100%" in done.stderr
    assert "orbax" not in done.stderr
    assert load_metadata(tmp_path / "out").variant == "nano"


def test_default_output_is_where_the_paper_s_run_looks():
    assert get_config().model.checkpoint == DEFAULT_OUTPUT
