"""Building blocks shared by the network's modules.

Every block computes in the dtype of its inputs and parameters (which must agree); norm and softmax statistics
and GELU are float32 throughout. Parameter names follow one rule against SAM2's: `weight` is `kernel` (Linear,
convolutions), `scale` (norms) or `embedding` (embeddings).
"""

import itertools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ruac_jax.sam2.backend import target_backend
from ruac_jax.sam2.initializers import lecun_normal

Activation = Callable[[jax.Array], jax.Array]

_kernel_init = lecun_normal()
_zeros = nnx.initializers.zeros_init()

# Above this many queries and keys attention is worth a form that never holds all scores at once.
_LONG = 1024
_QUERY_CHUNK = 256


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Exact (erf) GELU, as torch's default."""
    x32 = x.astype(jnp.float32)
    return (0.5 * x32 * (1.0 + jax.lax.erf(x32 * math.sqrt(0.5)))).astype(x.dtype)


class Linear(nnx.Linear):
    """`nnx.Linear` with weights drawn on the host, computed with all axes but the last made one.

    XLA's CPU compiler would otherwise transpose the activations in memory for the gradient of the kernel, which
    takes several times as long as the product itself.
    """

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        super().__init__(in_features, out_features, kernel_init=_kernel_init, rngs=rngs)

    def __call__(self, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        """Maps the last axis."""
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], self.out_features)


class LayerNorm(nnx.Module):
    """Normalisation over the last axis: torch's LayerNorm (epsilon 1e-5) and SAM2's LayerNorm2d (1e-6)."""

    def __init__(self, features: int, epsilon: float = 1e-6, *, rngs: nnx.Rngs):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones((features,)))
        self.bias = nnx.Param(jnp.zeros((features,)))

    def __call__(self, x: Float[Array, "*s c"]) -> Float[Array, "*s c"]:
        """Statistics in float32, result in the dtype of `x`."""
        shape = (1,) * (x.ndim - 1) + (x.shape[-1],)
        x32 = x.astype(jnp.float32)
        centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + self.epsilon)
        scale = self.scale[...].astype(jnp.float32).reshape(shape)
        bias = self.bias[...].astype(jnp.float32).reshape(shape)
        return (centred * inverse * scale + bias).astype(x.dtype)


