"""The one interface of all attacks: a batch in, a harder batch out."""

from collections.abc import Callable
from typing import NamedTuple

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


def unmoved(
    image: Float[Array, "b h w 3"], masks: Bool[Array, "b k h w"], metrics: dict[str, Float[Array, ""]] | None = None
) -> AttackOutput:
    """An attack that leaves every object where it is."""
    return AttackOutput(image, masks, jnp.zeros((*masks.shape, 2), jnp.float32), metrics or {})


class Attack(nnx.Module):
    """An attack in two stages, on images and on the backbone's maps; a stage that is not its own it leaves as it is."""

    def __call__(
        self,
        embedding: Float[Array, "b h w d"],
        image: Float[Array, "b H W 3"],
        masks: Bool[Array, "b k H W"],
        valid: Bool[Array, "b k"],
        memory_encoder: MemoryEncoder,
        key: PRNGKeyArray | None,
        victim: Victim | None = None,
    ) -> AttackOutput:
        """Attacks images.

        Args:
          embedding: of the clean images, stride 16; taken as constant.
          image: clean, ImageNet-normalised; taken as constant.
          masks: objects; where they overlap, the first one's colours count.
          valid: False for slots without an object.
          memory_encoder: the model's own, frozen.
          key: for what an attack draws; None where it may do without.
          victim: the network's loss, for attacks by gradients.
        """
        return unmoved(image, masks & valid[:, :, None, None])

    def perturb(self, levels: Levels, key: PRNGKeyArray) -> Levels:
        """Attacks the backbone's maps of the attacked images."""
        return levels
