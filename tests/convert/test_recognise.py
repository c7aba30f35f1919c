import pytest

from convert.recognise import recognise
from ruac_jax.errors import UserError


@pytest.mark.parametrize("size", ["tiny", "small", "base_plus", "large"])
def test_official_sizes(size, manifests):
    assert recognise(manifests[size]).name == size


def test_nano(nano_tensors):
    assert recognise({name: array.shape for name, array in nano_tensors().items()}).name == "nano"


def test_single_damaged_tensors_do_not_hide_the_size(manifests):
    shapes = dict(manifests["small"])
    shapes["image_encoder.trunk.blocks.4.norm2.weight"] = (7,)
    del shapes["image_encoder.trunk.blocks.9.attn.proj.bias"], shapes["image_encoder.trunk.pos_embed"]
    assert recognise(shapes).name == "small"


def test_unknown_size_lists_what_was_found(manifests):
    shapes = {
        name: shape
        for name, shape in manifests["tiny"].items()
        if not name.startswith("image_encoder.trunk.blocks.11.")
    }
    with pytest.raises(UserError, match=r"embedding 96, stages \(1, 2, 7, 1\).*\(7, 7\).*\(8, 8\)[^$]*base_plus"):
        recognise(shapes)


def test_no_sam2_at_all():
    with pytest.raises(UserError, match=r"not a SAM2 checkpoint.*encoder, head"):
        recognise({"encoder.weight": (3,), "head.bias": (4,)})
