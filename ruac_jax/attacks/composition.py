"""What a style change and a flow do to a batch, whoever chose them: the learned attack or its random rival.

Styling is exact under the warp and needs no scatter in the backward pass: the four corners of every sampling position
are gathered from the clean image, a constant, together with their slots; they are recoloured (with the clip) and then
blended, which is what warping the styled image would give. The slots' numbers get their gradient as sums over pixels,
the flow gets its own through the bilinear weights. Method, sections 4.1 and 4.3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ruac_jax.attacks.attack import AttackOutput, unmoved
from ruac_jax.attacks.fade import Fade, apply_fade
from ruac_jax.attacks.style import limit_delta
from ruac_jax.config import AttackConfig, Scope
from ruac_jax.functional.adain import (
    Recolouring,
    SlotStatistics,
    owner_map,
    recolour,
    recolouring,
    slot_statistics,
)
from ruac_jax.functional.autodiff import reverse_gradient
from ruac_jax.functional.warp import corners, coverage, gather, sampling_positions, warp_masks

Metrics = dict[str, Float[Array, ""]]


class StyleSlots(NamedTuple):
    """Regions of an image that are styled as one each.

    Attributes:
      masks: of each slot; objects may overlap.
      owner: slot of each pixel.
      statistics: of each slot's colours.
      styled: False for a slot that keeps its colours.
    """

    masks: Bool[Array, "b s H W"]
    owner: Int[Array, "b H W"]
    statistics: SlotStatistics
    styled: Bool[Array, "b s"]


class Style(NamedTuple):
    """A bounded change of colours by slot.

    Attributes:
      slots: the regions.
      start: random shifts of mean (3) and standard deviation (3) that come before `delta`.
      delta: shifts within the budget; both are zero where a slot keeps its colours.
      saturated: entries of `delta` that sit at a bound.
    """

    slots: StyleSlots
    start: Float[Array, "b s 6"]
    delta: Float[Array, "b s 6"]
    saturated: Bool[Array, "b s 6"]


class Proposal(NamedTuple):
    """What an attack does to a batch; None for what it leaves alone.

    Attributes:
      style: of the slots.
      flow: of each object, (dx, dy) in px, backward.
      fade: of whole images, last of all.
    """

    style: Style | None
    flow: Float[Array, "b k H W 2"] | None
    fade: Fade | None = None


def style_slots(
    image: Float[Array, "b H W 3"], masks: Bool[Array, "b k H W"], scope: Scope, key: PRNGKeyArray | None
) -> StyleSlots:
    """The slots of a scope (table 4 of the paper: Global, Single, Multi, MultiBG).

    "image" is one slot, the whole image; the others have one per object and, last, the background, of which "single"
    styles one object drawn with `key` (None: the first), "objects" all but the background, "all" every one.
    """
    b, k = masks.shape[:2]
    if scope == "image":
        whole = jnp.ones((b, 1, *masks.shape[2:]), bool)
        owner = jnp.zeros((b, *masks.shape[2:]), jnp.int32)
        return StyleSlots(whole, owner, slot_statistics(image, owner, 1), jnp.ones((b, 1), bool))
    slots = jnp.concatenate([masks, ~masks.any(axis=1, keepdims=True)], axis=1)
    styled = slots.any(axis=(2, 3))
    if scope != "all":
        styled &= (jnp.arange(k + 1) < k)[None]
    if scope == "single":
        order = jnp.zeros((b, k + 1)) if key is None else jax.random.uniform(jax.random.fold_in(key, 1), (b, k + 1))
        first = jnp.argmin(jnp.where(styled, order, jnp.inf), axis=1)
        styled &= jnp.arange(k + 1)[None] == first[:, None]
    owner = owner_map(masks)
    return StyleSlots(slots, owner, slot_statistics(image, owner, k + 1), styled)


def restyle(
    delta: Float[Array, "b s 6"], slots: StyleSlots, settings: AttackConfig, start: Float[Array, "b s 6"] | None = None
) -> Style:
    """Bounds a change of colours, on top of `start` (None: of none), and keeps both to the slots that are styled."""
    start = jnp.zeros_like(delta) if start is None else start
    bounded, saturated = limit_delta(delta, slots.statistics, settings.style_epsilon, settings.bound, start)
    styled = slots.styled[..., None]
    return Style(slots, jnp.where(styled, start, 0.0), jnp.where(styled, bounded, 0.0), saturated & styled)


def apply_proposal(image: Float[Array, "b H W 3"], masks: Bool[Array, "b k H W"], proposal: Proposal) -> AttackOutput:
    """Styles, warps and fades a batch. Colour shifts get their gradient reversed; a flow comes with its own reversed.

    Args:
      image: clean, constant.
      masks: of valid objects.
      proposal: what to do.
    """
    style, flow, fade = proposal
    change, metrics = None, {}
    owner = owner_map(masks)
    if style is not None:
        owner = style.slots.owner
        change = recolouring(style.start + reverse_gradient(style.delta), style.slots.statistics)
        metrics = _style_metrics(style)
    styled = image if change is None else recolour(image, owner, change)
    attacked = unmoved(styled, masks, metrics)
    if flow is not None:
        metrics |= _flow_metrics(flow, masks)
        moved = warp_masks(masks, flow)
        composed = _compose(image, styled, owner, change, flow, coverage(masks, moved))
        attacked = AttackOutput(composed, moved, jax.lax.stop_gradient(flow), metrics)
    if fade is not None:
        faded = apply_fade(attacked.image, fade)
        attacked = attacked._replace(image=faded, metrics=metrics | {"contrast": fade.contrast.mean()})
    return attacked


def _style_metrics(style: Style) -> Metrics:
    """Mean size of the shifts, and the share of them that sit at a bound, over styled slots."""
    present = style.slots.styled[..., None].astype(jnp.float32)
    entries = jnp.maximum(present.sum() * style.delta.shape[-1], 1.0)
    return {
        "style_shift": (jax.lax.stop_gradient(jnp.abs(style.start + style.delta)) * present).sum() / entries,
        "style_saturated": (style.saturated.astype(jnp.float32) * present).sum() / entries,
    }


def _compose(
    image: Float[Array, "b h w 3"],
    styled: Float[Array, "b h w 3"],
    owner: Int[Array, "b h w"],
    change: Recolouring | None,
    flow: Float[Array, "b k h w 2"],
    shares: Float[Array, "b k h w"],
) -> Float[Array, "b h w 3"]:
    """The styled image, with each object's warp of it mixed in by its share."""
    source = jnp.concatenate([image, owner[..., None].astype(image.dtype)], axis=-1)

    # One object, one corner at a time, recomputed in the backward pass: kept, they would dwarf the image.
    @jax.checkpoint
    def add_corner(total: jax.Array, corner: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        index, weight = corner
        found = gather(source, index)
        colours = found[..., :3]
        if change is not None:
            colours = recolour(colours, found[..., 3].astype(jnp.int32), change)
        return total + weight[..., None] * colours, None

    @jax.checkpoint
    def add_object(total: jax.Array, item: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        flow, share = item
        near = corners(sampling_positions(flow), *image.shape[1:3])
        weight = near.weight * share[:, None]
        return jax.lax.scan(add_corner, total, (jnp.moveaxis(near.index, 1, 0), jnp.moveaxis(weight, 1, 0)))[0], None

    still = styled * (1 - shares.sum(axis=1))[..., None]
    return jax.lax.scan(add_object, still, (jnp.moveaxis(flow, 1, 0), jnp.moveaxis(shares, 1, 0)))[0]


def _flow_metrics(flow: Float[Array, "b k h w 2"], masks: Bool[Array, "b k h w"]) -> Metrics:
    """Mean and largest displacement over the objects' pixels."""
    length = jnp.where(masks, jnp.linalg.norm(jax.lax.stop_gradient(flow), axis=-1), 0.0)
    pixels = jnp.maximum(masks.sum(dtype=jnp.int32), 1).astype(jnp.float32)
    return {"flow_px": length.sum() / pixels, "flow_px_max": length.max()}
