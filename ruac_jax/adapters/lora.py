"""LoRA (Hu et al., 2022) in the image encoder: low-rank updates of every block's `qkv` and `proj` layers.

For SAM2-FT-LoRA: rank 4, alpha 16, dropout 0.1 on the update's input. An adapted layer computes
W x + b + alpha / rank * B A drop(x); `merge_lora` makes a plain layer of it again, which is what is saved and exported.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from ruac_jax.model import SAM2
from ruac_jax.sam2.hiera import MultiScaleAttention
from ruac_jax.sam2.layers import Linear

ALPHA = 16.0
DROPOUT = 0.1
_LAYERS = ("qkv", "proj")


class LoRAParam(nnx.Param):
    """A parameter of an adapter, whatever module it sits in."""


class LoRALinear(nnx.Module):
    """A linear layer with a low-rank update.

    Attributes:
      base: the layer itself.
      a: [inputs, rank], normal with deviation inputs^(-1/2).
      b: [rank, outputs], zeros, so that a fresh update changes nothing.
      scaling: alpha / rank.
      rate: share of the update's input that is dropped where there is a key.
      key: randomness of the dropout; None: none is dropped. Set by `set_dropout_key`.
    """

    def __init__(self, base: Linear, rank: int, alpha: float, dropout: float, *, rngs: nnx.Rngs):
        inputs, outputs = base.kernel.shape
        self.base = base
        self.a = LoRAParam(jax.random.normal(rngs.params(), (inputs, rank)) * inputs**-0.5)
        self.b = LoRAParam(jnp.zeros((rank, outputs)))
        self.scaling = alpha / rank
        self.rate = dropout
        self.key = nnx.data(None)

    def __call__(self, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        """Maps the last axis."""
        rows = x.reshape(-1, x.shape[-1])
        if self.key is not None:
            kept = jax.random.bernoulli(self.key, 1 - self.rate, rows.shape)
            rows = jnp.where(kept, rows / (1 - self.rate), jnp.zeros((), rows.dtype))
        update = (rows @ self.a[...]) @ self.b[...] * self.scaling
        return self.base(x) + update.reshape(*x.shape[:-1], update.shape[-1])


def add_lora(model: SAM2, rank: int, alpha: float = ALPHA, dropout: float = DROPOUT, *, rngs: nnx.Rngs) -> SAM2:
    """Wraps the `qkv` and `proj` layers of every encoder block, in place; the network computes what it did before."""
    for attention in _attentions(model):
        for name in _LAYERS:
            setattr(attention, name, LoRALinear(getattr(attention, name), rank, alpha, dropout, rngs=rngs))
    return model


def merge_lora(model: SAM2) -> SAM2:
    """Puts plain layers W + alpha / rank * A B (float32, [inputs, outputs]) back, in place; none there: as it is."""
    for attention in _attentions(model):
        for name in _LAYERS:
            layer = getattr(attention, name)
            if isinstance(layer, LoRALinear):
                w, a, b = (np.asarray(p[...], np.float32) for p in (layer.base.kernel, layer.a, layer.b))
                layer.base.kernel[...] = jnp.asarray(w + np.float32(layer.scaling) * (a @ b))
                setattr(attention, name, layer.base)
    return model


def set_dropout_key(model: SAM2, key: PRNGKeyArray | None) -> None:
    """Turns dropout on, each adapter with a key of its own, or off (None); without adapters it does nothing.

    To be called inside a trace, on the merged model: the key is no part of the model's state.
    """
    for position, layer in enumerate(_adapters(model)):
        layer.key = None if key is None else jax.random.fold_in(key, position)


def _attentions(model: SAM2) -> Iterator[MultiScaleAttention]:
    yield from (block.attn for block in model.image_encoder.trunk.blocks)


def _adapters(model: SAM2) -> Iterator[LoRALinear]:
    layers = (getattr(attention, name) for attention in _attentions(model) for name in _LAYERS)
    yield from (layer for layer in layers if isinstance(layer, LoRALinear))
