"""Controls of a learned attack: its sizes without its directions, and its budget without its sizes.

An attack has learned something if it harms a network more than these do.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ruac_jax.attacks.attack import Attack, AttackOutput, CleanScene
from ruac_jax.attacks.combined import RUACAttack
from ruac_jax.attacks.composition import Proposal, apply_proposal, restyle
from ruac_jax.attacks.deformation import centred_flow
from ruac_jax.functional.resize import resize


class ControlAttack(Attack):
    """A learned attack, changed at random.

    "signs" keeps the size of every colour shift and flow vector and draws signs, one per entry and one turn by 0, 90,
    180 or 270 degrees per object; "uniform" draws both anew, evenly within the budget. Both keep a random start and
    fading.
    """

    def __init__(self, learned: RUACAttack, control: Literal["signs", "uniform"]):
        self.learned = learned
        self.control = control

    def __call__(self, clean: CleanScene, key: PRNGKeyArray | None) -> AttackOutput:
        """Attacks a batch; raises a ValueError without a key."""
        if key is None:
            raise ValueError("a control needs a key")
        image, masks = clean.image, clean.masks
        key_learned, key_style, key_flow = jax.random.split(key, 3)
        style, flow, fade = self.learned.propose(clean, key_learned)
        settings = self.learned.settings
        if style is not None:
            if self.control == "signs":
                delta = style.delta * jax.random.rademacher(key_style, style.delta.shape, jnp.float32)
            else:
                limit = settings.style_epsilon
                delta = jax.random.uniform(key_style, style.delta.shape, minval=-limit, maxval=limit)
            style = restyle(delta, style.slots, settings, style.start)
        if flow is not None:
            if self.control == "signs":
                flow = _turn(flow, jax.random.randint(key_flow, flow.shape[:2], 0, 4))
            else:
                grid = clean.embedding.shape[1:3]
                limit = settings.flow_epsilon * (image.shape[1] // grid[0])
                drawn = jax.random.uniform(key_flow, (*masks.shape[:2], *grid, 2), minval=-limit, maxval=limit)
                flow = resize(centred_flow(drawn, masks), masks.shape[2:], "bilinear")
        return apply_proposal(image, masks, Proposal(style, flow, fade))


def _turn(flow: Float[Array, "b k h w 2"], quarters: Array) -> Float[Array, "b k h w 2"]:
    """Turns each object's vectors by so many quarters of a circle."""
    x, y = flow[..., 0], flow[..., 1]
    turned = jnp.stack([jnp.stack(v, axis=-1) for v in ((x, y), (-y, x), (-x, -y), (y, -x))])
    chosen = jax.nn.one_hot(quarters, 4, axis=0, dtype=flow.dtype)
    return (turned * chosen[..., None, None, None]).sum(axis=0)
