"""Prompts drawn at random on device, as SAM2 draws them in training (sam2/modeling/sam2_utils.py).

Points are (x, y) in pixels, integers at pixel centres. Labels: 1 object, 0 background, 2 and 3 the box corners,
`ABSENT` an unused slot. Deviation from SAM2: box or point is drawn for each object, not once for a whole batch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from ruac_jax.config import InteractionConfig
from ruac_jax.sam2.prompt_encoder import ABSENT, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, POSITIVE


def draw_pixel(key: PRNGKeyArray, region: Bool[Array, "n h w"]) -> Float[Array, "n 2"]:
    """Draws one pixel of each region uniformly; (0, 0) where a region is empty."""
    n, height, width = region.shape
    noise = jnp.where(region, jax.random.uniform(key, region.shape), -1.0)
    index = jnp.argmax(noise.reshape(n, height * width), axis=1)
    point = jnp.stack([index % width, index // width], axis=1).astype(jnp.float32)
    return jnp.where(region.any(axis=(1, 2))[:, None], point, 0.0)


def bounding_boxes(masks: Bool[Array, "n h w"]) -> Float[Array, "n 4"]:
    """The tight box (x0, y0, x1, y1) of each mask, corners at pixel centres; zeros where a mask is empty."""

    def extent(occupied: Bool[Array, "n s"]) -> tuple[Array, Array]:
        size = occupied.shape[1]
        return jnp.argmax(occupied, axis=1), size - 1 - jnp.argmax(occupied[:, ::-1], axis=1)

    x0, x1 = extent(masks.any(axis=1))
    y0, y1 = extent(masks.any(axis=2))
    boxes = jnp.stack([x0, y0, x1, y1], axis=1).astype(jnp.float32)
    return jnp.where(masks.any(axis=(1, 2))[:, None], boxes, 0.0)


def draw_initial_prompts(
    key: PRNGKeyArray, masks: Bool[Array, "n h w"], settings: InteractionConfig
) -> tuple[Float[Array, "n p 2"], Int[Array, "n p"]]:
    """Draws the first prompt of each object: its noisy box (two corners), or 1 to `first_clicks` points of it.

    The box noise is uniform within `box_noise` of the side, at most `box_noise_limit` px; corners stay inside the
    image. There are as many slots as either kind needs; those that an object does not use are absent.
    """
    n, height, width = masks.shape
    key_kind, key_noise, key_count, key_point = jax.random.split(key, 4)
    boxes = bounding_boxes(masks)
    sides = jnp.stack([boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]], axis=1)
    reach = jnp.tile(jnp.minimum(sides * settings.box_noise, settings.box_noise_limit), (1, 2))
    boxes = boxes + reach * jax.random.uniform(key_noise, boxes.shape, minval=-1.0, maxval=1.0)
    limit = jnp.asarray([width - 1, height - 1, width - 1, height - 1], jnp.float32)
    corners = jnp.clip(boxes, 0.0, limit[None, :]).reshape(n, 2, 2)

    slots = max(2, settings.first_clicks)
    clicks = [draw_pixel(key, masks) for key in jax.random.split(key_point, settings.first_clicks)]
    count = jax.random.randint(key_count, (n,), 1, settings.first_clicks + 1)
    use_box = jax.random.bernoulli(key_kind, settings.box_probability, (n,))[:, None]
    points = jnp.where(use_box[:, :, None], _filled(corners, slots, 0.0), _filled(jnp.stack(clicks, 1), slots, 0.0))
    click_labels = jnp.where(jnp.arange(slots)[None, :] < count[:, None], POSITIVE, ABSENT)
    box_labels = _filled(jnp.asarray([[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]]), slots, ABSENT)
    return points, jnp.where(use_box, box_labels, click_labels)


def _filled(x: Array, slots: int, value: float | int) -> Array:
    """Lengthens axis 1 to `slots`."""
    return jnp.pad(x, ((0, 0), (0, slots - x.shape[1]), *((0, 0),) * (x.ndim - 2)), constant_values=value)


def draw_correction(
    key: PRNGKeyArray, truth: Bool[Array, "n h w"], prediction: Bool[Array, "n h w"], truth_probability: float
) -> tuple[Float[Array, "n 2"], Int[Array, "n"]]:
    """Draws the next click of each object from false positives and false negatives together.

    With `truth_probability` the prediction counts as empty, so that the click falls on the object. Where the
    prediction is perfect the click is a background pixel (an object pixel where there is no background).

    Returns:
      The points and their labels (1 on the object, 0 on the background).
    """
    key_truth, key_pixel = jax.random.split(key)
    from_truth = jax.random.bernoulli(key_truth, truth_probability, (truth.shape[0],))
    errors = truth ^ (prediction & ~from_truth[:, None, None])
    background = jnp.where((~truth).any(axis=(1, 2), keepdims=True), ~truth, truth)
    region = jnp.where(errors.any(axis=(1, 2), keepdims=True), errors, background)
    points = draw_pixel(key_pixel, region)
    return points, on_mask(points, truth).astype(jnp.int32)


def on_mask(points: Float[Array, "n 2"], masks: Bool[Array, "n h w"]) -> Bool[Array, "n"]:
    """Whether the pixel nearest to each point belongs to its mask."""
    _, height, width = masks.shape
    pixel = jnp.round(points).astype(jnp.int32)
    columns = jnp.arange(width)[None, :] == pixel[:, :1]
    rows = jnp.arange(height)[None, :] == pixel[:, 1:]
    return (masks & rows[:, :, None] & columns[:, None, :]).any(axis=(1, 2))


def move_initial_prompts(
    key: PRNGKeyArray,
    moved: Float[Array, "n p 2"],
    labels: Int[Array, "n p"],
    masks: Bool[Array, "n h w"],
) -> Float[Array, "n p 2"]:
    """Puts the clean branch's first prompts onto the deformed objects (docs/method.md, adversarial prompts).

    Args:
      key: for redrawing points.
      moved: the clean prompts after the object's own flow.
      labels: their labels, unchanged by the move.
      masks: the deformed objects.

    Returns:
      Boxes spanned by their moved corners; points that still lie on their object, else fresh ones.
    """
    slots = moved.shape[1]
    is_box = (labels[:, :1] == BOX_TOP_LEFT)[:, :, None]
    corners = moved[:, :2]
    box = _filled(jnp.stack([corners.min(axis=1), corners.max(axis=1)], axis=1), slots, 0.0)
    points = []
    for slot, key_slot in enumerate(jax.random.split(key, slots)):
        missed = ~on_mask(moved[:, slot], masks) & masks.any(axis=(1, 2)) & (labels[:, slot] == POSITIVE)
        points.append(jnp.where(missed[:, None], draw_pixel(key_slot, masks), moved[:, slot]))
    return jnp.where(is_box, box, jnp.stack(points, axis=1))
