"""Runs a converted model and PyTorch sam2 side by side on one seeded image, step by step, and compares.

A Weibull head has no counterpart in PyTorch sam2: there SAM2's own mask head, from the same file if it is in it,
stands in on both sides, so that everything up to the head is compared. An evidential head contains SAM2's own, which
is compared; its convolution is not.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convert.checkpoint_files import import_torch
from convert.names import table, to_flax
from ruac_jax.errors import UserError
from ruac_jax.model import SAM2, Prompts
from ruac_jax.sam2.variants import variant
from ruac_jax.weights import ModelMetadata, abstract_model, leaves, with_leaves

CONFIGS = {
    "2.0": "configs/sam2/sam2_hiera_{}.yaml",
    "2.1": "configs/sam2.1/sam2.1_hiera_{}.yaml",
}
SIZES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}

EMBEDDING_BAR = 1e-5
LOGIT_BAR = 1e-4
IOU_BAR = 1e-5
SCORE_BAR = 1e-4  # a logit, like the masks'
SEED = 0


class Outputs(NamedTuple):
    """What both networks answer to one prompt, all four mask tokens: logits [4,h,w], IoU [4], object score."""

    logits: np.ndarray
    iou: np.ndarray
    score: np.ndarray


class Difference(NamedTuple):
    """One line of the comparison: a name, the largest difference found, the bar it has to stay under."""

    name: str
    value: float
    bar: float


class Comparison(NamedTuple):
    """The differences that have a bar, and how many of how many mask pixels differ."""

    differences: list[Difference]
    differing: int
    pixels: int


def verify_conversion(model: SAM2, metadata: ModelMetadata, tensors: Mapping[str, np.ndarray]) -> Comparison:
    """Compares a model with PyTorch sam2 holding the tensors it was converted from, and prints the differences.

    Args:
      model: the converted network.
      metadata: what it is.
      tensors: the checkpoint's tensors, in PyTorch's layout.

    Raises:
      UserError: torch or sam2 is missing, sam2 has no such size, or a difference is beyond its bar. Mask pixels have no
        bar of their own: within the logits' bar, only logits that are zero but for rounding change sides.
    """
    torch = import_torch("--verify")
    reference = _reference(torch, metadata, tensors)
    if metadata.head == "weibull":
        print("verify: PyTorch sam2 has no Weibull head; everything up to it is compared, through SAM2's own mask head")
        model = _with_hypernetwork(model, metadata, reference)
    comparison = compare(torch, reference, model, variant(metadata.variant).image_size)
    for name, value, bar in comparison.differences:
        print(f"verify: {name:46s} {value:.2e}  (bar {bar:.0e}){'' if value <= bar else '  BEYOND THE BAR'}")
    masks = f"{comparison.differing:,} of {comparison.pixels:,} pixels differ" if comparison.differing else "identical"
    print(f"verify: {'masks':46s} {masks}")
    # Turned around so that NaN counts as beyond.
    beyond = [difference for difference in comparison.differences if not difference.value <= difference.bar]
    if beyond:
        names = ", ".join(difference.name for difference in beyond)
        raise UserError(f"the converted model differs from PyTorch sam2 beyond the bars ({names}); nothing was written")
    return comparison


def compare(torch: Any, reference: Any, model: SAM2, size: int) -> Comparison:
    """Runs both on a seeded image of `size` pixels: two points, then a box, then the mask of the box fed back."""
    rng = np.random.default_rng(SEED)
    image = rng.standard_normal((1, size, size, 3), np.float32)
    points, labels = np.float32([[0.4, 0.45], [0.8, 0.2]]) * size, np.int32([1, 0])
    box, corners = np.float32([[0.25, 0.3], [0.7, 0.65]]) * size, np.int32([2, 3])

    with torch.inference_mode():
        theirs = _pytorch_features(torch, reference, image)
    graph, state = nnx.split(model)
    encode = jax.jit(lambda state, image: _encode(graph, state, image))
    decode = jax.jit(lambda state, features, prompts: _decode(graph, state, features, prompts))
    ours = encode(state, jnp.asarray(image))
    embedding = theirs[0].numpy().transpose(0, 2, 3, 1)
    deviation = np.sqrt(np.mean((np.asarray(ours.embedding) - embedding) ** 2) / np.mean(embedding**2))
    differences = [Difference("image embedding, relative RMS", float(deviation), EMBEDDING_BAR)]
    fed_back, differing, pixels = np.empty(0), 0, 0
    for name, where, kinds in (("points", points, labels), ("box", box, corners), ("mask fed back", points, labels)):
        has_mask = name == "mask fed back"
        mask = fed_back if has_mask else np.zeros((size // 4, size // 4), np.float32)
        with torch.inference_mode():
            expected = _pytorch_decode(torch, reference, theirs, where, kinds, mask if has_mask else None)
        prompts = Prompts(*(jnp.asarray(x)[None] for x in (where, kinds, mask, np.bool_(has_mask))))
        found = Outputs(*(np.asarray(x[0]) for x in decode(state, ours, prompts)))
        differences += _differences(name, found, expected)
        differing += int(np.sum((found.logits > 0) != (expected.logits > 0)))
        pixels += expected.logits.size
        fed_back = expected.logits[0]
    return Comparison(differences, differing, pixels)


def _differences(name: str, found: Outputs, expected: Outputs) -> list[Difference]:
    def largest(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.max(np.abs(a - b)))

    return [
        Difference(f"{name}: low-resolution logits", largest(found.logits, expected.logits), LOGIT_BAR),
        Difference(f"{name}: predicted IoU", largest(found.iou, expected.iou), IOU_BAR),
        Difference(f"{name}: object score", largest(found.score, expected.score), SCORE_BAR),
    ]


def _encode(graph: Any, state: Any, image: jax.Array) -> Any:
    model = nnx.merge(graph, state)
    return model.project(model.backbone(image))


def _decode(graph: Any, state: Any, features: Any, prompts: Prompts) -> Any:
    model = nnx.merge(graph, state)
    decoded = model.decode(features, prompts)
    return model.head(decoded).mean_logits(), decoded.iou, decoded.object_score


def _reference(torch: Any, metadata: ModelMetadata, tensors: Mapping[str, np.ndarray]) -> Any:
    if metadata.variant not in SIZES:
        raise UserError(f"--verify: PyTorch sam2 has no size {metadata.variant!r}")
    try:
        from sam2.build_sam import build_sam2
    except ImportError as error:
        raise UserError(
            f"--verify needs PyTorch sam2 and what it imports ({error}); docs/parity.md says how to install it"
        ) from error
    config = CONFIGS[metadata.sam2_version or "2.1"].format(SIZES[metadata.variant])
    reference = build_sam2(config, ckpt_path=None, device="cpu", apply_postprocessing=False)
    known = {name: torch.from_numpy(tensors[name].copy()) for name in reference.state_dict() if name in tensors}
    # Of the tensors compared, only the stand-in head may be missing; the conversion has checked all others.
    reference.load_state_dict(known, strict=False)
    return reference


def _with_hypernetwork(model: SAM2, metadata: ModelMetadata, reference: Any) -> SAM2:
    target = abstract_model(metadata.variant, "hypernetwork")
    entries = table({path: value.shape for path, value in leaves(target).items()})
    own = leaves(model)
    theirs = reference.state_dict()
    values = {
        found.path: own[found.path] if found.path in own else to_flax(theirs[name].numpy(), found)
        for name, found in entries.items()
    }
    return with_leaves(target, values)


def _pytorch_features(torch: Any, reference: Any, image: np.ndarray) -> tuple[Any, Any, Any]:
    levels = reference.forward_image(torch.from_numpy(image.transpose(0, 3, 1, 2).copy()))["backbone_fpn"]
    embedding = levels[2] + reference.no_mem_embed.reshape(1, -1, 1, 1)
    return embedding, levels[0], levels[1]


def _pytorch_decode(
    torch: Any, reference: Any, features: Any, points: np.ndarray, labels: np.ndarray, mask: np.ndarray | None
) -> Outputs:
    embedding, high_res_s0, high_res_s1 = features
    encoder = reference.sam_prompt_encoder
    sparse, dense = encoder(
        points=(torch.from_numpy(points)[None], torch.from_numpy(labels)[None]),
        boxes=None,
        masks=None if mask is None else torch.from_numpy(mask)[None, None],
    )
    logits, iou, _, score = reference.sam_mask_decoder.predict_masks(
        image_embeddings=embedding,
        image_pe=encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=[high_res_s0, high_res_s1],
    )
    return Outputs(logits[0].numpy(), iou[0].numpy(), score[0, 0].numpy())
