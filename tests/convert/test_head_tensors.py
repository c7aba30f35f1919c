import pytest

from convert.head_tensors import match_head
from ruac_jax.errors import UserError

PREFIX = "sam_mask_decoder.pixel_bndl."

# The published head's widths (paper A, appendix B; SAM2.1's 256 channels) under names we made up.
UNFAMILIAR = {
    f"{PREFIX}tok.fc_b.bias": (64,),
    f"{PREFIX}pix.0.weight": (64, 32),
    f"{PREFIX}shape_map.b.bias": (1,),
    f"{PREFIX}tok.fc_a.weight": (64, 256),
    f"{PREFIX}pix.2.bias": (32,),
    f"{PREFIX}shape_map.a.weight": (32, 32, 3, 3),
    f"{PREFIX}tok_shape.weight": (1, 2),
    f"{PREFIX}tok.fc_b.weight": (64, 64),
    f"{PREFIX}pix.0.bias": (64,),
    f"{PREFIX}shape_map.a.bias": (32,),
    f"{PREFIX}tok.fc_a.bias": (64,),
    f"{PREFIX}pix.2.weight": (32, 64),
    f"{PREFIX}tok_shape.bias": (1,),
    f"{PREFIX}shape_map.b.weight": (1, 32, 3, 3),
}

EXPECTED = {
    "pix.0": "pixel_mlp.layers.0",
    "pix.2": "pixel_mlp.layers.1",
    "tok.fc_a": "token_mlp.layers.0",
    "tok.fc_b": "token_mlp.layers.1",
    "shape_map.a": "pixel_kappa.conv1",
    "shape_map.b": "pixel_kappa.conv2",
    "tok_shape": "token_kappa",
}


@pytest.fixture
def ours(entries):
    return {
        name: found.torch_shape for name, found in entries("base_plus", "weibull").items() if name.startswith(PREFIX)
    }


def test_unfamiliar_names(ours):
    names, class_biases = match_head(ours, UNFAMILIAR)
    assert names == {
        f"{PREFIX}{theirs}.{part}": f"{PREFIX}{our}.{part}"
        for theirs, our in EXPECTED.items()
        for part in ("weight", "bias")
    }
    assert class_biases == []


def test_linear_layer_written_as_convolution(ours):
    names, _ = match_head(ours, UNFAMILIAR | {f"{PREFIX}pix.0.weight": (64, 32, 1, 1)})
    assert names[f"{PREFIX}pix.0.weight"] == f"{PREFIX}pixel_mlp.layers.0.weight"


@pytest.mark.parametrize("name", ["class_bias", "tok.fc_b.extra", "out.bias"])
def test_two_values_left_over_are_a_class_bias(name, ours):
    names, class_biases = match_head(ours, UNFAMILIAR | {PREFIX + name: (2,)})
    assert class_biases == [PREFIX + name]
    assert len(names) == 14


def test_our_own_names_need_no_search(ours):
    names, class_biases = match_head(ours, ours | {f"{PREFIX}class_bias": (2,)})
    assert names == {name: name for name in ours}
    assert class_biases == [f"{PREFIX}class_bias"]


def test_two_class_biases_are_refused(ours):
    with pytest.raises(UserError, match=r"could be the class bias: \S+\.a, \S+\.b"):
        match_head(ours, UNFAMILIAR | {f"{PREFIX}a": (2,), f"{PREFIX}b": (1, 2)})


def test_two_candidates_are_refused(ours):
    second = {f"{PREFIX}other.weight": (64, 64), f"{PREFIX}other.bias": (64,)}
    with pytest.raises(UserError, match=r"several fit \S*token_mlp\.layers\.1 .*other\.weight.*tok\.fc_b\.weight"):
        match_head(ours, UNFAMILIAR | second)


def test_missing_layer_and_strangers_are_all_listed(ours):
    found = {name: shape for name, shape in UNFAMILIAR.items() if ".tok_shape." not in name}
    with pytest.raises(UserError) as error:
        match_head(ours, found | {f"{PREFIX}a.scale": (5,), f"{PREFIX}b.scale": (6,)})
    message = str(error.value)
    assert "nothing fits sam_mask_decoder.pixel_bndl.token_kappa" in message
    assert f"belongs to no layer: {PREFIX}a.scale (5,)" in message
    assert f"belongs to no layer: {PREFIX}b.scale (6,)" in message


def test_weights_without_prefixes_are_ambiguous(ours):
    flat = {f"{PREFIX}{name.removeprefix(PREFIX).replace('.', '_')}": shape for name, shape in UNFAMILIAR.items()}
    with pytest.raises(UserError, match="cannot tell the Weibull head's tensors apart"):
        match_head(ours, flat)


def test_two_layers_of_one_shape_cannot_share_a_tensor():
    ours = {"h.a.weight": (4, 4), "h.b.weight": (4, 4)}
    with pytest.raises(UserError, match=r"fits several layers: h\.x\.weight"):
        match_head(ours, {"h.x.weight": (4, 4)})
