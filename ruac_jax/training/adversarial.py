"""The adversarial branch up to the click loop: attacked images, encoded, and prompts moved with their objects."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ruac_jax.attacks.attack import AttackOutput, clean_scene
from ruac_jax.functional.warp import move_points
from ruac_jax.model import ImageFeatures
from ruac_jax.prompt_sampling import move_initial_prompts
from ruac_jax.training.system import System
from ruac_jax.training.victim import decoder_loss


class AdversarialBranch(NamedTuple):
    """What the click loop of the adversarial branch starts from, for `b` images with `k` slots, n = b k.

    Attributes:
      attack: attacked images, masks, flow and figures.
      features: of the attacked images, their statistics attacked too where the attack does that.
      truth: the objects where the attack has moved them.
      points: the clean branch's first prompts, moved with their objects (method, section 4.4), px.
    """

    attack: AttackOutput
    features: ImageFeatures
    truth: Bool[Array, "n H W"]
    points: Float[Array, "n f 2"]


def adversarial_branch(
    system: System,
    features: ImageFeatures,
    image: Float[Array, "b H W 3"],
    masks: Bool[Array, "b k H W"],
    valid: Bool[Array, "b k"],
    points: Float[Array, "n f 2"],
    labels: Int[Array, "n f"],
    keys: tuple[PRNGKeyArray, PRNGKeyArray],
    dtype: jnp.dtype,
) -> AdversarialBranch:
    """Attacks a batch and encodes it again (section 3.3; prompts: docs/method.md, adversarial prompts).

    Args:
      system: network and attack.
      features: of the clean images.
      image: clean, ImageNet-normalised, float32.
      masks: objects.
      valid: False for slots without one.
      points: the clean branch's first prompts.
      labels: of the points.
      keys: for the attack, and for prompts that have to be drawn anew.
      dtype: in which the encoder computes.
    """
    model, (key_attack, key_moved) = system.model, keys
    victim = decoder_loss(model, masks, valid, points, labels, dtype)
    clean = clean_scene(features.embedding, image, masks, valid, model.memory_encoder, victim)
    attack = system.attack(clean, key_attack)
    levels = system.attack.perturb(model.backbone(attack.image.astype(dtype)), jax.random.fold_in(key_attack, 0))
    truth = attack.masks.reshape(-1, *masks.shape[2:])
    moved = move_points(points.reshape(*valid.shape, *points.shape[1:]), attack.flow).reshape(points.shape)
    moved = move_initial_prompts(key_moved, moved, labels, truth)
    return AdversarialBranch(attack, model.project(levels), truth, moved)
