"""The network against PyTorch's sam2 in float32: modules alone, then image to masks, on weights far from initial ones.

Tolerances: 1e-5 (relative RMS) on feature maps, 1e-4 (absolute) on logits of size ten, 1e-5 on the predicted IoU;
masks are equal up to one pixel in a million.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from ruac_jax.model import Prompts
from ruac_jax.sam2.hiera import window_partition, window_unpartition
from ruac_jax.sam2.variants import variant
from tests.parity import measure, oracle, scenes
from tests.parity.weights import REDUCED, jax_model

SIZE, GRID = REDUCED.image_size, REDUCED.image_size // 16


@functools.cache
def both(seed=0):
    return oracle.torch_model(REDUCED, seed), jax_model(REDUCED, seed=seed)


def walk(root, path):
    for part in path.split("."):
        root = root[int(part)] if part.isdigit() else getattr(root, part)
    return root


def close(ours, theirs, tolerance=1e-5):
    assert oracle.relative_rms(ours, theirs) <= tolerance


def test_no_parameter_is_left_as_initialised():
    from sam2.modeling.sam2_base import SAM2Base

    reference, _ = both()
    assert isinstance(reference, SAM2Base)
    for name, tensor in reference.named_parameters():
        if tensor.numel() > 1:
            assert tensor.std() > 0.02, name


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("image_encoder.trunk.patch_embed", (2, 64, 96, 3)),
        ("sam_prompt_encoder.mask_downscaling", (3, 32, 32, 1)),
        ("sam_mask_decoder.output_upscaling", (2, 8, 6, 64)),
        ("memory_encoder.mask_downsampler", (2, 64, 96, 1)),
        ("memory_encoder.fuser", (2, 8, 10, 64)),
        ("memory_encoder.fuser.layers.0.dwconv", (2, 9, 11, 64)),
        ("memory_encoder.fuser.layers.1.norm", (2, 4, 4, 64)),
        ("memory_encoder.pix_feat_proj", (2, 4, 4, 64)),
    ],
)
def test_convolutional_module(path, shape, rng):
    theirs, ours = (walk(model, path) for model in both())
    x = rng.standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        expected = theirs(oracle.channels_first(x))
    # The patch embedding already answers channels-last.
    expected = expected.numpy() if path.endswith("patch_embed") else oracle.channels_last(expected)
    y = jnp.asarray(x)
    for layer in ours if isinstance(ours, nnx.List) else [ours]:
        y = layer(y)
    close(y, expected)


@pytest.mark.parametrize("path", ["iou_prediction_head", "pred_obj_score_head", "output_hypernetworks_mlps.2"])
def test_mlp(path, rng):
    reference, model = both()
    ours = walk(model.head if "hyper" in path else model.sam_mask_decoder, path)
    x = rng.standard_normal((5, REDUCED.d_model)).astype(np.float32)
    with torch.no_grad():
        close(ours(jnp.asarray(x)), walk(reference.sam_mask_decoder, path)(torch.from_numpy(x)).numpy())


# Maps that the block's window divides, and maps that it does not.
@pytest.mark.parametrize("size", [(16, 16), (20, 12)])
@pytest.mark.parametrize("index", range(sum(REDUCED.stages)))
def test_block(index, size, rng):
    theirs, ours = (walk(model, f"image_encoder.trunk.blocks.{index}") for model in both())
    x = rng.standard_normal((2, *size, ours.norm1.scale.shape[0])).astype(np.float32)
    with torch.no_grad():
        close(jax.jit(ours)(jnp.asarray(x)), theirs(torch.from_numpy(x)).numpy())


@pytest.mark.parametrize(("size", "window"), [((8, 8), 4), ((9, 14), 4), ((3, 5), 7)])
def test_windows(size, window, rng):
    from sam2.modeling.backbones.utils import window_partition as reference

    x = rng.standard_normal((2, *size, 3)).astype(np.float32)
    windows = window_partition(jnp.asarray(x), window)
    np.testing.assert_array_equal(windows, reference(torch.from_numpy(x), window)[0].numpy())
    np.testing.assert_array_equal(window_unpartition(windows, *size), x)


@pytest.mark.parametrize("size", [(32, 32), (8, 24), (64, 16)])
def test_position_embedding_of_trunk(size):
    theirs, ours = (model.image_encoder.trunk for model in both())
    with torch.no_grad():
        close(ours.position_embedding(*size), theirs._get_pos_embed(size).numpy(), 1e-6)


@pytest.mark.parametrize("size", [(128, 128), (96, 160)])
def test_image_encoder(size):
    theirs, ours = (model.image_encoder for model in both())
    image = scenes.images(max(size), 2)[:, : size[0], : size[1]]
    with torch.no_grad():
        trunk = theirs.trunk(oracle.channels_first(image))
        fpn = theirs(oracle.channels_first(image))["backbone_fpn"]
    for level, expected in zip(jax.jit(ours.trunk)(jnp.asarray(image)), trunk, strict=True):
        close(level, oracle.channels_last(expected))
    for level, expected in zip(jax.jit(ours)(jnp.asarray(image)), fpn, strict=True):
        close(level, oracle.channels_last(expected))


def test_dense_position():
    theirs, ours = (model.sam_prompt_encoder for model in both())
    expected = oracle.channels_last(theirs.get_dense_pe())[0]
    np.testing.assert_allclose(ours.dense_position(GRID, GRID), expected, atol=1e-5)


def test_points(rng):
    theirs, ours = (model.sam_prompt_encoder for model in both())
    points = rng.uniform(-1, SIZE, (4, 6, 2)).astype(np.float32)
    labels = np.stack([rng.permutation([-1, 0, 1, 2, 3, 1]) for _ in range(4)]).astype(np.int32)
    tokens, visible = ours.embed_points(jnp.asarray(points), jnp.asarray(labels), (GRID, GRID))
    with torch.no_grad():
        expected, _ = theirs((torch.from_numpy(points), torch.from_numpy(labels)), None, None)
    np.testing.assert_allclose(tokens, expected.numpy(), atol=1e-5)
    assert visible.all()


def test_boxes(rng):
    """SAM2's `boxes=` argument gives the tokens of our corner labels; it only leaves out the padding point."""
    theirs, ours = (model.sam_prompt_encoder for model in both())
    corners = rng.uniform(0, SIZE, (3, 2, 2)).astype(np.float32)
    labels = jnp.tile(jnp.array([[2, 3]]), (3, 1))
    tokens, _ = ours.embed_points(jnp.asarray(corners), labels, (GRID, GRID))
    with torch.no_grad():
        expected, _ = theirs(None, torch.from_numpy(corners.reshape(3, 4)), None)
    np.testing.assert_allclose(tokens[:, :2], expected.numpy(), atol=1e-5)
    padding = theirs.not_a_point_embed.weight.detach().numpy()
    np.testing.assert_array_equal(tokens[:, 2], np.repeat(padding, 3, axis=0))


