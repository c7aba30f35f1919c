"""The training objective, phase by phase (section 3.4; docs/method.md, section 5).

Every term is a sum over valid objects; the step divides by their number in the whole effective batch, so that
neither devices nor micro-batches change the loss.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from ruac_jax.adapters.lora import set_dropout_key
from ruac_jax.config import Config, LossConfig
from ruac_jax.functional.losses import SegmentationTerms, calibration_terms
from ruac_jax.functional.resize import resize
from ruac_jax.interaction import Interaction, interact, repeat_for_objects
from ruac_jax.model import normalize_image
from ruac_jax.prompt_sampling import draw_initial_prompts
from ruac_jax.training.adversarial import adversarial_branch
from ruac_jax.training.groups import Group
from ruac_jax.training.system import System, cast_for_compute, merge_system


class Phase(NamedTuple):
    """One phase of the curriculum (appendix C.2): which terms join the segmentation loss."""

    name: str
    kl: bool
    adversarial: bool


PHASES = (
    Phase("segmentation", kl=False, adversarial=False),
    Phase("kl", kl=True, adversarial=False),
    Phase("adversarial", kl=True, adversarial=True),
)


class DeviceBatch(NamedTuple):
    """A micro-batch on device: `b` images with `k` object slots."""

    image: UInt8[Array, "b h w 3"]
    masks: Bool[Array, "b k h w"]
    valid: Bool[Array, "b k"]


class Channels(NamedTuple):
    """The objective in parts that the "split" routing sends to different parameters; sums over objects, weighted.

    Attributes:
      main: everything that reaches every parameter.
      error: the calibration loss's error channel, for the attack alone.
      uncertainty: its uncertainty channel, for the head alone.
    """

    main: Float[Array, ""]
    error: Float[Array, ""]
    uncertainty: Float[Array, ""]


Sums = dict[str, Float[Array, ""]]


def weighted_segmentation(terms: SegmentationTerms, weights: LossConfig) -> Float[Array, "n"]:
    """SAM2's weighted sum of an object's loss terms."""
    return (
        weights.focal * terms.focal
        + weights.dice * terms.dice
        + weights.iou * terms.iou
        + weights.object_score * terms.object
    )


def objective(
    system: System, batch: DeviceBatch, key: PRNGKeyArray, phase: Phase, config: Config
) -> tuple[Channels, Sums]:
    """Evaluates one micro-batch.

    Args:
      system: network and attack, merged inside the trace.
      batch: images and truth.
      key: for prompts, sampled logits and the attack.
      phase: which terms take part (static).
      config: weights and settings (static).

    Returns:
      The weighted loss by channel and every term's unweighted sum over valid objects (attack figures are per image,
      scaled likewise).
    """
    model, weights = system.model, config.loss
    valid = batch.valid.reshape(-1)
    dtype = jnp.dtype(config.runtime.compute_dtype)
    key_prompts, key_clean, key_attack, key_moved, key_adversarial = jax.random.split(key, 5)
    image = normalize_image(batch.image)
    truth = batch.masks.reshape(-1, *batch.masks.shape[2:])

    def total(x: Float[Array, "n"]) -> Float[Array, ""]:
        return jnp.where(valid, x, 0.0).sum()

    key_dropout = jax.random.fold_in(key, 5)  # apart from the five above, which adapters leave as they are

    set_dropout_key(model, jax.random.fold_in(key_dropout, 0))
    features = model.project(model.backbone(image.astype(dtype)))
    points, labels = draw_initial_prompts(key_prompts, truth, config.interaction)

    def run(features: Any, truth: Array, points: Array, key: Array) -> Interaction:
        rows = repeat_for_objects(features, batch.masks.shape[1])
        return interact(
            model, rows, truth, points, labels, key, config.interaction, rematerialize=config.runtime.rematerialize
        )

    clean = run(features, truth, points, key_clean)
    likelihood = total(clean.likelihood)
    segmentation = total(weighted_segmentation(clean.terms, weights)) + likelihood
    sums = {f"clean/{name}": total(value) for name, value in clean.terms._asdict().items()}
    sums |= {"clean/likelihood": likelihood, "clean/segmentation": segmentation, "clean/kl": total(clean.regularizer)}
    objects = valid.sum().astype(jnp.float32)
    sums |= {f"head/{name}": value * objects for name, value in clean.distribution.diagnostics().items()}
    kl = weights.kl * weights.kl_stream * sums["clean/kl"] if phase.kl else jnp.zeros(())
    if not phase.adversarial:
        return Channels(segmentation + kl, jnp.zeros(()), jnp.zeros(())), sums

    set_dropout_key(model, jax.random.fold_in(key_dropout, 1))
    keys = (key_attack, key_moved)
    branch = adversarial_branch(system, features, image, batch.masks, batch.valid, points, labels, keys, dtype)
    harder = run(branch.features, branch.truth, branch.points, key_adversarial)

    uncertainty = harder.distribution.uncertainty("analytic", mode=weights.variance)[:, 0]
    logits = harder.distribution.mean_logits()[:, 0]
    coarse_truth = resize(branch.truth[..., None].astype(jnp.float32), logits.shape[1:], "area")[..., 0] >= 0.5
    calibration = calibration_terms(logits, coarse_truth, uncertainty)

    adversarial_likelihood = total(harder.likelihood)
    adversarial = total(weighted_segmentation(harder.terms, weights)) + adversarial_likelihood
    error, spread = total(calibration.error), total(calibration.uncertainty)
    adversarial_kl = total(harder.last_regularizer)
    sums |= {f"adversarial/{name}": total(value) for name, value in harder.terms._asdict().items()}
    sums |= {"adversarial/segmentation": adversarial, "adversarial/kl": adversarial_kl}
    sums |= {"adversarial/likelihood": adversarial_likelihood}
    sums |= {"adversarial/calibration_error": error, "adversarial/calibration_uncertainty": spread}
    sums |= {f"attack/{name}": value * objects for name, value in branch.attack.metrics.items()}

    share = weights.adversarial
    main = (1 - share) * segmentation + kl + share * (adversarial + weights.kl * weights.kl_stream * adversarial_kl)
    error, spread = (share * weights.calibration * channel for channel in (error, spread))
    if weights.routing == "joint":
        return Channels(main + error + spread, jnp.zeros(()), jnp.zeros(())), sums
    return Channels(main, error, spread), sums


def gradients(
    graph: nnx.GraphDef,
    trainable: dict[Group, Any],
    frozen: Any,
    batch: DeviceBatch,
    key: PRNGKeyArray,
    phase: Phase,
    config: Config,
) -> tuple[dict[Group, Any], Channels, Sums]:
    """Differentiates the objective with respect to the trainable groups, each channel reaching its own.

    Returns:
      Gradients by group (sums over objects), the channels and the unweighted sums.
    """
    dtype = jnp.dtype(config.runtime.compute_dtype)

    def evaluate(trainable: dict[Group, Any]) -> tuple[Channels, Sums]:
        network, rest = cast_for_compute(trainable, frozen, dtype)
        return objective(merge_system(graph, network, rest), batch, key, phase, config)

    channels, pull, sums = jax.vjp(evaluate, trainable, has_aux=True)
    one, zero = jnp.ones(()), jnp.zeros(())
    (grads,) = pull(Channels(one, zero, zero))
    if phase.adversarial and config.loss.routing == "split":
        (by_error,) = pull(Channels(zero, one, zero))
        (by_uncertainty,) = pull(Channels(zero, zero, one))
        for group, extra in (("attack", by_error), ("head", by_uncertainty)):
            if group in grads:
                grads[group] = jax.tree.map(jnp.add, grads[group], extra[group])
    return grads, channels, sums


def count_objects(valid: Bool[Array, "..."]) -> Int[Array, ""]:
    """Number of valid objects, at least one."""
    return jnp.maximum(valid.sum(), 1)
