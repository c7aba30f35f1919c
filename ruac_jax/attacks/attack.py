"""What every attack gives back."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float


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