def test_masks(rng):
    theirs, ours = (model.sam_prompt_encoder for model in both())
    mask = (8 * rng.standard_normal((2, 4 * GRID, 4 * GRID))).astype(np.float32)
    dense = ours.embed_mask(jnp.asarray(mask), jnp.array([True, False]))
    with torch.no_grad():
        _, given = theirs(None, None, torch.from_numpy(mask[:1, None]))
        _, none = theirs(None, None, None)
    close(dense[:1], oracle.channels_last(given))
    np.testing.assert_array_equal(dense[1:], oracle.channels_last(none))


def test_transformer(rng):
    theirs, ours = (model.sam_mask_decoder.transformer for model in both())
    d = REDUCED.d_model
    image, position = (rng.standard_normal((b, 5, 7, d)).astype(np.float32) for b in (2, 1))
    tokens = rng.standard_normal((2, 9, d)).astype(np.float32)
    with torch.no_grad():
        spread = oracle.channels_first(position).repeat(2, 1, 1, 1)
        queries, keys = theirs(oracle.channels_first(image), spread, torch.from_numpy(tokens))
    visible = jnp.ones((2, 9), bool)
    got = ours(jnp.asarray(image), jnp.asarray(position[0]), jnp.asarray(tokens), visible)
    close(got[0], queries.numpy())
    close(got[1].reshape(2, 35, d), keys.numpy())


def test_memory_encoder(rng):
    theirs, ours = (model.memory_encoder for model in both())
    features = rng.standard_normal((2, GRID, GRID, REDUCED.d_model)).astype(np.float32)
    mask = np.where(rng.random((2, SIZE, SIZE)) > 0.5, 10, -10).astype(np.float32)
    fused = ours.fuse(jnp.asarray(features), jnp.asarray(mask))
    with torch.no_grad():
        x = theirs.pix_feat_proj(oracle.channels_first(features)) + theirs.mask_downsampler(
            torch.from_numpy(mask[:, None])
        )
        close(fused, oracle.channels_last(theirs.fuser(x)))
        whole = theirs(oracle.channels_first(features), torch.from_numpy(mask[:, None]), skip_mask_sigmoid=True)
    close(ours(jnp.asarray(features), jnp.asarray(mask)), oracle.channels_last(whole["vision_features"]))


def meets_the_bar(deviation):
    assert deviation.embedding <= 1e-5
    assert deviation.high_res <= 1e-5
    assert deviation.logits <= 1e-4
    assert deviation.iou <= 1e-5
    assert deviation.object_score <= 1e-4
    # Of millions of pixels of random masks a few lie within rounding of zero.
    assert deviation.pixels_flipped <= 1e-6 * deviation.pixels
    assert deviation.largest_logit > 1


@pytest.mark.parametrize("seed", range(2))
def test_image_to_masks(seed):
    meets_the_bar(measure.compare(REDUCED, seed))


def test_single_mask_and_absent_objects():
    """Token choice, suppression and two images at once, with both outcomes of either decision."""
    reference = oracle.torch_model(REDUCED, 3)
    image = scenes.images(SIZE, 2, seed=3)
    pairs = zip(scenes.prompts(SIZE, 3), scenes.prompts(SIZE, 4), strict=True)
    prompts = Prompts(*(np.concatenate(pair) for pair in pairs))
    rows = np.arange(len(prompts.labels)) % 2
    features = oracle.torch_encode(reference, image)
    scores = oracle.torch_decode(reference, features, prompts, rows).object_score
    with torch.no_grad():
        reference.sam_mask_decoder.pred_obj_score_head.layers[2].bias -= float(np.median(scores))
        # Steeper logits: some masks become stable.
        for parameter in reference.sam_mask_decoder.output_hypernetworks_mlps[0].layers[2].parameters():
            parameter *= 4
    model = jax_model(REDUCED, {name: tensor.numpy() for name, tensor in reference.state_dict().items()})

    theirs = oracle.torch_decode(reference, features, prompts, rows)
    ours = oracle.jax_decode(model, features, prompts, rows)
    for name in oracle.Output._fields:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-4, err_msg=name)
    for outcome in (theirs.object_score > 0, (theirs.single_iou[:, None] == theirs.several_iou).any(axis=1)):
        assert 0 < outcome.sum() < len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "base_plus"])
def test_image_to_masks_at_full_size(name):
    meets_the_bar(measure.compare(variant(name)))
