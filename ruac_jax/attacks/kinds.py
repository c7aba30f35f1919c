"""Attacks by the name that a configuration gives them."""

from flax import nnx

from ruac_jax.attacks.attack import Attack
from ruac_jax.attacks.combined import RUACAttack
from ruac_jax.attacks.features import FeatureAttack
from ruac_jax.attacks.pixel import GradientAttack, NoiseAttack
from ruac_jax.attacks.random import RandomAttack
from ruac_jax.config import AttackConfig


def create_attack(settings: AttackConfig, d_model: int, *, rngs: nnx.Rngs) -> Attack:
    """The attack that `settings.kind` names, for embeddings of `d_model` channels; only "learned" has parameters."""
    match settings.kind:
        case "learned":
            return RUACAttack.create(settings, d_model, rngs=rngs)
        case "random":
            return RandomAttack(settings)
        case "noise":
            return NoiseAttack()
        case "pgd" | "patch":
            return GradientAttack(patch=settings.kind == "patch")
        case "mixstyle" | "dsu":
            return FeatureAttack(settings.kind)
