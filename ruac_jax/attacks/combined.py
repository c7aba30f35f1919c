"""RUAC's attack: style, then deformation, both predicted from the clean embedding (paper 3.3, B; method, section 4)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PRNGKeyArray

from ruac_jax.attacks.attack import Attack, AttackOutput, CleanScene
from ruac_jax.attacks.composition import Proposal, apply_proposal, restyle, style_slots
from ruac_jax.attacks.deformation import DeformationAttacker
from ruac_jax.attacks.fade import random_fade
from ruac_jax.attacks.style import StyleAttacker, StyleGraph, random_start
from ruac_jax.config import AttackConfig
from ruac_jax.functional.graph import pool, scene_graph
from ruac_jax.functional.resize import resize


class RUACAttack(Attack):
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

    def __call__(self, clean: CleanScene, key: PRNGKeyArray | None) -> AttackOutput:
        """Attacks a batch, in float32, by gradient-reversed parameters; `key` as in `propose`."""
        return apply_proposal(clean.image, clean.masks, self.propose(clean, key))

    def propose(self, clean: CleanScene, key: PRNGKeyArray | None) -> Proposal:
        """What the attack does to the colours of each slot and to the shape of each object.

        `key` is for dropout in the graph network, for the random start and for fading (None for none of them), and for
        the object of the scope "single" (None for the first). From a random start, as PGD has one, a learned attack
        makes many styles harder instead of becoming the same few for every image; the graph network sees where each
        slot starts.
        """
        embedding, image, masks = clean.embedding, clean.image, clean.masks
        flow = None
        if self.deformation is not None:
            flow = self.deformation(embedding, masks, clean.memory_encoder, self.settings.flow_epsilon)
        fade = random_fade(key, image.shape[0], self.settings.lowest_contrast)
        if self.style is None:
            return Proposal(None, flow, fade)
        slots = style_slots(image, masks, self.settings.scope, key)
        # A cell belongs to every slot with a pixel in it, so that small objects do not vanish.
        cells = resize(slots.masks[..., None].astype(jnp.float32), embedding.shape[1:3], "area")[..., 0] > 0
        nodes = pool(embedding, cells)
        delta = self.style(nodes, slots.statistics, self.settings.style_epsilon)
        start = jnp.zeros_like(delta)
        if self.settings.random_start and key is not None:
            start = random_start(jax.random.fold_in(key, 2), slots.statistics, self.settings.random_start)
        if self.graph is not None:
            delta = self.graph(start + delta, nodes, scene_graph(nodes, masks, cells), key) - start
        return Proposal(restyle(delta, slots, self.settings, start), flow, fade)
