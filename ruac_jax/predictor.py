"""Masks with uncertainty for your own images: the call signature of SAM2's image predictor, and a bit more.

Mirrors sam2/sam2_image_predictor.py. Deviations: masks are booleans; each answer has its uncertainty; a batch of
images is decoded in one go; grey, transparent and rotated pictures are understood; hole filling, which needs a CUDA
extension there, is left out; mistakes are `UserError`s.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from PIL import Image

from ruac_jax.errors import UserError
from ruac_jax.functional.upsample import Taps, frame_taps, upsample
from ruac_jax.heads.distribution import UncertaintyMethod, VarianceMode
from ruac_jax.hub import find_checkpoint
from ruac_jax.inference import Hypotheses, cast_for_inference, encode, propose
from ruac_jax.input_image import network_input, to_rgb
from ruac_jax.model import SAM2, ImageFeatures, Prompts
from ruac_jax.prompt_rows import join_rows, power_of_two, prompt_rows
from ruac_jax.weights import load_model

_OBJECTS_AT_ONCE = 64  # as many as the evaluation decodes at once
_IMAGES_AT_ONCE = 8
_STRIDE = 32  # image sizes are multiples of it

DType = Literal["float32", "bfloat16"]


class Prediction(NamedTuple):
    """Masks of one object or, with a first axis N, of several; C hypotheses each, at the image's own size.

    Attributes:
      masks: booleans, or float32 logits with `return_logits`.
      iou_predictions: predicted IoU of each mask, float32.
      low_res_logits: at a quarter of the network's image size, clamped to +-32: what `mask_input` takes.
      uncertainty: float32 in [0, 1].
    """

    masks: Bool[np.ndarray, "*n c h w"] | Float[np.ndarray, "*n c h w"]
    iou_predictions: Float[np.ndarray, "*n c"]
    low_res_logits: Float[np.ndarray, "*n c h4 w4"]
    uncertainty: Float[np.ndarray, "*n c h w"]


class UncertaintyOptions(NamedTuple):
    """How the uncertainty is computed, see `ruac_jax.inference.segment`; part of a compiled program's identity."""

    method: UncertaintyMethod = "analytic"
    variance: VarianceMode = "product"
    samples: int = 20


_ANALYTIC = UncertaintyOptions()


class _Encoded(NamedTuple):
    features: ImageFeatures  # rows fill up to a power of two
    sizes: list[tuple[int, int]]
    batch: bool


