"""RUAC's attack: style, then deformation, both predicted from the clean embedding (paper 3.3, B; method, section 4).

Styling is exact under the warp and needs no scatter in the backward pass: the four corners of every sampling position
are gathered from the clean image, a constant, together with their slots; they are recoloured (with the clip) and then
blended, which is what warping the styled image would give. The slots' numbers get their gradient as sums over pixels,
the flow gets its own through the bilinear weights.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ruac_jax.attacks.attack import AttackOutput
from ruac_jax.attacks.deformation import DeformationAttacker
from ruac_jax.attacks.style import StyleAttacker, StyleGraph, limit_delta
from ruac_jax.config import AttackConfig
from ruac_jax.functional.adain import Recolouring, owner_map, recolour, recolouring, slot_statistics
from ruac_jax.functional.autodiff import reverse_gradient
from ruac_jax.functional.graph import pool, scene_graph
from ruac_jax.functional.resize import resize
from ruac_jax.functional.warp import corners, coverage, gather, sampling_positions, warp_masks
from ruac_jax.sam2.memory_encoder import MemoryEncoder

Metrics = dict[str, Float[Array, ""]]


class RUACAttack(nnx.Module):
    """Learned attack on a batch; either half may be missing, and the graph from the style half."""

    def __init__(
        self,
        style: StyleAttacker | None,
        graph: StyleGraph | None,
        deformation: DeformationAttacker | None,
        settings: AttackConfig,
    ):
        if style is None and (graph is not None or deformation is None):
            raise ValueError("an attack needs a style or a deformation part, and a graph needs a style part")
        self.style = style
        self.graph = graph
        self.deformation = deformation
        self.settings = settings

    @classmethod
    def create(cls, settings: AttackConfig, d_model: int, *, rngs: nnx.Rngs) -> "RUACAttack":
        """The attack that the settings ask for, for embeddings of `d_model` channels."""
        return cls(
            StyleAttacker(d_model, rngs=rngs) if settings.style else None,
            StyleGraph(d_model, rngs=rngs) if settings.graph else None,
            DeformationAttacker(d_model, rngs=rngs) if settings.deformation else None,
            settings,
        )

    def __call__(
        self,
        embedding: Float[Array, "b h w d"],
        image: Float[Array, "b H W 3"],
        masks: Bool[Array, "b k H W"],
        valid: Bool[Array, "b k"],
        memory_encoder: MemoryEncoder,
        key: PRNGKeyArray | None,
    ) -> AttackOutput:
        """Attacks a batch, in float32.

        Args:
          embedding: of the clean images, stride 16; taken as constant.
          image: clean, ImageNet-normalised; taken as constant.
          masks: objects; where they overlap, the first one's colours count.
          valid: False for slots without an object.
          memory_encoder: the model's own, frozen.
          key: for dropout in the graph network; None for none.
        """
        embedding, image = (jax.lax.stop_gradient(x.astype(jnp.float32)) for x in (embedding, image))
        masks = masks & valid[:, :, None, None]
        owner = owner_map(masks)
        change, flow, metrics = None, None, {}
        if self.style is not None:
            change, metrics = self._restyle(embedding, image, masks, owner, key)
        if self.deformation is not None:
            flow = self.deformation(embedding, masks, memory_encoder, self.settings.flow_epsilon)
            metrics = metrics | _flow_metrics(flow, masks)
        styled = image if change is None else recolour(image, owner, change)
        if flow is None:
            still = jnp.zeros((*masks.shape, 2), jnp.float32)
            return AttackOutput(styled, masks, still, metrics)
        moved = warp_masks(masks, flow)
        attacked = _compose(image, styled, owner, change, flow, coverage(masks, moved))
        return AttackOutput(attacked, moved, jax.lax.stop_gradient(flow), metrics)

    def _restyle(
        self,
        embedding: Float[Array, "b h w d"],
        image: Float[Array, "b H W 3"],
        masks: Bool[Array, "b k H W"],
        owner: Int[Array, "b H W"],
        key: PRNGKeyArray | None,
    ) -> tuple[Recolouring, Metrics]:
        slots = jnp.concatenate([masks, ~masks.any(axis=1, keepdims=True)], axis=1)
        # A cell belongs to every slot with a pixel in it, so that small objects do not vanish.
        cells = resize(slots[..., None].astype(jnp.float32), embedding.shape[1:3], "area")[..., 0] > 0
        nodes = pool(embedding, cells)
        statistics = slot_statistics(image, owner, slots.shape[1])
        delta = self.style(nodes, statistics, self.settings.style_epsilon)
        if self.graph is not None:
            delta = self.graph(delta, nodes, scene_graph(nodes, masks, cells), key)
        delta, saturated = limit_delta(delta, statistics, self.settings.style_epsilon, self.settings.bound)
        present = cells.any(axis=(2, 3))[..., None].astype(jnp.float32)
        entries = present.sum() * delta.shape[-1]  # never zero: an image without objects is all background
        metrics = {
            "style_shift": (jax.lax.stop_gradient(jnp.abs(delta)) * present).sum() / entries,
            "style_saturated": (saturated.astype(jnp.float32) * present).sum() / entries,
        }
        return recolouring(reverse_gradient(delta), statistics), metrics


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
