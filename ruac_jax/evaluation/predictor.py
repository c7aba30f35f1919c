"""A model of this project under the evaluation protocol."""

import dataclasses
import functools
import threading
import zlib
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from ruac_jax.evaluation.prediction import Maps
from ruac_jax.inference import Segmentation, encode, segment
from ruac_jax.interaction import repeat_for_objects
from ruac_jax.model import SAM2, ImageFeatures, Prompts

_FED_BACK = 32.0  # SAM2's predictor clamps the logits that it feeds back to this
# Threads that meet a new program would all trace it at once, in which jax 0.10.2 can crash. Calls return before the
# device is done, so that one at a time costs only this: each device's first call waits for the others' to compile.
_DISPATCH = threading.Lock()


@dataclasses.dataclass(frozen=True)
class UncertaintySettings:
    """How the uncertainty of a head's distribution is computed (docs/method.md, section 3).

    Attributes:
      method: "analytic" or "monte_carlo".
      variance: which logit variance the analytic one uses.
      samples: draws of the Monte Carlo one.
      seed: of these draws, which follow from it, the image and the clicks alone.
    """

    method: Literal["analytic", "monte_carlo"] = "analytic"
    variance: Literal["product", "full"] = "product"
    samples: int = 20
    seed: int = 0


class _Encoded(NamedTuple):
    features: ImageFeatures
    number: int  # of the image, for random numbers


_ANALYTIC = UncertaintySettings()


class ModelPredictor:
    """A model on one device: compiled once to encode, once per number of objects to decode."""

    def __init__(
        self,
        model: SAM2,
        image_size: int,
        *,
        uncertainty: UncertaintySettings = _ANALYTIC,
        device: jax.Device | None = None,
    ):
        """Takes a network, the side of the square images that it sees (px), and where it runs (None: JAX's default)."""
        self.image_size = image_size
        self._graph, state = nnx.split(model)
        self._state = jax.device_put(state, device) if device is not None else state
        self._uncertainty = uncertainty

    def encode(self, image: UInt8[np.ndarray, "s s 3"]) -> _Encoded:
        """Features of one RGB image."""
        with _DISPATCH:
            features = _encode(self._graph, self._state, image)
        return _Encoded(features, zlib.crc32(image.tobytes()))

    def decode(
        self,
        features: _Encoded,
        points: Float[np.ndarray, "n p 2"],
        labels: Int[np.ndarray, "n p"],
        previous: Maps | None = None,
    ) -> Segmentation:
        """Masks and uncertainty of `n` objects."""
        random = np.array([self._uncertainty.seed ^ features.number, zlib.crc32(points.tobytes())], np.uint32)
        how = dataclasses.replace(self._uncertainty, seed=0)  # which is in `random`: other seeds need no compilation
        with _DISPATCH:
            return _decode(self._graph, how, self._state, features.features, points, labels, previous, random)


# Compiled once per structure of a network, whatever its parameters.
@functools.partial(jax.jit, static_argnums=0)
def _encode(graph: Any, state: Any, image: Array) -> ImageFeatures:
    return encode(nnx.merge(graph, state), image[None])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _decode(
    graph: Any,
    uncertainty: UncertaintySettings,
    state: Any,
    features: ImageFeatures,
    points: Array,
    labels: Array,
    previous: Array | None,
    random: Array,
) -> Segmentation:
    n = len(points)
    height, width = features.high_res_s0.shape[1:3]
    if previous is None:
        mask = jnp.zeros((n, height, width), jnp.float32)
    else:
        mask = jnp.clip(previous.astype(jnp.float32), -_FED_BACK, _FED_BACK)
    return segment(
        nnx.merge(graph, state),
        repeat_for_objects(features, n),
        Prompts(points, labels, mask, jnp.full(n, previous is not None)),
        method=uncertainty.method,
        variance=uncertainty.variance,
        samples=uncertainty.samples,
        key=jax.random.fold_in(jax.random.key(random[0]), random[1]),
    )
