import numpy as np
import pytest

from convert.carried import CARRIED, carried_shapes, reason, sam2_version
from convert.names import entry, table, to_flax, to_torch
from ruac_jax.sam2.variants import variant


@pytest.mark.parametrize("size", ["tiny", "small", "base_plus", "large"])
def test_every_official_tensor_is_converted_or_carried_and_nothing_is_invented(size, manifests, entries):
    manifest, converted = manifests[size], entries(size, "hypernetwork")
    shape = variant(size)
    carried = carried_shapes("2.1", shape.d_model, shape.memory_dim)
    assert converted.keys().isdisjoint(carried)
    assert {name: found.torch_shape for name, found in converted.items()} | carried == manifest


def test_manifest_holds_as_many_values_as_the_networks_are_known_for(manifests):
    values = {size: sum(np.prod(shape, dtype=int) for shape in manifests[size].values()) for size in manifests}
    assert values["tiny"] == 38_962_754
    assert values["base_plus"] == 80_850_434
    assert round(values["small"] / 1e6) == 46
    assert round(values["large"] / 1e6, 1) == 224.4


def test_carried_tensors_all_have_a_reason(manifests):
    for name in carried_shapes("2.1", 256, 64):
        assert reason(name, CARRIED)
    assert not reason("sam_mask_decoder.iou_token.weight", CARRIED)


def test_versions_are_told_apart(manifests):
    names = set(manifests["tiny"])
    older = {name for name in names if not name.startswith(("no_obj_embed_spatial", "obj_ptr_tpos_proj."))}
    assert sam2_version(names) == "2.1"
    assert sam2_version(older) == "2.0"
    assert carried_shapes("2.0", 256, 64).keys() == {name for name in older if reason(name, CARRIED)}
    assert sam2_version({name for name in names if not reason(name, CARRIED)}) is None


def test_linear_kernel_is_transposed(rng):
    weight, x = rng.standard_normal((5, 3)), rng.standard_normal((2, 3))
    found = entry(("memory_encoder", "fuser", "layers", 0, "pwconv1", "kernel"), (3, 5))
    assert found.torch_name == "memory_encoder.fuser.layers.0.pwconv1.weight"
    np.testing.assert_array_equal(x @ to_flax(weight, found), x @ weight.T)


def test_convolution_kernel_keeps_its_orientation(rng):
    weight = rng.standard_normal((5, 3, 2, 4))  # out, in, height, width
    found = entry(("image_encoder", "trunk", "patch_embed", "proj", "kernel"), (2, 4, 3, 5))
    kernel = to_flax(weight, found)
    assert all(kernel[y, x, i, o] == weight[o, i, y, x] for y, x, i, o in np.ndindex(2, 4, 3, 5))


def test_depthwise_kernel(rng):
    weight = rng.standard_normal((6, 1, 7, 7))
    found = entry(("memory_encoder", "fuser", "layers", 1, "dwconv", "kernel"), (7, 7, 1, 6))
    assert found.torch_shape == weight.shape
    kernel = to_flax(weight, found)
    assert all(kernel[y, x, 0, c] == weight[c, 0, y, x] for y, x, c in np.ndindex(7, 7, 6))


def test_transposed_convolution_kernel_has_its_inputs_first_in_pytorch(rng):
    weight = rng.standard_normal((5, 3, 2, 2))  # in, out, height, width
    found = entry(("sam_mask_decoder", "output_upscaling", 3, "kernel"), (2, 2, 5, 3))
    assert found.torch_name == "sam_mask_decoder.output_upscaling.3.weight"
    kernel = to_flax(weight, found)
    assert all(kernel[y, x, i, o] == weight[i, o, y, x] for y, x, i, o in np.ndindex(2, 2, 5, 3))


def test_position_map_has_its_channels_last(rng):
    map_ = rng.standard_normal((1, 6, 3, 4))
    found = entry(("image_encoder", "trunk", "pos_embed"), (1, 3, 4, 6))
    assert found.torch_name == "image_encoder.trunk.pos_embed"
    np.testing.assert_array_equal(to_flax(map_, found)[0, 2, 1], map_[0, :, 2, 1])


def test_weibull_head_goes_where_the_published_one_is():
    found = entry(("head", "pixel_mlp", "layers", 0, "kernel"), (32, 64))
    assert (found.torch_name, found.torch_shape) == (
        "sam_mask_decoder.pixel_bndl.pixel_mlp.layers.0.weight",
        (64, 32),
    )


def test_evidential_head_stands_beside_sam2_s_own():
    found = entry(("head", "ur_ern_head", "kernel"), (1, 1, 32, 4))
    assert (found.torch_name, found.torch_shape) == ("sam_mask_decoder.ur_ern_head.weight", (4, 32, 1, 1))
    found = entry(("head", "output_hypernetworks_mlps", 2, "layers", 0, "bias"), (256,))
    assert found.torch_name == "sam_mask_decoder.output_hypernetworks_mlps.2.layers.0.bias"


@pytest.mark.parametrize("head", ["hypernetwork", "weibull", "evidential"])
def test_there_and_back_is_the_identity_for_every_leaf(head, entries, rng):
    for found in entries("nano", head).values():
        array = rng.standard_normal(found.torch_shape, np.float32)
        ours = to_flax(array, found)
        assert ours.shape == found.shape
        np.testing.assert_array_equal(to_torch(ours, found), array)


def test_two_leaves_of_one_name_are_an_error():
    with pytest.raises(ValueError, match=r"norm\.scale and norm\.kernel are both norm\.weight"):
        table({("norm", "kernel"): (3, 3), ("norm", "scale"): (3,)})
