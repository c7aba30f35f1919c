"""Fading of whole images towards a random grey level: darkness, fog, glare and what lies between them.

Shifts drawn for each slot tell objects apart more often than they hide them; what they never show is an image that is
dark or pale as one.
"""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray

LEVEL = 2.0  # ImageNet-normalised: from nearly black to nearly white


class Fade(NamedTuple):
    """How far each image is drawn towards a level of its own.

    Attributes:
      contrast: what is left of it, in (0, 1].
      level: in [-2, 2], the same for the three ImageNet-normalised channels.
    """

    contrast: Float[Array, "b"]
    level: Float[Array, "b"]


def random_fade(key: PRNGKeyArray | None, images: int, lowest: float) -> Fade | None:
    """Contrasts drawn evenly from [lowest, 1], levels evenly from [-2, 2].

    Args:
      key: the attack's own; the draws are apart from its others. None for no fading.
      images: how many.
      lowest: in (0, 1]; 1 for no fading.
    """
    if key is None or lowest == 1:
        return None
    key_contrast, key_level = jax.random.split(jax.random.fold_in(key, 3))
    contrast = jax.random.uniform(key_contrast, (images,), minval=lowest, maxval=1.0)
    return Fade(contrast, jax.random.uniform(key_level, (images,), minval=-LEVEL, maxval=LEVEL))


def apply_fade(image: Float[Array, "b h w 3"], fade: Fade) -> Float[Array, "b h w 3"]:
    """level + contrast (image - level), for ImageNet-normalised images; in [-3, 3] if they are."""
    contrast, level = fade.contrast[:, None, None, None], fade.level[:, None, None, None]
    return level + contrast * (image - level)
