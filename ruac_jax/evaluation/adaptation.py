"""UCTTA: vanilla SAM2 adapted while it is evaluated, without labels (docs/systems_evidential_uctta.md).

After Tan et al. (TPAMI 2025), in the form of docs/method.md: on each image two Adam steps on scales and biases of the
normalisations make reliable pixels more certain, a Fisher-weighted penalty holds the parameters near the original ones,
and a temperature undoes the loss of entropy that certainty by training amounts to. Continual: an image starts from what
the one before has left, so the order of images matters.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from ruac_jax.errors import UserError
from ruac_jax.evaluation.prediction import Maps
from ruac_jax.evaluation.predictor import ModelPredictor
from ruac_jax.functional.uncertainty import entropy_of_logits
from ruac_jax.heads.hypernetwork import HypernetworkHead
from ruac_jax.inference import Segmentation, choose, encode
from ruac_jax.interaction import repeat_for_objects
from ruac_jax.model import NO_OBJECT, SAM2, Prompts
from ruac_jax.sam2.layers import LayerNorm

_ADAPTED_PARTS = ("image_encoder", "sam_mask_decoder")
_TEMPERATURES = (0.5, 2.0)
_CERTAIN = 1e-7  # probabilities of absent objects stay this far from 0 and 1


class AdaptationSettings(NamedTuple):
    """How a network adapts; the first four are the paper's. Other values need no compilation.

    Attributes:
      learning_rate: of Adam.
      steps: of each image.
      max_entropy: of a reliable pixel, nats.
      share: of an object's pixels, those of least entropy, that may be reliable.
      fisher_weight: of the penalty, EATA's.
      fisher_images: how many of a dataset's first images the Fisher information is estimated from.
    """

    learning_rate: float = 3e-4
    steps: int = 2
    max_entropy: float = 0.4
    share: float = 0.1
    fisher_weight: float = 2000.0
    fisher_images: int = 16


_DEFAULTS = AdaptationSettings()


class _Memory(NamedTuple):
    """What is carried from image to image.

    Attributes:
      affine: the parameters that adapt.
      adam: state of the optimiser.
      fisher: mean squared gradient of each of them.
      images: how many images it is the mean of.
    """

    affine: Any
    adam: Any
    fisher: Any
    images: int


@dataclasses.dataclass
class _Pending:
    """An image, encoded once the network has adapted to it: at its first prompts."""

    image: np.ndarray
    features: Any = None
    temperature: float = 1.0


class AdaptedPredictor(ModelPredictor):
    """A model on one device that adapts to each image at its first prompts, then answers as `ModelPredictor` does.

    Images have to come one after the other, in a fixed order. Compiled once per number of objects.
    """

    def __init__(
        self,
        model: SAM2,
        image_size: int,
        *,
        settings: AdaptationSettings = _DEFAULTS,
        device: jax.Device | None = None,
    ):
        """Takes a network with SAM2's own head, the side of its square images (px), and where it runs.

        Raises:
          UserError: another head.
        """
        if type(model.head) is not HypernetworkHead:
            raise UserError(
                f"test-time adaptation is of SAM2 with its own mask head, the checkpoint has a "
                f"{type(model.head).__name__}; evaluate a converted SAM2 checkpoint, or leave --adapt out"
            )
        super().__init__(model, image_size, device=device)
        self._settings = settings
        self._original = ModelPredictor(model, image_size, device=device)
        self._graph, self._affine, self._rest = nnx.split(nnx.merge(self._graph, self._state), adapts(model), ...)
        self.reset()

    def reset(self) -> None:
        """Forgets all images: the original parameters, a fresh optimiser, no Fisher information."""
        zeros = jax.tree.map(jnp.zeros_like, self._affine)
        self._memory = _Memory(self._affine, optax.scale_by_adam().init(self._affine), zeros, 0)

    def encode(self, image: UInt8[np.ndarray, "s s 3"]) -> _Pending:
        """Keeps the image: the network adapts to it when its prompts are known."""
        return _Pending(image)

    def decode(
        self,
        features: _Pending,
        points: Float[np.ndarray, "n p 2"],
        labels: Int[np.ndarray, "n p"],
        previous: Maps | None = None,
    ) -> Segmentation:
        """Masks and uncertainty of `n` objects; at an image's first prompts the network adapts to them."""
        first = features.features is None
        if first:
            self._adapt(features.image, points, labels)
            features.features = super().encode(features.image)
        if previous is not None:  # the network is fed its own logits
            previous = jnp.where(previous > NO_OBJECT, previous * features.temperature, previous)
        found = super().decode(features.features, points, labels, previous)
        if first:
            original = self._original.decode(self._original.encode(features.image), points, labels)
            features.temperature = _temperature(found, original, points, labels)
        return found if features.temperature == 1 else _temper(found, np.float32(features.temperature))

    def _adapt(self, image: np.ndarray, points: np.ndarray, labels: np.ndarray) -> None:
        affine, adam, fisher, images = self._memory
        if images < self._settings.fisher_images:
            fisher = _observe(self._graph, self._affine, self._rest, fisher, np.float32(images), image, points, labels)
            images += 1
        for _ in range(self._settings.steps):
            affine, adam, _ = _step(
                self._graph, self._settings, affine, self._rest, adam, self._affine, fisher, image, points, labels
            )
        self._memory = _Memory(affine, adam, fisher, images)
        self._state = nnx.merge_state(affine, self._rest)


