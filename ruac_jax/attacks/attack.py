"""The one interface of all attacks: a batch in, a harder batch out."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ruac_jax.sam2.memory_encoder import MemoryEncoder
from ruac_jax.sam2.neck import Levels

# The network's loss on normalised images, prompted as in the clean branch: what an attack by gradients climbs.
Victim = Callable[[Float[Array, "b h w 3"]], Float[Array, ""]]


class AttackOutput(NamedTuple):
    """A harder batch of `b` images with `k` object slots.

    Attributes:
      image: ImageNet-normalised, in [-3, 3]; the attack's parameters get their (reversed) gradient through it.
      masks: the objects where the attack has moved them; constant.
      flow: each object's own flow (dx, dy) in pixels, backward: out(p) = in(p + flow(p)); constant.
      metrics: scalars that say how hard the attack is; constant.
    """

    image: Float[Array, "b h w 3"]
    masks: Bool[Array, "b k h w"]
    flow: Float[Array, "b k h w 2"]
    metrics: dict[str, Float[Array, ""]]


class CleanScene(NamedTuple):
    """What an attack starts from, made by `clean_scene`; constants, but for what `victim` holds.

    Attributes:
      embedding: of the clean images, stride 16, float32.
      image: clean, ImageNet-normalised, float32.
      masks: objects, empty in slots without one; where they overlap, the first one's colours count.
      memory_encoder: the model's own, frozen.
      victim: the network's loss, for attacks by gradients; None where it is not at hand.
    """

    embedding: Float[Array, "b h w d"]
    image: Float[Array, "b H W 3"]
    masks: Bool[Array, "b k H W"]
    memory_encoder: MemoryEncoder
    victim: Victim | None = None


def clean_scene(
    embedding: Float[Array, "b h w d"],
    image: Float[Array, "b H W 3"],
    masks: Bool[Array, "b k H W"],
    valid: Bool[Array, "b k"],
    memory_encoder: MemoryEncoder,
    victim: Victim | None = None,
) -> CleanScene:
    """Puts a scene together: no gradient passes through it, masks of slots that are not `valid` are emptied."""
    constant = (jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (embedding, image))
    return CleanScene(*constant, masks & valid[:, :, None, None], memory_encoder, victim)


def unmoved(
    image: Float[Array, "b h w 3"], masks: Bool[Array, "b k h w"], metrics: dict[str, Float[Array, ""]] | None = None
) -> AttackOutput:
    """An attack that leaves every object where it is."""
    return AttackOutput(image, masks, jnp.zeros((*masks.shape, 2), jnp.float32), metrics or {})


class Attack(nnx.Module):
    """An attack in two stages, on images and on the backbone's maps; a stage that is not its own it leaves as it is."""

    def __call__(self, clean: CleanScene, key: PRNGKeyArray | None) -> AttackOutput:
        """Attacks images; `key` is for what an attack draws, None where it may do without."""
        return unmoved(clean.image, clean.masks)

    def perturb(self, levels: Levels, key: PRNGKeyArray) -> Levels:
        """Attacks the backbone's three maps of the attacked images; same shapes and dtypes."""
        return levels
