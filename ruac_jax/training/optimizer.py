"""AdamW by parameter group: one cosine each, decay on matrices only, clipping, and a guard against non-finite steps.

Each group keeps its own Adam state and is left entirely alone in the phases that give it no gradient, so that an idle
attacker neither decays nor ages.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from ruac_jax.config import OptimizerConfig
from ruac_jax.training.groups import Group

_NOT_DECAYED = ("bias", "scale")


class Update(NamedTuple):
    """Outcome of one optimiser step.

    Attributes:
      params: parameters by group, unchanged where a gradient was not finite.
      state: Adam state by group, likewise.
      finite: whether the step was taken.
      norms: gradient norm of each group before clipping.
    """

    params: dict[Group, Any]
    state: dict[Group, Any]
    finite: Bool[Array, ""]
    norms: dict[Group, Float[Array, ""]]


def learning_rate(peak: float, step: Int[Array, ""], total_steps: int, settings: OptimizerConfig) -> Float[Array, ""]:
    """Linear warm-up (if any), then a cosine from `peak` to `final_fraction` of it at the last step."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if settings.warmup_steps else peak,
        peak_value=peak,
        warmup_steps=settings.warmup_steps,
        decay_steps=max(total_steps, settings.warmup_steps + 1),
        end_value=settings.final_fraction * peak,
    )
    return jnp.asarray(schedule(step.astype(jnp.float32)), jnp.float32)


def init_optimizer(params: dict[Group, Any], settings: OptimizerConfig) -> dict[Group, Any]:
    """Fresh Adam state for each group."""
    return {group: _direction(settings).init(part) for group, part in params.items()}


def apply_gradients(
    gradients: dict[Group, Any],
    state: dict[Group, Any],
    params: dict[Group, Any],
    step: Int[Array, ""],
    active: Collection[Group],
    total_steps: int,
    settings: OptimizerConfig,
) -> Update:
    """Clips, then moves each active group.

    Args:
      gradients: by group, as are `state` and `params`.
      step: steps done so far; drives the learning rates.
      active: groups that move in this phase.
      total_steps: length of the cosine.
      settings: rates, decay and clipping. The norm is clipped over all active groups together, or over attack and
        the rest apart (`clip_attack_apart`).
    """
    norms = {group: optax.tree.norm(gradients[group]) for group in active}
    finite = jnp.all(jnp.asarray([jnp.isfinite(norm) for norm in norms.values()]))
    new_params, new_state = dict(params), dict(state)

    def keep_if_finite(new: Array, old: Array) -> Array:
        return jnp.where(finite, new, old)

    for group in active:
        clip_with = [g for g in active if not settings.clip_attack_apart or (g == "attack") == (group == "attack")]
        norm = jnp.sqrt(sum(norms[g] ** 2 for g in clip_with))
        shrink = jnp.minimum(1.0, settings.clip_norm / (norm + 1e-6))
        clipped = jax.tree.map(lambda g, shrink=shrink: g * shrink, gradients[group])
        with jax.numpy_dtype_promotion("standard"):  # optax's bias correction raises a float to an integer power
            direction, moved = _direction(settings).update(clipped, state[group], params[group])
        rate = learning_rate(getattr(settings, group), step, total_steps, settings)
        stepped = jax.tree.map(lambda p, d, rate=rate: p - rate * d, params[group], direction)
        new_params[group] = jax.tree.map(keep_if_finite, stepped, params[group])
        new_state[group] = jax.tree.map(keep_if_finite, moved, state[group])
    return Update(new_params, new_state, finite, norms)


def update_average(
    average: dict[Group, Any], params: dict[Group, Any], step: Int[Array, ""], decay: float
) -> dict[Group, Any]:
    """Average after `step` + 1 steps: the plain mean of all until an exponential one of `decay` reaches further.

    Args:
      average: by group; empty stays empty.
      params: parameters after this step, of the same groups and more.
      step: steps done before this one.
      decay: in [0, 1).
    """
    done = step.astype(jnp.float32)
    keep = jnp.minimum(decay, done / (done + 1))
    return {
        group: jax.tree.map(lambda a, p: keep * a + (1 - keep) * p, part, params[group])
        for group, part in average.items()
    }


def _direction(settings: OptimizerConfig) -> optax.GradientTransformation:
    """AdamW's direction before the learning rate."""
    return optax.chain(
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        optax.add_decayed_weights(settings.weight_decay, mask=_decayed),
    )


def _decayed(params: Any) -> Any:
    """True for weights, False for biases and normalisation scales."""
    return jax.tree_util.tree_map_with_path(lambda path, _: str(path[-1].key) not in _NOT_DECAYED, params)
