"""What happens between a click on the page and a mask: clicks to prompts to an answer. Knows nothing of the page."""

import hashlib
import threading
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8

from ruac_jax.evaluation.correction import correct_mask
from ruac_jax.heads.distribution import UncertaintyMethod
from ruac_jax.predictor import Predictor
from ruac_jax.prompt_flags import ObjectPrompt

Kind = Literal["object", "background", "corner"]
Shown = Literal["best", "1", "2", "3", "single"]
_SEED = 0  # of Monte Carlo draws: the same clicks, the same answer


class Click(NamedTuple):
    """A click at (x, y) px of the image, integers being pixel centres."""

    kind: Kind
    x: float
    y: float


class Session(NamedTuple):
    """One visitor's image and clicks, oldest first."""

    image: UInt8[np.ndarray, "h w 3"]
    clicks: tuple[Click, ...] = ()

    def add(self, click: Click) -> "Session":
        """With one click more; a box needs an extent, so a corner in line with the one before it is left out."""
        start = self.open_corner()
        if click.kind == "corner" and start is not None and (click.x == start.x or click.y == start.y):
            return self
        return self._replace(clicks=(*self.clicks, click))

    def undo(self) -> "Session":
        """Without the last click."""
        return self._replace(clicks=self.clicks[:-1])

    def clear(self) -> "Session":
        """Without clicks."""
        return self._replace(clicks=())

    def open_corner(self) -> Click | None:
        """The corner of a box whose opposite is still to come."""
        corners = self._corners()
        return corners[-1] if len(corners) % 2 else None

    def prompt(self) -> ObjectPrompt | None:
        """All clicks as one object: its points and the box drawn last, if any; None where there is nothing yet."""
        points = [click for click in self.clicks if click.kind != "corner"]
        corners = self._corners()
        whole = corners[: len(corners) // 2 * 2][-2:]
        if not points and not whole:
            return None
        xs, ys = sorted(corner.x for corner in whole), sorted(corner.y for corner in whole)
        return ObjectPrompt(
            points=tuple((click.x, click.y) for click in points),
            labels=tuple(int(click.kind == "object") for click in points),
            box=(xs[0], ys[0], xs[1], ys[1]) if whole else None,
        )

    def _corners(self) -> list[Click]:
        return [click for click in self.clicks if click.kind == "corner"]


def to_image(place: tuple[float, float], view_size: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    """From a place on the image as it is shown to coordinates of the image itself.

    Args:
      place: (x, y) px of the shown picture from its left and upper edge, as browsers count; so 0.5 is the middle of the
        first pixel.
      view_size: height and width of the shown picture, px.
      size: height and width of the image, px.

    Returns:
      (x, y), integers being pixel centres: from 0 to width - 1 and height - 1.
    """
    x, y = (
        min(max(value * full / shown - 0.5, 0.0), full - 1.0)
        for value, shown, full in zip(place, view_size[::-1], size[::-1], strict=True)
    )
    return x, y


class Settings(NamedTuple):
    """What the visitor asks for.

    Attributes:
      shown: which mask: the best of three hypotheses by predicted IoU, one of them, or a single one.
      method: of the uncertainty.
      samples: draws of the Monte Carlo one.
      corrected: whether fragments that the uncertainty distrusts are removed (`correct_mask`).
      doubtful_above: uncertainty from which pixels count as error-prone.
    """

    shown: Shown = "best"
    method: UncertaintyMethod = "analytic"
    samples: int = 20
    corrected: bool = False
    doubtful_above: float = 0.5


class Answer(NamedTuple):
    """What a network makes of a prompt, at the image's size.

    Attributes:
      mask: the chosen one, corrected if that was asked for.
      uncertainty: of it, in [0, 1].
      ious: predicted IoU of every mask that was proposed: three, or one.
      which: the number of the chosen one among them, from 0.
      removed: pixels that the correction took away.
    """

    mask: Bool[np.ndarray, "h w"]
    uncertainty: Float[np.ndarray, "h w"]
    ious: tuple[float, ...]
    which: int
    removed: int

    def doubtful_share(self, threshold: float) -> float | None:
        """Share of the mask's pixels whose uncertainty exceeds the threshold; None for an empty mask."""
        return float((self.uncertainty[self.mask] > threshold).mean()) if self.mask.any() else None

    def mean_uncertainty(self) -> float | None:
        """Mean uncertainty inside the mask; None for an empty one."""
        return float(self.uncertainty[self.mask].mean(dtype=np.float64)) if self.mask.any() else None


def answer(predictor: Predictor, prompt: ObjectPrompt, settings: Settings) -> Answer:
    """Segments one object of the image that the predictor holds."""
    found = predictor.predict(
        **prompt.arguments(),
        multimask_output=settings.shown != "single",
        uncertainty=settings.method,
        samples=settings.samples,
        key=jax.random.key(_SEED) if settings.method == "monte_carlo" else None,
    )
    rated_best = int(np.argmax(found.iou_predictions))
    which = rated_best if settings.shown in ("best", "single") else int(settings.shown) - 1
    proposed, uncertainty = found.masks[which], found.uncertainty[which]
    mask = correct_mask(proposed, uncertainty) if settings.corrected else proposed
    removed = int(proposed.sum()) - int(mask.sum())
    return Answer(mask, uncertainty, tuple(float(iou) for iou in found.iou_predictions), which, removed)


class SharedModel:
    """A predictor for all visitors, one at a time; an image is encoded anew only if another was shown in between.

    Attributes:
      name: what the page calls it.
      description: its size and head in a few words.
    """

    def __init__(self, name: str, description: str, predictor: Predictor):
        self.name, self.description = name, description
        self._predictor = predictor
        self._lock = threading.Lock()
        self._encoded: tuple[tuple[int, ...], bytes] | None = None

    @property
    def image_size(self) -> int:
        """Side of the network's square image, px."""
        return self._predictor.image_size

    def answer(self, image: UInt8[np.ndarray, "h w 3"], prompt: ObjectPrompt, settings: Settings) -> Answer:
        """Segments one object of an image."""
        identity = image.shape, hashlib.sha256(np.ascontiguousarray(image)).digest()
        with self._lock:
            if identity != self._encoded:
                self._encoded = None
                self._predictor.set_image(image)
                self._encoded = identity
            return answer(self._predictor, prompt, settings)
