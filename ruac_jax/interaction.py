"""The click loop on device: a first prompt, then corrections drawn from the errors (SAM2's training/model/sam2.py).

Gradients run through every step, also through the logits that are fed back as a mask prompt. The corrections are one
`lax.scan`, so that a step is compiled once however many there are.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ruac_jax.config import InteractionConfig
from ruac_jax.functional.losses import SegmentationTerms, segmentation_terms
from ruac_jax.functional.resize import resize
from ruac_jax.heads.distribution import MaskDistribution
from ruac_jax.model import SAM2, ImageFeatures, Prompts, suppress_absent
from ruac_jax.prompt_sampling import draw_correction
from ruac_jax.sam2.prompt_encoder import ABSENT, POSITIVE


class Interaction(NamedTuple):
    """What the click loop of `n` objects leaves behind.

    Attributes:
      terms: loss terms of each object, summed over the steps, unweighted.
      likelihood: the head's own loss of each object (`MaskDistribution.likelihood`), summed over the steps.
      regularizer: KL of each object, mean over the steps.
      last_regularizer: KL of each object at the last step.
      distribution: over the logits of mask token 0 at the last step.
      logits: sampled low-resolution logits of the last step.
      points: every prompt given, (x, y) px.
      labels: their labels.
    """

    terms: SegmentationTerms
    likelihood: Float[Array, "n"]
    regularizer: Float[Array, "n"]
    last_regularizer: Float[Array, "n"]
    distribution: MaskDistribution
    logits: Float[Array, "n h w"]
    points: Float[Array, "n p 2"]
    labels: Int[Array, "n p"]


class _Step(NamedTuple):
    logits: Array  # fed back, [n, h, w]
    prediction: Array  # at image resolution, [n, H, W] bool
    terms: SegmentationTerms
    likelihood: Array
    regularizer: Array


class _Carry(NamedTuple):
    points: Array
    labels: Array
    logits: Array
    prediction: Array
    terms: SegmentationTerms
    likelihood: Array
    regularizer: Array


def repeat_for_objects(features: ImageFeatures, objects: int) -> ImageFeatures:
    """Repeats each image's features for its object slots: rows [b, ...] become [b * objects, ...]."""

    def repeat(x: Array) -> Array:
        return jnp.broadcast_to(x[:, None], (x.shape[0], objects, *x.shape[1:])).reshape(-1, *x.shape[1:])

    return jax.tree.map(repeat, features)


def interact(
    model: SAM2,
    features: ImageFeatures,
    truth: Bool[Array, "n h w"],
    points: Float[Array, "n f 2"],
    labels: Int[Array, "n f"],
    key: PRNGKeyArray,
    settings: InteractionConfig,
    *,
    rematerialize: bool,
) -> Interaction:
    """Runs the click loop on `n` objects and collects its losses (docs/method.md, section 5).

    Args:
      model: the network; its head gives the distribution that logits are sampled from.
      features: one row per object.
      truth: object masks at image resolution.
      points: the first prompts, as `prompt_sampling.draw_initial_prompts` gives them.
      labels: their labels; an object without a box gets three mask hypotheses at the first step.
      key: for sampling logits and clicks.
      settings: number of corrections and how they are drawn.
      rematerialize: recompute each step in the backward pass instead of keeping its activations.
    """
    n, first_slots = labels.shape
    height, width = features.high_res_s0.shape[1:3]
    coarse_truth = resize(truth[..., None].astype(jnp.float32), (height, width), "area")[..., 0]
    step = partial(_step, model, features, truth, coarse_truth)
    if rematerialize:
        step = jax.checkpoint(step, static_argnums=(2,))
    key_first, key_corrections = jax.random.split(key)

    unused = settings.corrections
    points = jnp.concatenate([points, jnp.zeros((n, unused, 2), points.dtype)], axis=1)
    labels = jnp.concatenate([labels, jnp.full((n, unused), ABSENT, labels.dtype)], axis=1)
    blank = jnp.zeros((n, height, width), jnp.float32)
    prompts = Prompts(points, labels, blank, jnp.zeros(n, bool))
    first, distribution = step(prompts, key_first, True)
    carry = _Carry(points, labels, first.logits, first.prediction, first.terms, first.likelihood, first.regularizer)
    last_regularizer = first.regularizer

    def correct(carry: _Carry, index: Array) -> tuple[_Carry, tuple[MaskDistribution, Array]]:
        key_click, key_step = jax.random.split(jax.random.fold_in(key_corrections, index))
        click, label = draw_correction(key_click, truth, carry.prediction, settings.truth_probability)
        points = jax.lax.dynamic_update_slice_in_dim(carry.points, click[:, None], first_slots + index, axis=1)
        labels = jax.lax.dynamic_update_slice_in_dim(carry.labels, label[:, None], first_slots + index, axis=1)
        done, distribution = step(Prompts(points, labels, carry.logits, jnp.ones(n, bool)), key_step, False)
        total = jax.tree.map(jnp.add, carry.terms, done.terms)
        likelihood, regularizer = carry.likelihood + done.likelihood, carry.regularizer + done.regularizer
        carry = _Carry(points, labels, done.logits, done.prediction, total, likelihood, regularizer)
        return carry, (distribution, done.regularizer)

    if settings.corrections:  # the last one stands apart: only its distribution is kept
        if settings.corrections > 1:
            carry, _ = jax.lax.scan(
                lambda carry, index: (correct(carry, index)[0], None), carry, jnp.arange(settings.corrections - 1)
            )
        carry, (distribution, last_regularizer) = correct(carry, jnp.asarray(settings.corrections - 1))
    return Interaction(
        terms=carry.terms,
        likelihood=carry.likelihood,
        regularizer=carry.regularizer / (settings.corrections + 1),
        last_regularizer=last_regularizer,
        distribution=distribution,
        logits=carry.logits,
        points=carry.points,
        labels=carry.labels,
    )


def _step(
    model: SAM2,
    features: ImageFeatures,
    truth: Array,
    coarse_truth: Array,
    prompts: Prompts,
    key: Array,
    multimask: bool,
) -> tuple[_Step, MaskDistribution]:
    """One decoder pass; with `multimask`, objects without a box are judged on tokens 1 to 3."""
    decoded = model.decode(features, prompts)
    distribution = model.head(decoded)
    tokens = distribution if multimask else distribution.select(0, 1)
    logits = suppress_absent(tokens.sample_logits(key), decoded.object_score)
    fine = resize(logits[..., None], truth.shape[1:], "bilinear")[..., 0]
    iou = decoded.iou.astype(jnp.float32)
    score = decoded.object_score.astype(jnp.float32)

    terms = segmentation_terms(fine[:, :1], truth, iou[:, :1], score)
    coarse, prediction = logits[:, 0], fine[:, 0] > 0
    if multimask:
        several = prompts.labels[:, 0] == POSITIVE
        several_terms = segmentation_terms(fine[:, 1:], truth, iou[:, 1:], score)
        best = jax.nn.one_hot(jnp.argmax(iou[:, 1:], axis=1), iou.shape[1] - 1)[:, :, None, None]
        chosen = (several[:, None, None], (logits[:, 1:] * best).sum(axis=1), (fine[:, 1:] * best).sum(axis=1) > 0)
        coarse = jnp.where(chosen[0], chosen[1], coarse)
        prediction = jnp.where(chosen[0], chosen[2], prediction)
        terms = jax.tree.map(partial(jnp.where, several), several_terms, terms)
    single = distribution.select(0, 1)
    return _Step(coarse, prediction, terms, single.likelihood(coarse_truth), distribution.regularizer()), single