def adapts(model: SAM2) -> Any:
    """The filter of what adapts: scale and bias of every LayerNorm in image encoder and mask decoder."""
    norms = {tuple(path) for path, module in nnx.iter_graph(model) if isinstance(module, LayerNorm)}

    def chosen(path: tuple[Any, ...], value: Any) -> bool:
        return path[0] in _ADAPTED_PARTS and tuple(path[:-1]) in norms

    return chosen


def reliable_pixels(
    entropy: Float[Array, "n h w"], counted: Bool[Array, "n"], max_entropy: float | Array, share: float | Array
) -> Bool[Array, "n h w"]:
    """Pixels of counted objects below `max_entropy` and among the `share` of their object with the least entropy.

    `entropy` and `max_entropy` in nats. At least one pixel of an object is among the least; all that tie are.
    """
    flat = entropy.reshape(len(entropy), -1)
    most = jnp.maximum(1, jnp.floor(share * float(flat.shape[1])).astype(jnp.int32))
    limit = jnp.take(jnp.sort(flat, axis=1), most - 1, axis=1)
    return (entropy < max_entropy) & (entropy <= limit[:, None, None]) & counted[:, None, None]


def distinct_prompts(points: Float[Array, "n p 2"], labels: Int[Array, "n p"]) -> Bool[Array, "n"]:
    """False for rows that repeat the one before, as those do that fill a bucket."""
    other = jnp.any(points[1:] != points[:-1], axis=(1, 2)) | jnp.any(labels[1:] != labels[:-1], axis=1)
    return jnp.concatenate([jnp.ones(1, bool), other])


@jax.jit
def match_entropy(
    logits: Float[Array, "n h w"], counted: Bool[Array, "n"], target: Float[Array, ""]
) -> Float[Array, ""]:
    """Temperature T in [0.5, 2] at which the mean entropy of s(logits / T) over counted objects is `target`.

    `target` in units of ln 2, as `entropy_of_logits`. By bisection of log T to the last digit; the nearer end where the
    target is out of reach.
    """

    def above(log_t: Array) -> Array:
        return _mean_entropy(logits * jnp.exp(-log_t), counted) > target

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (bounds[0] + bounds[1]) / 2
        high = above(middle)
        return jnp.where(high, bounds[0], middle), jnp.where(high, middle, bounds[1])

    ends = tuple(jnp.log(jnp.float32(t)) for t in _TEMPERATURES)
    low, high = jax.lax.fori_loop(0, 30, halve, ends)
    return jnp.exp((low + high) / 2)


class StepReport(NamedTuple):
    """Of one adaptation step, before it: mean entropy of the reliable pixels (nats) and how many there are."""

    entropy: Float[Array, ""]
    pixels: Int[Array, ""]


