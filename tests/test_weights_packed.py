"""Whole models in one packed file; what such a file holds is in test_packed.py."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from ruac_jax.errors import UserError
from ruac_jax.packed import read_packed, write_packed
from ruac_jax.weights import load_metadata, load_model, packed_model, save_model
from tests.test_hub import here, made

__all__ = ["here", "made"]  # fixtures


def test_a_packed_model_saved_as_a_folder_is_the_same_model(made, here):
    model, metadata = load_model(made / "packed.safetensors")
    assert save_model(here / "model", model, metadata) == metadata


def test_a_changed_packed_file_is_damaged(made, here):
    content = bytearray((made / "packed.safetensors").read_bytes())
    content[-1] ^= 1
    Path("packed.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="damaged: the parameters are not those that were saved"):
        load_model("packed.safetensors")


def test_a_packed_file_of_another_network_or_version(made):
    metadata = load_metadata(made / "packed.safetensors")
    for change, message in (
        ({"head": "hypernetwork", "head_settings": {}}, r"missing head\..*|do not fit the network"),
        ({"format_version": 99}, "saved in format 99, newer than"),
        ({"variant": "nanoo"}, "cannot build the model it describes"),
    ):
        description = json.dumps(dataclasses.asdict(metadata) | change)
        write_packed(Path("other.safetensors"), description, read_packed(made / "packed.safetensors"))
        with pytest.raises(UserError, match=message):
            load_model("other.safetensors")


def test_a_file_of_tensors_is_not_loaded_as_a_model(made):
    with pytest.raises(UserError, match="not a model packed by this project"):
        load_model(made / "sam2.safetensors")


def test_networks_that_are_not_finite_are_not_packed(made):
    model, _ = load_model(made / "model")
    model.no_mem_embed[...] = model.no_mem_embed[...] * np.float32(np.nan)
    with pytest.raises(UserError, match="no_mem_embed holds values that are not finite"):
        packed_model(model)
