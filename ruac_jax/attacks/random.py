"""The learned attack's rival: style and flow of the same kind and size, drawn at random instead of learned.

Whatever the learned attack gains beyond this one is due to its learning, not to augmentation.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ruac_jax.attacks.attack import Attack, AttackOutput, CleanScene
from ruac_jax.attacks.composition import Proposal, apply_proposal, restyle, style_slots
from ruac_jax.attacks.deformation import bounded_flow
from ruac_jax.attacks.fade import random_fade
from ruac_jax.attacks.style import NUMBERS
from ruac_jax.config import AttackConfig
from ruac_jax.functional.resize import resize

_SMOOTHNESS = 3  # cells of the stride-16 grid from one random offset to the next


class RandomAttack(Attack):
    """Random style of a mean size, and random smooth flow of a mean length; nothing is learned."""

    def __init__(self, settings: AttackConfig):
        self.settings = settings

    def __call__(self, clean: CleanScene, key: PRNGKeyArray | None) -> AttackOutput:
        """Attacks a batch.

        Raises:
          ValueError: without a key.
        """
        if key is None:
            raise ValueError("a random attack needs a key")
        settings, image, masks = self.settings, clean.image, clean.masks
        key_scope, key_style, key_flow = jax.random.split(key, 3)
        style, flow = None, None
        if settings.style:
            slots = style_slots(image, masks, settings.scope, key_scope)
            shape = (*slots.styled.shape, NUMBERS)
            delta = random_shift(key_style, shape, settings.style_epsilon, settings.random_style)
            style = restyle(delta, slots, settings)
        if settings.deformation:
            grid = clean.embedding.shape[1:3]
            stride = image.shape[1] // grid[0]
            flow = random_flow(
                key_flow,
                masks,
                grid,
                settings.flow_epsilon * stride,
                settings.random_flow * settings.flow_epsilon * stride,
            )
        fade = random_fade(key, image.shape[0], settings.lowest_contrast)
        return apply_proposal(image, masks, Proposal(style, flow, fade))


def random_shift(key: PRNGKeyArray, shape: tuple[int, ...], epsilon: float, size: float) -> Float[Array, "..."]:
    """Random signs times magnitudes in [0, epsilon] whose mean is `size` * epsilon, 0 < size < 1.

    A magnitude is epsilon U^(1/a), which has the density of Beta(a, 1) with mean a / (a + 1): near the budget where the
    mean is, as the magnitudes of a saturating attacker are.
    """
    key_sign, key_size = jax.random.split(key)
    magnitude = jax.random.uniform(key_size, shape) ** ((1 - size) / size)
    return epsilon * magnitude * jax.random.rademacher(key_sign, shape, jnp.float32)


def random_flow(
    key: PRNGKeyArray, masks: Bool[Array, "b k H W"], grid: tuple[int, int], limit: float, length: float
) -> Float[Array, "b k H W 2"]:
    """A smooth random flow for each object, as bounded and centred as the learned one; zero for an empty mask.

    Args:
      key: for offsets on every third cell, interpolated bilinearly.
      masks: objects.
      grid: cells of the stride-16 map.
      limit: of an offset before its mean over the object is taken away, px.
      length: mean length over the object's pixels, px, but for what is clipped at twice `limit`.
    """
    b, k = masks.shape[:2]
    coarse = tuple(max(2, -(-side // _SMOOTHNESS)) for side in grid)
    raw = jax.random.normal(key, (b * k, *coarse, 2))
    raw = resize(raw, grid, "bilinear").reshape(b, k, *grid, 2)
    flow = resize(bounded_flow(raw, masks, limit), masks.shape[2:], "bilinear")
    pixels = jnp.maximum(masks.sum(axis=(2, 3)), 1).astype(jnp.float32)
    mean = jnp.where(masks, jnp.linalg.norm(flow, axis=-1), 0.0).sum(axis=(2, 3)) / pixels
    scaled = flow * (length / jnp.maximum(mean, 1e-6))[:, :, None, None, None]
    return jnp.clip(scaled, -2 * limit, 2 * limit)