@functools.partial(jax.jit, static_argnums=0)
def _step(
    graph: Any,
    settings: AdaptationSettings,
    affine: Any,
    rest: Any,
    adam: Any,
    original: Any,
    fisher: Any,
    image: Array,
    points: Array,
    labels: Array,
) -> tuple[Any, Any, StepReport]:
    """One Adam step on entropy and penalty; without reliable pixels none is taken."""

    def objective(affine: Any) -> tuple[Array, StepReport]:
        logits, counted = _decode(graph, affine, rest, image, points, labels)
        entropy = math.log(2) * entropy_of_logits(logits)
        reliable = reliable_pixels(jax.lax.stop_gradient(entropy), counted, settings.max_entropy, settings.share)
        pixels = reliable.sum()
        mean = jnp.where(reliable, entropy, 0.0).sum() / jnp.maximum(pixels, 1).astype(jnp.float32)
        penalty = jax.tree.map(lambda f, now, start: (f * jnp.square(now - start)).sum(), fisher, affine, original)
        return mean + settings.fisher_weight * sum(jax.tree.leaves(penalty)), StepReport(mean, pixels)

    gradient, report = jax.grad(objective, has_aux=True)(affine)
    with jax.numpy_dtype_promotion("standard"):  # optax's bias correction raises a float to an integer power
        direction, moved = optax.scale_by_adam().update(gradient, adam)

    def keep(new: Array, old: Array) -> Array:
        return jnp.where(report.pixels > 0, new, old)

    stepped = jax.tree.map(lambda p, d: keep(p - settings.learning_rate * d, p), affine, direction)
    return stepped, jax.tree.map(keep, moved, adam), report


@functools.partial(jax.jit, static_argnums=0)
def _observe(
    graph: Any,
    original: Any,
    rest: Any,
    fisher: Any,
    images: Array,
    image: Array,
    points: Array,
    labels: Array,
) -> Any:
    """Takes an image into the mean, over `images` images so far, of squared gradients at the original parameters.

    The gradient is that of the cross-entropy to the network's own mask (EATA's Fisher information), mean over pixels.
    """

    def surprise(affine: Any) -> Array:
        logits, counted = _decode(graph, affine, rest, image, points, labels)
        by_object = jax.nn.softplus(-jnp.abs(logits)).mean(axis=(1, 2))
        return jnp.where(counted, by_object, 0.0).sum() / jnp.maximum(counted.sum(), 1).astype(jnp.float32)

    gradient = jax.grad(surprise)(original)
    return jax.tree.map(lambda f, g: (f * images + jnp.square(g)) / (images + 1), fisher, gradient)


def _decode(
    graph: Any, affine: Any, rest: Any, image: Array, points: Array, labels: Array
) -> tuple[Float[Array, "n h w"], Bool[Array, "n"]]:
    """Logits of the chosen mask of each object, and which objects count: those present, once each."""
    model = nnx.merge(graph, affine, rest)
    features, n = encode(model, image[None]), len(points)
    blank = jnp.zeros((n, *features.high_res_s0.shape[1:3]), jnp.float32)
    prompts = Prompts(points, labels, blank, jnp.zeros(n, bool))
    chosen = choose(model, repeat_for_objects(features, n), prompts)
    present = chosen.logits[:, 0, 0] > NO_OBJECT
    return chosen.distribution.mean_logits()[:, 0], present & distinct_prompts(points, labels)


def _temperature(adapted: Segmentation, original: Segmentation, points: np.ndarray, labels: np.ndarray) -> float:
    """Temperature that gives the adapted network the original one's mean entropy, over objects that both see."""
    both = (adapted.logits[:, 0, 0] > NO_OBJECT) & (original.logits[:, 0, 0] > NO_OBJECT)
    counted = both & distinct_prompts(jnp.asarray(points), jnp.asarray(labels))
    target = _mean_entropy(original.logits, counted)
    if _mean_entropy(adapted.logits, counted) == target:  # nothing adapted: the same bits
        return 1.0
    return float(match_entropy(adapted.logits, counted, target))


@jax.jit
def _temper(found: Segmentation, temperature: Array) -> Segmentation:
    """Divides the logits by the temperature; those that say "no object" stay."""
    p = jnp.clip(found.probability, _CERTAIN, 1 - _CERTAIN)
    absent = found.logits <= NO_OBJECT
    logits = jnp.where(absent, jnp.log(p) - jnp.log1p(-p), found.logits) / temperature
    return found._replace(
        logits=jnp.where(absent, found.logits, logits),
        probability=jax.nn.sigmoid(logits),
        uncertainty=entropy_of_logits(logits),
    )


@jax.jit
def _mean_entropy(logits: Float[Array, "n h w"], counted: Bool[Array, "n"]) -> Float[Array, ""]:
    by_object = entropy_of_logits(logits).mean(axis=(1, 2))
    return jnp.where(counted, by_object, 0.0).sum() / jnp.maximum(counted.sum(), 1).astype(jnp.float32)
