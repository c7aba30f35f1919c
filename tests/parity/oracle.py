"""PyTorch's sam2, set up to be compared with: built by its own code, filled with the same random tensors."""

from typing import NamedTuple

import jax
import numpy as np
import torch
from flax import nnx
from sam2.build_sam import build_sam2
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam2_base import SAM2Base

from ruac_jax.model import SAM2, ImageFeatures, Prompts, stable_token, suppress_absent
from ruac_jax.sam2.prompt_encoder import ABSENT
from ruac_jax.sam2.variants import Variant
from tests.parity.weights import random_tensor

CONFIGS = {
    "tiny": "sam2.1_hiera_t",
    "small": "sam2.1_hiera_s",
    "base_plus": "sam2.1_hiera_b+",
    "large": "sam2.1_hiera_l",
}

torch.set_num_threads(2)


def torch_model(variant: Variant, seed: int = 0) -> SAM2Base:
    """SAM2 from its own configuration file, or, for other variants, from its constructors; random tensors."""
    if variant.name in CONFIGS:
        model = build_sam2(f"configs/sam2.1/{CONFIGS[variant.name]}.yaml", ckpt_path=None, device="cpu")
    else:
        model = _assemble(variant)
    state = {
        name: torch.from_numpy(random_tensor(name, tuple(t.shape), seed)) for name, t in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model.eval()


def _assemble(v: Variant) -> SAM2Base:
    sine = PositionEmbeddingSine(num_pos_feats=v.d_model)
    trunk = Hiera(
        embed_dim=v.embed_dim,
        num_heads=v.num_heads,
        stages=v.stages,
        global_att_blocks=v.global_att_blocks,
        window_pos_embed_bkg_spatial_size=v.window_pos_embed_bkg_spatial_size,
        window_spec=v.window_spec,
    )
    neck = FpnNeck(
        sine, v.d_model, list(reversed(v.stage_dims)), fpn_top_down_levels=[2, 3], fpn_interp_model="nearest"
    )
    downsampler = MaskDownSampler(v.d_model, kernel_size=3, stride=2, padding=1)
    fuser = Fuser(CXBlock(v.d_model), num_layers=v.memory_fuser_layers)
    memory = MemoryEncoder(v.memory_dim, downsampler, fuser, sine, in_dim=v.d_model)
    attention = torch.nn.Identity()
    attention.d_model = v.d_model
    return SAM2Base(
        ImageEncoder(trunk, neck, scalp=1),
        attention,
        memory,
        image_size=v.image_size,
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_obj_ptrs_in_encoder=True,
        use_multimask_token_for_obj_ptr=True,
        sam_mask_decoder_extra_args={"dynamic_multimask_via_stability": True},
    )


class Features(NamedTuple):
    """Image features, channels last, numpy."""

    embedding: np.ndarray
    high_res_s0: np.ndarray
    high_res_s1: np.ndarray


class Output(NamedTuple):
    """What both networks say about `n` prompts: low-resolution logits, -1024 where the object score is negative."""

    raw: np.ndarray  # [n, 4, h, w], whatever the score
    several: np.ndarray  # [n, 3, h, w]
    several_iou: np.ndarray  # [n, 3]
    single: np.ndarray  # [n, h, w]
    single_iou: np.ndarray  # [n]
    object_score: np.ndarray  # [n]


def channels_last(t: torch.Tensor) -> np.ndarray:
    """[b, c, h, w] to [b, h, w, c]."""
    return t.detach().permute(0, 2, 3, 1).contiguous().numpy()


def channels_first(a: np.ndarray) -> torch.Tensor:
    """[b, h, w, c] to [b, c, h, w]."""
    return torch.from_numpy(np.ascontiguousarray(np.asarray(a).transpose(0, 3, 1, 2)))


@torch.no_grad()
def torch_encode(model: SAM2Base, image: np.ndarray) -> Features:
    """Image [b, h, w, 3] to what the decoder reads."""
    levels = model.forward_image(channels_first(image))["backbone_fpn"]
    embedding = levels[2] + model.no_mem_embed.reshape(1, -1, 1, 1)
    return Features(channels_last(embedding), channels_last(levels[0]), channels_last(levels[1]))


@torch.no_grad()
def torch_decode(model: SAM2Base, features: Features, prompts: Prompts, rows: np.ndarray) -> Output:
    """Decodes prompt by prompt, so that absent slots and missing masks can simply be left out."""
    outputs = []
    decoder, seen = model.sam_mask_decoder, []
    decoder.predict_masks = lambda **kw: seen.append(type(decoder).predict_masks(decoder, **kw)) or seen[-1]
    for i, row in enumerate(rows):
        keep = prompts.labels[i] != ABSENT
        points = {
            "point_coords": torch.from_numpy(prompts.points[i : i + 1, keep]),
            "point_labels": torch.from_numpy(prompts.labels[i : i + 1, keep]),
        }
        mask = torch.from_numpy(prompts.mask[i : i + 1, None]) if prompts.has_mask[i] else None
        embedding, s0, s1 = (channels_first(level[row : row + 1]) for level in features)
        arguments = (embedding, points, mask, [s0, s1])
        several, _, several_iou, *_, score = model._forward_sam_heads(*arguments, multimask_output=True)
        single, _, single_iou, *_ = model._forward_sam_heads(*arguments, multimask_output=False)
        outputs.append((seen[-1][0][0], several[0], several_iou[0], single[0, 0], single_iou[0, 0], score[0, 0]))
    del decoder.predict_masks
    return Output(*(torch.stack(part).numpy() for part in zip(*outputs, strict=True)))


def jax_encode(model: SAM2, image: np.ndarray) -> Features:
    """The same with our network, compiled."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state, image):
        network = nnx.merge(graphdef, state)
        return network.project(network.backbone(image))

    return Features(*(np.asarray(level) for level in run(state, image)))


def jax_decode(model: SAM2, features: Features, prompts: Prompts, rows: np.ndarray) -> Output:
    """The same with our network, compiled; all prompts at once."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state, features, prompts):
        network = nnx.merge(graphdef, state)
        decoded = network.decode(features, prompts)
        logits = network.head(decoded).mean_logits()
        token = stable_token(logits, decoded.iou)
        return logits, token, suppress_absent(logits, decoded.object_score), decoded

    prompts = Prompts(*(jax.numpy.asarray(part) for part in prompts))
    rows_of = ImageFeatures(*(level[rows] for level in features))
    raw, token, logits, decoded = jax.tree.map(np.asarray, run(state, rows_of, prompts))
    each = np.arange(len(rows))
    return Output(
        raw, logits[:, 1:], decoded.iou[:, 1:], logits[each, token], decoded.iou[each, token], decoded.object_score
    )


def relative_rms(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Root mean square of the difference over that of the reference."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return float(np.sqrt(np.mean((ours - theirs) ** 2) / np.mean(theirs**2)))