class Predictor:
    """Predicts masks of prompted objects: `set_image`, then `predict`, as often as you like.

    Compiles once for an image and once for every power of two of objects and of points, whatever the images' sizes.
    """

    def __init__(
        self, model: SAM2, *, image_size: int | None = None, mask_threshold: float = 0.0, dtype: DType = "float32"
    ):
        """Takes a network.

        Args:
          model: with any head.
          image_size: side of the square that images are stretched to, px, a multiple of 32; None: the model's own.
          mask_threshold: masks are where logits are above it.
          dtype: what the network computes in; its head computes in float32 always.

        Raises:
          UserError: no such type or size.
        """
        self.image_size = model.image_size if image_size is None else image_size
        if self.image_size < _STRIDE or self.image_size % _STRIDE:
            raise UserError(f"image_size: expected a multiple of {_STRIDE}, found {self.image_size}")
        self.mask_threshold = mask_threshold
        self._dtype = _compute_dtype(dtype)
        graph, self._state = nnx.split(cast_for_inference(model, self._dtype))
        self._structure = _structure(graph)
        self._encoded: _Encoded | None = None

    @classmethod
    def from_checkpoint(
        cls,
        name: str | os.PathLike[str],
        *,
        image_size: int | None = None,
        mask_threshold: float = 0.0,
        dtype: DType = "float32",
    ) -> "Predictor":
        """Loads a model: a folder, a file or a name, see `ruac_jax.hub.find_checkpoint`.

        Raises:
          UserError: no such model, or no such type or size.
        """
        model, _ = load_model(find_checkpoint(name))
        return cls(model, image_size=image_size, mask_threshold=mask_threshold, dtype=dtype)

    @property
    def original_sizes(self) -> list[tuple[int, int]]:
        """Height and width of each image that is set."""
        return [] if self._encoded is None else list(self._encoded.sizes)

    def reset_predictor(self) -> None:
        """Forgets the images."""
        self._encoded = None

    def set_image(self, image: np.ndarray | Image.Image) -> None:
        """Encodes an image for `predict`.

        Args:
          image: RGB, `[h, w, 3]` uint8 or a PIL image; grey and RGBA are converted, see `input_image.to_rgb`.

        Raises:
          UserError: not such an image; then none is set.
        """
        self._encoded = None
        self._encoded = self._encode([image], batch=False)

    def set_image_batch(self, image_list: Sequence[np.ndarray | Image.Image]) -> None:
        """Encodes images of any sizes for `predict_batch`; as `set_image`."""
        self._encoded = None
        if not isinstance(image_list, list | tuple) or not image_list:
            raise UserError("image_list: expected a list of at least one image; for a single one there is set_image")
        self._encoded = self._encode(image_list, batch=True)

    def predict(
        self,
        point_coords: Any = None,
        point_labels: Any = None,
        box: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
        *,
        uncertainty: UncertaintyMethod = "analytic",
        variance: VarianceMode = "product",
        samples: int = 20,
        key: PRNGKeyArray | None = None,
    ) -> Prediction:
        """Segments one object, or several given by boxes or by rows of points.

        Args:
          point_coords: (x, y) px, integers being pixel centres: `[p, 2]`, or `[n, p, 2]` for n objects.
          point_labels: 1 for the object, 0 for the background: `[p]` or `[n, p]`.
          box: (x0, y0, x1, y1) px, `[4]` or `[n, 4]`; may come with points, row by row.
          mask_input: `low_res_logits` of an earlier answer, `[1, h, w]` or `[n, 1, h, w]`.
          multimask_output: three hypotheses, for ambiguous prompts; else the mask for unambiguous ones or, where that
            is not stable, the best of the three.
          return_logits: logits in place of booleans in `masks`.
          normalize_coords: coordinates are pixels of the image; False: fractions of its sides.
          uncertainty: "analytic", or "monte_carlo": from draws (docs/method.md, section 3).
          variance: which logit variance the analytic one uses.
          samples: number of draws.
          key: for the draws, `jax.random.key(seed)`.

        Raises:
          UserError: no image is set, several are, or the arguments do not fit together.
        """
        encoded = self._required(batch=False)
        rows = self._rows(point_coords, point_labels, box, mask_input, encoded.sizes[0], normalize_coords)
        options = _options(uncertainty, variance, samples, key)
        return self._predict([rows], multimask_output, return_logits, options, key)[0]

    def predict_batch(
        self,
        point_coords_batch: Sequence[Any] | None = None,
        point_labels_batch: Sequence[Any] | None = None,
        box_batch: Sequence[Any] | None = None,
        mask_input_batch: Sequence[Any] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
        *,
        uncertainty: UncertaintyMethod = "analytic",
        variance: VarianceMode = "product",
        samples: int = 20,
        key: PRNGKeyArray | None = None,
    ) -> list[Prediction]:
        """Segments objects of all images that `set_image_batch` got, in one go.

        Args:
          point_coords_batch: for each image what `predict` takes, or None; None: no points anywhere.
          point_labels_batch: likewise.
          box_batch: likewise.
          mask_input_batch: likewise.
          multimask_output: as in `predict`, and so are the others.
          return_logits: see there.
          normalize_coords: see there.
          uncertainty: see there.
          variance: see there.
          samples: see there.
          key: see there.

        Returns:
          An answer for each image.

        Raises:
          UserError: as `predict`; lists of another length than that of the images.
        """
        encoded = self._required(batch=True)
        given = {
            "point_coords_batch": point_coords_batch,
            "point_labels_batch": point_labels_batch,
            "box_batch": box_batch,
            "mask_input_batch": mask_input_batch,
        }
        lists = [_for_each(value, name, len(encoded.sizes)) for name, value in given.items()]
        rows = []
        for number, (size, *prompts) in enumerate(zip(encoded.sizes, *lists, strict=True)):
            try:
                rows.append(self._rows(*prompts, size, normalize_coords))
            except UserError as error:
                raise UserError(f"image {number}: {error}") from error
        options = _options(uncertainty, variance, samples, key)
        return self._predict(rows, multimask_output, return_logits, options, key)

    def decode(
        self,
        prompts: Prompts,
        images: Int[np.ndarray, "n"],
        *,
        several: bool,
        options: UncertaintyOptions = _ANALYTIC,
        key: PRNGKeyArray | None = None,
    ) -> Hypotheses:
        """The network's own answer to prompts in its own coordinates, on its own grid, on the device.

        Args:
          prompts: numpy arrays in the network's coordinates (`prompt_rows.join_rows`).
          images: which image each row is about.
          several: three hypotheses, or one.
          options: how the uncertainty is computed.
          key: for draws.

        Returns:
          Rows for a power of two of objects, of which the first n count.
        """
        if self._encoded is None:
            raise UserError("no image is set: call set_image or set_image_batch first")
        fill = power_of_two(len(images)) - len(images)
        padded = Prompts(*(np.pad(x, [(0, fill)] + [(0, 0)] * (x.ndim - 1), mode="edge") for x in prompts))
        if not prompts.mask.size:
            padded = padded._replace(mask=None)
        numbers = np.pad(images, (0, fill), mode="edge").astype(np.int32)
        return _decode(self._structure, several, options, self._state, self._encoded.features, numbers, padded, key)

    def _encode(self, images: Sequence[Any], *, batch: bool) -> _Encoded:
        rgb = [to_rgb(image) for image in images]
        parts, start = [], 0
        while start < len(rgb):
            count = min(_IMAGES_AT_ONCE, 1 << (len(rgb) - start).bit_length() - 1)
            inputs = np.stack([network_input(image, self.image_size) for image in rgb[start : start + count]])
            parts.append(_encode(self._structure, self._dtype, self._state, inputs))
            start += count
        blank = power_of_two(len(rgb)) - len(rgb)
        features = jax.tree.map(lambda *levels: _joined(levels, blank), *parts)
        return _Encoded(features, [image.shape[:2] for image in rgb], batch)

    def _required(self, *, batch: bool) -> _Encoded:
        if self._encoded is None:
            raise UserError(f"no image is set: call {'set_image_batch' if batch else 'set_image'} first")
        if self._encoded.batch != batch:
            raise UserError(
                "a single image is set, by set_image: call predict"
                if batch
                else "a batch of images is set, by set_image_batch: call predict_batch"
            )
        return self._encoded

    def _rows(self, coords: Any, labels: Any, box: Any, mask: Any, size: tuple[int, int], normalize: bool) -> Prompts:
        return prompt_rows(coords, labels, box, mask, original=size, image_size=self.image_size, normalize=normalize)

    def _predict(
        self,
        rows: Sequence[Prompts],
        several: bool,
        return_logits: bool,
        options: UncertaintyOptions,
        key: PRNGKeyArray | None,
    ) -> list[Prediction]:
        prompts = join_rows(rows, self.image_size // 4)
        counts = [len(part.labels) for part in rows]
        images = np.repeat(np.arange(len(rows)), counts)
        side, masks = self.image_size // 4, 3 if several else 1
        predictions = [
            _blank(n, masks, side, size, return_logits) for n, size in zip(counts, self.original_sizes, strict=True)
        ]
        places = [(image, place) for image, n in enumerate(counts) for place in range(n)]
        for start in range(0, len(images), _OBJECTS_AT_ONCE):
            part = slice(start, start + _OBJECTS_AT_ONCE)
            chunk_key = None if key is None else jax.random.fold_in(key, start)
            answer = self.decode(
                Prompts(*(x[part] for x in prompts)), images[part], several=several, options=options, key=chunk_key
            )
            low, iou = np.clip(np.asarray(answer.logits), -32.0, 32.0), np.asarray(answer.iou)
            for row, (image, place) in enumerate(places[part]):
                height, width = self.original_sizes[image]
                taps = frame_taps(side, height), frame_taps(side, width)
                shown = _show(answer.logits, answer.uncertainty, np.int32(row), *taps, np.float32(self.mask_threshold))
                logits, mask, uncertainty = (np.asarray(x)[:, :height, :width] for x in shown)
                into = predictions[image]
                into.masks[place] = logits if return_logits else mask
                into.uncertainty[place] = uncertainty
                into.low_res_logits[place] = low[row]
                into.iou_predictions[place] = iou[row]
        return [
            Prediction(*(x[0] for x in made)) if n == 1 else made for n, made in zip(counts, predictions, strict=True)
        ]


def _blank(n: int, c: int, side: int, size: tuple[int, int], logits: bool) -> Prediction:
    return Prediction(
        np.zeros((n, c, *size), np.float32 if logits else bool),
        np.zeros((n, c), np.float32),
        np.zeros((n, c, side, side), np.float32),
        np.zeros((n, c, *size), np.float32),
    )


def _for_each(value: Sequence[Any] | None, name: str, images: int) -> Sequence[Any]:
    if value is None:
        return [None] * images
    if len(value) != images:
        raise UserError(f"{name}: expected one entry (or None) for each of {images} images, found {len(value)}")
    return value


def _options(method: str, variance: str, samples: int, key: PRNGKeyArray | None) -> UncertaintyOptions:
    if method not in ("analytic", "monte_carlo"):
        raise UserError(f"uncertainty: expected 'analytic' or 'monte_carlo', found {method!r}")
    if variance not in ("product", "full"):
        raise UserError(f"variance: expected 'product' or 'full', found {variance!r}")
    if method == "analytic":
        return UncertaintyOptions(method, variance)
    if key is None:
        raise UserError(
            "uncertainty 'monte_carlo': expected a key for the draws, e.g. key=jax.random.key(0), found none"
        )
    if samples < 1:
        raise UserError(f"samples: expected at least 1, found {samples}")
    return UncertaintyOptions(method, samples=samples)


def _compute_dtype(name: str) -> jnp.dtype:
    if name not in ("float32", "bfloat16"):
        raise UserError(f"dtype: expected 'float32' or 'bfloat16', found {name!r}")
    return jnp.dtype(name)


def _joined(levels: Sequence[Array], blank: int) -> Array:
    filler = [jnp.zeros((blank, *levels[0].shape[1:]), levels[0].dtype)] if blank else []
    return jnp.concatenate([*levels, *filler]) if len(levels) + blank > 1 else levels[0]


class _Structure:
    """A network without its parameters, equal to itself alone: comparing graphs would take milliseconds a call."""

    def __init__(self, graph: Any):
        self.graph = graph


@functools.cache
def _structure(graph: Any) -> _Structure:
    """One object for all equal graphs."""
    return _Structure(graph)


# Compiled once per structure; parameters and features are arguments, never part of a program.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(structure: _Structure, dtype: jnp.dtype, state: Any, images: Array) -> ImageFeatures:
    return encode(nnx.merge(structure.graph, state), images, dtype)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _decode(
    structure: _Structure,
    several: bool,
    options: UncertaintyOptions,
    state: Any,
    features: ImageFeatures,
    images: Array,
    prompts: Prompts,
    key: PRNGKeyArray | None,
) -> Hypotheses:
    own = jax.tree.map(lambda level: level[images], features)
    if prompts.mask is None:
        prompts = prompts._replace(mask=jnp.zeros((len(images), *own.high_res_s0.shape[1:3]), jnp.float32))
    return propose(
        nnx.merge(structure.graph, state),
        own,
        prompts,
        several=several,
        method=options.method,
        variance=options.variance,
        samples=options.samples,
        key=key,
    )


@jax.jit
def _show(
    logits: Array,
    uncertainty: Array,
    row: Array | np.integer,
    rows: Taps,
    columns: Taps,
    threshold: Array | np.floating,
) -> tuple[Array, Array, Array]:
    """One object's logits, mask and uncertainty at the image's size, in a frame."""
    large = upsample(logits[row], rows, columns)
    return large, large > threshold, jnp.clip(upsample(uncertainty[row], rows, columns), 0.0, 1.0)