class MLP(nnx.Module):
    """`num_layers` linear layers with an activation between them and, on request, a sigmoid at the end."""

    def __init__(
        self,
        in_features: int,
        hidden: int,
        out_features: int,
        num_layers: int,
        *,
        activation: Activation = jax.nn.relu,
        sigmoid_output: bool = False,
        rngs: nnx.Rngs,
    ):
        sizes = [in_features] + [hidden] * (num_layers - 1) + [out_features]
        self.layers = nnx.List([Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(sizes)])
        self.activation = activation
        self.sigmoid_output = sigmoid_output

    def __call__(self, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        """Maps the last axis."""
        for i, layer in enumerate(self.layers):
            x = layer(x) if i == 0 else layer(self.activation(x))
        return jax.nn.sigmoid(x) if self.sigmoid_output else x


class Conv(nnx.Module):
    """Square convolution with `kernel` [k, k, in, out] and `bias`, symmetric zero padding."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        rngs: nnx.Rngs,
    ):
        self.stride = stride
        self.padding = padding
        self.kernel = nnx.Param(_kernel_init(rngs.params(), (size, size, in_features, out_features)))
        self.bias = nnx.Param(_zeros(rngs.params(), (out_features,)))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b newh neww o"]:
        """Applies the convolution; kernels that tile the image are one matrix product."""
        kernel = self.kernel[...]
        size = kernel.shape[0]
        if size == self.stride and self.padding == 0:
            b, h, w, c = x.shape
            tiles = x.reshape(b, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
            y = tiles.reshape(-1, size * size * c) @ kernel.reshape(size * size * c, -1)
            y = y.reshape(b, h // size, w // size, -1)
        elif self.stride == 1 and target_backend() == "cpu":
            # Within a loop (the clicks of a training step) XLA's own is eight times slower here than these products.
            h, w = (side + 2 * self.padding - size + 1 for side in x.shape[1:3])
            shifts = _shifts(x, size, self.padding, h, w)
            y = sum(shifted.reshape(-1, x.shape[-1]) @ kernel[i, j] for i, j, shifted in shifts)
            y = y.reshape(x.shape[0], h, w, -1)
        else:
            y = jax.lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(self.stride, self.stride),
                padding=((self.padding, self.padding),) * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return y + self.bias[...][None, None, None, :]


class DepthwiseConv(nnx.Module):
    """Per-channel convolution of stride 1 that keeps the size; `kernel` [k, k, 1, c], k odd, and `bias`."""

    def __init__(self, features: int, size: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(_kernel_init(rngs.params(), (size, size, 1, features)))
        self.bias = nnx.Param(_zeros(rngs.params(), (features,)))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Zero padding of k // 2."""
        kernel = self.kernel[...]
        size, (_, h, w, c) = kernel.shape[0], x.shape
        pad = size // 2
        if target_backend() == "cpu":
            # XLA's grouped convolution is twenty times slower here than the sum it stands for.
            y = sum(shifted * kernel[i, j, 0][None, None, None, :] for i, j, shifted in _shifts(x, size, pad, h, w))
        else:
            y = jax.lax.conv_general_dilated(
                x,
                kernel,
                (1, 1),
                ((pad, pad),) * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=c,
            )
        return y + self.bias[...][None, None, None, :]


def _shifts(
    x: Float[Array, "b _ _ c"], size: int, padding: int, height: int, width: int
) -> Iterator[tuple[int, int, Float[Array, "b {height} {width} c"]]]:
    """What each entry (i, j) of a kernel of side `size` sees of the zero-padded input."""
    padded = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    for i in range(size):
        for j in range(size):
            yield i, j, padded[:, i : i + height, j : j + width, :]


class ConvTranspose2x2(nnx.Module):
    """Transposed convolution that makes a 2x2 tile of every pixel; `kernel` [2, 2, in, out] and `bias`."""

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(_kernel_init(rngs.params(), (2, 2, in_features, out_features)) * 2.0)
        self.bias = nnx.Param(_zeros(rngs.params(), (out_features,)))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b 2*h 2*w o"]:
        """One matrix product and a pixel shuffle."""
        b, h, w, c = x.shape
        kernel = self.kernel[...]
        out = kernel.shape[-1]
        tiles = x.reshape(-1, c) @ kernel.transpose(2, 0, 1, 3).reshape(c, 4 * out)
        tiles = tiles.reshape(b, h, w, 2, 2, out)
        y = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, out)
        return y + self.bias[...][None, None, None, :]


def attention(
    q: Float[Array, "b n q d"],
    k: Float[Array, "b n k d"],
    v: Float[Array, "b n k d"],
    mask: Bool[Array, "b k"] | None = None,
) -> Float[Array, "b n q d"]:
    """Scaled dot-product attention over `n` heads; keys where `mask` is False get exactly no weight.

    Long unmasked attention (SAM2's global blocks) takes cuDNN's kernel on a GPU in bfloat16 and chunks of
    queries on a CPU; the result differs from the plain form by rounding only.
    """
    if mask is None and q.shape[2] >= _LONG and k.shape[2] >= _LONG:
        backend = target_backend()
        if backend == "gpu" and q.dtype == jnp.bfloat16 and q.shape[-1] % 8 == 0:
            out = jax.nn.dot_product_attention(*(a.transpose(0, 2, 1, 3) for a in (q, k, v)), implementation="cudnn")
            return out.transpose(0, 2, 1, 3)
        if backend == "cpu" and q.shape[2] % _QUERY_CHUNK == 0:
            b, n, length, d = q.shape
            chunks = q.reshape(b, n, length // _QUERY_CHUNK, _QUERY_CHUNK, d).transpose(2, 0, 1, 3, 4)
            # Scores are recomputed in the backward pass: stored, they would be the largest arrays of the
            # network.
            out = jax.lax.map(jax.checkpoint(lambda chunk: _plain_attention(chunk, k, v, None)), chunks)
            return out.transpose(1, 2, 0, 3, 4).reshape(b, n, length, d)
    return _plain_attention(q, k, v, mask)


def _plain_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
    scale = 1.0 / math.sqrt(q.shape[-1])
    scores = jnp.einsum("bnqd,bnkd->bnqk", q * scale, k, preferred_element_type=jnp.float32)
    if mask is not None:
        scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
    # Divided by the sum after the product with v: one pass less over the scores.
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    out = jnp.einsum("bnqk,bnkd->bnqd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (out / total).astype(v.dtype)
