"""Random weights far from any initialisation, a pure function of seed and tensor name; no torch in here."""

import re
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convert.names import table, to_flax
from ruac_jax.heads.hypernetwork import HypernetworkHead
from ruac_jax.model import SAM2
from ruac_jax.sam2.variants import Variant

# Small, and yet with everything the real sizes have: four stages, a global block, windows that do not divide the map.
REDUCED = Variant(
    "reduced",
    embed_dim=16,
    num_heads=1,
    stages=(1, 2, 3, 1),
    global_att_blocks=(4,),
    window_pos_embed_bkg_spatial_size=(5, 5),
    window_spec=(8, 4, 6, 3),
    image_size=128,
    d_model=64,
    memory_dim=32,
)


_UNIT_NORMAL = (
    r"(gaussian_matrix|no_mem_embed|"
    r"(point_embeddings\.\d|not_a_point_embed|no_mask_embed|iou_token|obj_score_token|mask_tokens)\.weight)$"
)


def random_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A tensor in PyTorch's layout by its PyTorch name; nothing is zero, one or 1e-6, as initialisation has it."""
    noise = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape).astype(np.float32)
    if re.search(_UNIT_NORMAL, name):
        return noise
    if "pos_embed" in name or name.endswith(".gamma"):
        return np.float32(0.5) * noise
    if len(shape) == 1:
        return (1 if name.endswith(".weight") else 0) + np.float32(0.2) * noise
    fan_in = shape[0] if "output_upscaling" in name else int(np.prod(shape[1:]))
    return noise / np.float32(np.sqrt(fan_in))


def abstract_model(variant: Variant) -> SAM2:
    """The network with SAM2's own head, shapes only."""
    return nnx.eval_shape(
        lambda: SAM2(
            variant,
            HypernetworkHead(variant.d_model, variant.num_mask_tokens, rngs=nnx.Rngs(0)),
            rngs=nnx.Rngs(0),
        )
    )


def jax_model(variant: Variant, tensors: Mapping[str, np.ndarray] | None = None, seed: int = 0) -> SAM2:
    """The network with the given tensors (PyTorch names), or with random ones."""
    graphdef, state = nnx.split(abstract_model(variant))
    flat = dict(nnx.to_flat_state(state))
    for name, found in table({path: leaf.shape for path, leaf in flat.items()}).items():
        tensor = random_tensor(name, found.torch_shape, seed) if tensors is None else tensors[name]
        leaf = flat[found.path]
        flat[found.path] = leaf.replace(jnp.asarray(to_flax(tensor, found)))
    return nnx.merge(graphdef, nnx.from_flat_state(flat))


def cast(model: SAM2, dtype: jnp.dtype) -> SAM2:
    """A copy with all parameters in `dtype` but the head's, which computes in float32, and the Fourier matrix."""
    graphdef, head, params, rest = nnx.split(model, nnx.PathContains("head"), nnx.Param, ...)
    return nnx.merge(graphdef, head, jax.tree.map(lambda a: a.astype(dtype), params), rest)
