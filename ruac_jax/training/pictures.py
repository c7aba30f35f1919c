"""What training looks like: image, attacked image, flow, masks, uncertainty and error of a few objects."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from ruac_jax.attacks.attack import unmoved
from ruac_jax.config import Config
from ruac_jax.evaluation.figures import overlay
from ruac_jax.functional.resize import resize
from ruac_jax.interaction import interact, repeat_for_objects
from ruac_jax.model import IMAGE_MEAN, IMAGE_STD, normalize_image
from ruac_jax.prompt_sampling import draw_initial_prompts
from ruac_jax.training.adversarial import adversarial_branch
from ruac_jax.training.objective import DeviceBatch
from ruac_jax.training.system import cast_for_compute, merge_system


class Snapshot(NamedTuple):
    """Arrays of one picture: `b` images, `k` object slots, colours in [0, 1]."""

    image: Float[Array, "b h w 3"]
    attacked: Float[Array, "b h w 3"]
    flow: Float[Array, "b k h w 2"]
    masks: Bool[Array, "b k h w"]
    probability: Float[Array, "b k h w"]
    uncertainty: Float[Array, "b k h w"]
    valid: Bool[Array, "b k"]


def make_snapshot(graph: nnx.GraphDef, config: Config) -> Callable[..., Snapshot]:
    """Compiles `snapshot(params, frozen, batch, key)`: the attacked branch, or the clean one if there is no attack."""
    dtype = jnp.dtype(config.runtime.compute_dtype)

    def snapshot(params: Any, frozen: Any, batch: DeviceBatch, key: Array) -> Snapshot:
        system = merge_system(graph, *cast_for_compute(params, frozen, dtype))
        model = system.model
        image = normalize_image(batch.image)
        features = model.project(model.backbone(image.astype(dtype)))
        b, k, height, width = batch.masks.shape
        key_prompts, key_clicks, key_attack = jax.random.split(key, 3)
        truth, attack = batch.masks.reshape(b * k, height, width), unmoved(image, batch.masks)
        points, labels = draw_initial_prompts(key_prompts, truth, config.interaction)
        if system.attack is not None:
            keys = (key_attack, jax.random.fold_in(key_prompts, 0))
            attack, features, truth, points = adversarial_branch(
                system, features, image, batch.masks, batch.valid, points, labels, keys, dtype
            )
        rows = repeat_for_objects(features, k)
        done = interact(model, rows, truth, points, labels, key_clicks, config.interaction, rematerialize=False)

        def fine(x: Array) -> Array:
            return resize(x[:, 0, :, :, None], (height, width), "bilinear")[..., 0].reshape(b, k, height, width)

        def colours(x: Array) -> Array:
            std, mean = jnp.asarray(IMAGE_STD, jnp.float32), jnp.asarray(IMAGE_MEAN, jnp.float32)
            return jnp.clip(x * std[None, None, None, :] + mean[None, None, None, :], 0.0, 1.0)

        return Snapshot(
            image=colours(image),
            attacked=colours(attack.image),
            flow=attack.flow,
            masks=attack.masks,
            probability=fine(done.distribution.probability()),
            uncertainty=fine(done.distribution.uncertainty("analytic", mode=config.loss.variance)),
            valid=batch.valid,
        )

    return jax.jit(snapshot)


def draw_snapshot(snapshot: Snapshot, path: Path, rows: int = 3) -> None:
    """Draws the first valid object of each of the first `rows` images and saves a PNG."""
    columns = ("image", "attacked", "flow (px)", "truth", "prediction", "uncertainty", "error")
    arrays = Snapshot(*(np.asarray(x) for x in snapshot))
    chosen = [(i, int(np.argmax(arrays.valid[i]))) for i in range(len(arrays.image)) if arrays.valid[i].any()][:rows]
    if not chosen:
        return
    figure = Figure(figsize=(2 * len(columns), 2.15 * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), len(columns), squeeze=False)
    reach = max(float(np.linalg.norm(arrays.flow, axis=-1).max()), 1e-6)
    for axis_row, (i, k) in zip(axes, chosen, strict=True):
        truth, probability = arrays.masks[i, k], arrays.probability[i, k]
        attacked = (255 * arrays.attacked[i]).astype(np.uint8)
        panels = (
            (arrays.image[i], {}),
            (arrays.attacked[i], {}),
            (flow_colours(arrays.flow[i].sum(axis=0), reach), {}),
            (overlay(attacked, truth[None]), {}),
            (overlay(attacked, probability[None] > 0.5), {}),
            (arrays.uncertainty[i, k], {"cmap": "magma", "vmin": 0, "vmax": 1}),
            (np.abs(probability - truth), {"cmap": "magma", "vmin": 0, "vmax": 1}),
        )
        for axis, (panel, style) in zip(axis_row, panels, strict=True):
            axis.imshow(panel, interpolation="nearest", **style)
            axis.set_axis_off()
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title if title != "flow (px)" else f"flow, at most {reach:.1f} px", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def flow_colours(flow: np.ndarray, reach: float) -> np.ndarray:
    """Colours a flow field [h, w, 2]: hue is its direction, saturation its length relative to `reach`."""
    hue = (np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi)) % 1.0
    length = np.clip(np.linalg.norm(flow, axis=-1) / reach, 0, 1)
    return hsv_to_rgb(np.stack([hue, length, np.ones_like(hue)], axis=-1))
