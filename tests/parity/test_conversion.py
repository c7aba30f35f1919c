"""PyTorch's files read and written, and converted models against PyTorch's sam2 holding the same file.

Bars as `--verify` states them; round trips are bitwise equal.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sam2.build_sam import build_sam2_video_predictor

from convert import verify
from convert.carried import carried_shapes
from convert.checkpoint_files import read, write
from convert.flax_to_sam2 import convert_directory
from convert.names import table
from convert.sam2_to_flax import convert_file
from ruac_jax.errors import UserError
from ruac_jax.sam2.variants import VARIANTS, variant
from ruac_jax.weights import abstract_model, leaves, load_metadata
from tests.parity import oracle
from tests.parity.weights import REDUCED, random_tensor


def random_checkpoint(size, head="hypernetwork", version=None):
    shapes = {
        name: found.torch_shape
        for name, found in table({p: v.shape for p, v in leaves(abstract_model(size, head)).items()}).items()
    }
    shapes |= carried_shapes(version, variant(size).d_model, variant(size).memory_dim)
    return {name: random_tensor(name, shape) for name, shape in shapes.items()}


def as_torch(tensors):
    return {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}


SMALL = {"a.weight": np.float32([[1, -0.0], [3e-42, np.inf]]), "b": np.float32([5])}


@pytest.mark.parametrize("wrap", [lambda state: {"model": state}, lambda state: state])
@pytest.mark.parametrize("zipped", [True, False])
def test_both_contents_and_both_formats_are_read(tmp_path, wrap, zipped):
    state = {f"module.{name}": torch.nn.Parameter(tensor) for name, tensor in as_torch(SMALL).items()}
    torch.save(wrap(state), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    found = read(tmp_path / "x.pt").tensors
    assert found.keys() == SMALL.keys()
    for name, array in SMALL.items():
        assert found[name].tobytes() == array.tobytes()


def test_half_precision_and_strides_are_read(tmp_path):
    matrix = torch.arange(6.0).reshape(2, 3)
    torch.save({"h": matrix.half().T, "b": (matrix / 3).bfloat16()}, tmp_path / "x.pt")
    source = read(tmp_path / "x.pt")
    assert source.casts == {"float16": 1, "bfloat16": 1}
    np.testing.assert_array_equal(source.tensors["h"], matrix.numpy().T)
    np.testing.assert_array_equal(source.tensors["b"], (matrix / 3).bfloat16().float().numpy())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path, zipped):
    content = {"model": as_torch(SMALL), "extra": Bomb(str(tmp_path / "harmed"))}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"refused.*could run code") as error:
        convert_file(tmp_path / "x.pt", tmp_path / "model")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files_are_one_clear_line(tmp_path, zipped):
    torch.save({"model": as_torch(SMALL)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    content = (tmp_path / "x.pt").read_bytes()
    for length in (*range(0, len(content), 7), len(content) - 1):
        (tmp_path / "x.pt").write_bytes(content[:length])
        with pytest.raises(UserError, match=r"cut short|damaged|not a PyTorch checkpoint") as error:
            read(tmp_path / "x.pt")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds a list, expected named tensors"),
        ({"model": as_torch(SMALL), "epoch": 3}, None),
        ({"a": torch.ones(2), "epoch": 3}, "entries that are not tensors:\n  epoch: int"),
        ({"a": torch.ones(2, dtype=torch.int64)}, "not floating-point:\n  a: int64"),
        ({"model": {}}, "holds no tensors"),
    ],
)
def test_other_contents(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pt")
    if message is None:
        assert read(tmp_path / "x.pt").tensors.keys() == SMALL.keys()
    else:
        with pytest.raises(UserError, match=message):
            read(tmp_path / "x.pt")


def test_written_file_is_what_sam2_loads(tmp_path):
    write(tmp_path / "x.pt", SMALL)
    content = torch.load(tmp_path / "x.pt", weights_only=True)
    assert content.keys() == {"model"}
    for name, array in SMALL.items():
        assert content["model"][name].numpy().tobytes() == array.tobytes()


@pytest.fixture
def small_reference(monkeypatch):
    """Makes a size of 128 pixels that PyTorch sam2 can be assembled in, too."""

    def build(torch_, metadata, tensors):
        reference = oracle.torch_model(REDUCED)
        names = reference.state_dict().keys() & tensors.keys()
        reference.load_state_dict(as_torch({name: tensors[name] for name in names}), strict=False)
        return reference

    monkeypatch.setitem(VARIANTS, "reduced", REDUCED)
    monkeypatch.setattr(verify, "_reference", build)


@pytest.mark.parametrize("head", ["hypernetwork", "weibull", "evidential"])
def test_verification_passes_on_a_true_conversion(tmp_path, capsys, small_reference, head):
    save_file(random_checkpoint("reduced", head), tmp_path / "x.safetensors")
    convert_file(tmp_path / "x.safetensors", tmp_path / "model", verify=True)
    printed = capsys.readouterr().out
    assert printed.count("(bar ") == 10
    assert "masks                                          identical" in printed
    assert ("PyTorch sam2 has no Weibull head" in printed) == (head == "weibull")


def test_verification_fails_on_a_false_one_and_nothing_is_written(tmp_path, capsys, small_reference, monkeypatch):
    tensors = random_checkpoint("reduced")
    save_file(tensors, tmp_path / "x.safetensors")
    build, name = verify._reference, "sam_mask_decoder.iou_prediction_head.layers.2.bias"
    other = tensors | {name: tensors[name] + np.float32(1e-3)}
    monkeypatch.setattr(verify, "_reference", lambda torch_, metadata, _: build(torch_, metadata, other))
    with pytest.raises(UserError, match=r"beyond the bars \(points: predicted IoU, box: .*nothing was written"):
        convert_file(tmp_path / "x.safetensors", tmp_path / "model", verify=True)
    printed = capsys.readouterr().out
    assert printed.count("BEYOND THE BAR") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_verification_needs_a_size_that_sam2_has(tmp_path):
    save_file(random_checkpoint("nano"), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="PyTorch sam2 has no size 'nano'"):
        convert_file(tmp_path / "x.safetensors", tmp_path / "model", verify=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("missing", ["torch", "sam2.build_sam"])
def test_verification_says_what_it_needs(tmp_path, monkeypatch, missing):
    save_file(random_checkpoint("tiny", version="2.1"), tmp_path / "x.safetensors")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=f"--verify needs .*{missing.split('.')[0]}"):
        convert_file(tmp_path / "x.safetensors", tmp_path / "model", verify=True)


@pytest.mark.slow
def test_tiny_from_the_command_line_and_back(tmp_path):
    """A whole SAM2.1 tiny file: verified, converted, exported, equal, and loaded strictly by the video predictor."""
    tensors = random_checkpoint("tiny", version="2.1")
    torch.save({"model": as_torch(tensors)}, tmp_path / "tiny.pt")
    command = [sys.executable, "-m", "convert.sam2_to_flax", "--checkpoint", str(tmp_path / "tiny.pt"), "--verify"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("(bar ") == 10
    assert "masks                                          identical" in ran.stdout
    metadata = load_metadata(tmp_path / "tiny")
    assert (metadata.variant, metadata.sam2_version, len(metadata.carried)) == ("tiny", "2.1", 120)
    convert_directory(tmp_path / "tiny", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)["model"]
    assert back.keys() == tensors.keys()
    assert all(back[name].numpy().tobytes() == array.tobytes() for name, array in tensors.items())
    predictor = build_sam2_video_predictor("configs/sam2.1/sam2.1_hiera_t.yaml", ckpt_path=None, device="cpu")
    predictor.load_state_dict(back, strict=True)
