"""Attacks on pixels: Gaussian noise, projected gradient descent and an adversarial patch (the paper's section 4).

Their sizes are the reference code's (method, section 7), in normalised colour units. What they give is a constant: they
have no parameters.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ruac_jax.attacks.attack import Attack, AttackOutput, CleanScene, Victim, unmoved
from ruac_jax.functional.adain import COLOUR_LIMIT

NOISE = 0.03  # standard deviation
PGD_RADIUS, PGD_STEP, PGD_STEPS = 0.03, 0.01, 5
PATCH_SIDE, PATCH_STEP, PATCH_STEPS = 0.1, 0.5, 5  # side as a share of the image's

Image = Float[Array, "b h w 3"]


def add_noise(image: Image, key: PRNGKeyArray) -> Image:
    """Gaussian noise of deviation 0.03, clipped to [-3, 3]."""
    return _limit(image + NOISE * jax.random.normal(key, image.shape, image.dtype))


def ascend(image: Image, victim: Victim, key: PRNGKeyArray) -> Image:
    """PGD (Madry et al., 2018): five sign steps of 0.01 from a random start within an L-infinity ball of 0.03.

    Args:
      image: clean.
      victim: the loss to climb.
      key: for the start.
    """
    start = jax.random.uniform(key, image.shape, image.dtype, -PGD_RADIUS, PGD_RADIUS)

    def step(_: Array, shift: Image) -> Image:
        slope = jax.grad(victim)(_limit(image + shift))
        return jnp.clip(shift + PGD_STEP * jnp.sign(slope), -PGD_RADIUS, PGD_RADIUS)

    return _limit(image + jax.lax.fori_loop(0, PGD_STEPS, step, start))


def paste(image: Image, patch: Float[Array, "b p p 3"], corner: Float[Array, "b 2"]) -> Image:
    """Puts each image's patch at its (row, column) corner.

    By products with one-hot matrices: a slice at varying places would be a scatter in the backward pass.
    """
    side = patch.shape[1]

    def places(start: Float[Array, " b"], length: int) -> Float[Array, "b n p"]:
        offset = jnp.arange(length, dtype=patch.dtype)[None, :, None] - start[:, None, None]
        return (offset == jnp.arange(side, dtype=patch.dtype)[None, None]).astype(patch.dtype)

    rows, columns = places(corner[:, 0], image.shape[1]), places(corner[:, 1], image.shape[2])
    spread = jnp.einsum("bhp,bpqc,bwq->bhwc", rows, patch, columns, precision="highest")
    covered = jnp.einsum("bhp,bwq->bhw", rows, columns, precision="highest")[..., None] > 0.5
    return jnp.where(covered, spread, image)


def attack_by_patch(image: Image, victim: Victim, key: PRNGKeyArray) -> Image:
    """A square patch a tenth of the image wide, made by five sign steps of 0.5, at another place in each, and last too.

    Args:
      image: clean.
      victim: the loss to climb.
      key: for the places.
    """
    b, height, width, _ = image.shape
    side = max(1, round(PATCH_SIDE * min(height, width)))

    def corner(step: Array) -> Float[Array, "b 2"]:
        limits = jnp.asarray([[height - side, width - side]])
        drawn = jax.random.randint(jax.random.fold_in(key, step), (b, 2), 0, limits + 1)
        return drawn.astype(image.dtype)

    def climb(step: Array, patch: Float[Array, "b p p 3"]) -> Float[Array, "b p p 3"]:
        slope = jax.grad(lambda patch: victim(paste(image, patch, corner(step))))(patch)
        return _limit(patch + PATCH_STEP * jnp.sign(slope))

    patch = jax.lax.fori_loop(0, PATCH_STEPS, climb, jnp.zeros((b, side, side, 3), image.dtype))
    return paste(image, patch, corner(jnp.asarray(PATCH_STEPS)))


class NoiseAttack(Attack):
    """Random Noise."""

    def __call__(self, clean: CleanScene, key: PRNGKeyArray | None) -> AttackOutput:
        """Adds noise; raises a ValueError without a key."""
        return unmoved(add_noise(clean.image, _given(key, "key")), clean.masks)


class GradientAttack(Attack):
    """PGD, or the patch: what climbs the victim's loss."""

    def __init__(self, patch: bool):
        self.patch = patch

    def __call__(self, clean: CleanScene, key: PRNGKeyArray | None) -> AttackOutput:
        """Climbs; raises a ValueError without a key or a victim."""
        climb = attack_by_patch if self.patch else ascend
        image = climb(clean.image, _given(clean.victim, "victim"), _given(key, "key"))
        return unmoved(jax.lax.stop_gradient(image), clean.masks)


def _given(argument: Array | Victim | None, name: str) -> Array | Victim:
    if argument is None:
        raise ValueError(f"this attack needs a {name}")
    return argument


def _limit(image: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.clip(image, -COLOUR_LIMIT, COLOUR_LIMIT)
