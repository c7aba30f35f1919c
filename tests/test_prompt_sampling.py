import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ruac_jax.config import InteractionConfig
from ruac_jax.prompt_sampling import (
    bounding_boxes,
    draw_correction,
    draw_initial_prompts,
    draw_pixel,
    move_initial_prompts,
    on_mask,
)
from ruac_jax.sam2.prompt_encoder import ABSENT


def random_masks(rng, n=6, h=12, w=17, share=0.3):
    return jnp.asarray(rng.random((n, h, w)) < share)


def test_drawn_pixels_lie_in_their_region(rng):
    regions = random_masks(rng)
    for seed in range(20):
        points = draw_pixel(jax.random.key(seed), regions)
        assert bool(on_mask(points, regions).all())


def test_pixels_are_drawn_uniformly():
    region = jnp.zeros((4000, 3, 4), bool).at[:, 1, 1:].set(True).at[:, 2, 0].set(True)
    points = np.asarray(draw_pixel(jax.random.key(0), region)).astype(int)
    counts = np.array([((points == p).all(axis=1)).sum() for p in ([1, 1], [2, 1], [3, 1], [0, 2])])
    assert counts.sum() == 4000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_empty_region_gives_the_origin():
    points = draw_pixel(jax.random.key(0), jnp.zeros((2, 5, 5), bool))
    np.testing.assert_array_equal(points, np.zeros((2, 2)))


def test_boxes_are_tight(rng):
    masks = np.asarray(random_masks(rng, share=0.03)).copy()
    masks[0] = False
    masks[1] = False
    masks[1, 4, 7] = True
    boxes = np.asarray(bounding_boxes(jnp.asarray(masks)))
    for mask, box in zip(masks, boxes, strict=True):
        ys, xs = np.nonzero(mask)
        expected = [xs.min(), ys.min(), xs.max(), ys.max()] if len(xs) else [0, 0, 0, 0]
        np.testing.assert_array_equal(box, expected)


def test_initial_prompts_are_noisy_boxes_or_points_of_the_object():
    masks = jnp.zeros((500, 64, 64), bool).at[:, 10:31, 20:61].set(True)  # 41 x 21 px
    settings = InteractionConfig(box_probability=0.5, box_noise=0.1, box_noise_limit=3.0)
    points, labels = draw_initial_prompts(jax.random.key(1), masks, settings)
    points, labels = np.asarray(points), np.asarray(labels)
    is_box = labels[:, 0] == 2
    assert 200 < is_box.sum() < 300
    np.testing.assert_array_equal(labels[is_box], np.tile([2, 3], (is_box.sum(), 1)))
    np.testing.assert_array_equal(labels[~is_box], np.tile([1, ABSENT], ((~is_box).sum(), 1)))
    noise = points[is_box].reshape(-1, 4) - np.array([20, 10, 60, 30])
    reach = np.abs(noise).max(axis=0)
    assert (reach[[0, 2]] <= 3.0).all()  # 10 % of 40 px is more than the limit
    assert (reach[[1, 3]] <= 2.0).all()  # 10 % of 20 px
    assert (reach > 1.8).all()
    assert bool(on_mask(jnp.asarray(points[~is_box][:, 0]), masks[: (~is_box).sum()]).all())


def test_first_clicks_are_one_to_several_points_of_the_object(rng):
    masks = jnp.asarray(rng.random((600, 12, 17)) < 0.3)
    settings = InteractionConfig(first_clicks=3, box_probability=0.4)
    points, labels = draw_initial_prompts(jax.random.key(0), masks, settings)
    labels = np.asarray(labels)
    is_box = labels[:, 0] == 2
    np.testing.assert_array_equal(labels[is_box], np.tile([2, 3, ABSENT], (is_box.sum(), 1)))
    clicked = labels[~is_box]
    assert set(map(tuple, clicked)) == {(1, ABSENT, ABSENT), (1, 1, ABSENT), (1, 1, 1)}
    counts = np.bincount((clicked == 1).sum(axis=1))[1:]
    assert stats.chisquare(counts).pvalue > 1e-3
    for slot in range(3):
        used = labels[:, slot] == 1
        assert bool(on_mask(points[used, slot], masks[used]).all())


def test_box_corners_stay_in_the_image():
    masks = jnp.ones((200, 32, 48), bool)
    points, _ = draw_initial_prompts(jax.random.key(0), masks, InteractionConfig(box_probability=1.0))
    assert float(points.min()) >= 0
    assert float(points[..., 0].max()) <= 47
    assert float(points[..., 1].max()) <= 31


@pytest.mark.parametrize("seed", range(5))
def test_corrections_fall_on_errors_with_the_truths_label(seed):
    rng = np.random.default_rng(seed)
    truth, prediction = random_masks(rng), random_masks(rng)
    points, labels = draw_correction(jax.random.key(seed), truth, prediction, 0.0)
    assert bool(on_mask(points, truth ^ prediction).all())
    np.testing.assert_array_equal(labels, on_mask(points, truth).astype(int))


def test_correction_from_the_truth_is_positive(rng):
    truth = random_masks(rng)
    points, labels = draw_correction(jax.random.key(0), truth, truth, 1.0)
    np.testing.assert_array_equal(labels, np.ones(len(truth)))
    assert bool(on_mask(points, truth).all())


def test_perfect_prediction_gets_a_background_click_where_there_is_background(rng):
    truth = random_masks(rng).at[0].set(True)
    points, labels = draw_correction(jax.random.key(0), truth, truth, 0.0)
    np.testing.assert_array_equal(labels, [1, 0, 0, 0, 0, 0])
    assert bool(on_mask(points[1:], ~truth[1:]).all())


def test_moved_prompts_stay_on_their_object():
    masks = jnp.zeros((3, 20, 20), bool).at[:, 5:9, 5:9].set(True)
    moved = jnp.asarray([[[6.0, 6.0], [0.0, 0.0]], [[15.0, 15.0], [0.0, 0.0]], [[9.0, 8.5], [4.0, 4.5]]])
    labels = jnp.asarray([[1, ABSENT], [1, ABSENT], [2, 3]])
    points = move_initial_prompts(jax.random.key(0), moved, labels, masks)
    np.testing.assert_array_equal(points[0], moved[0])
    assert bool(on_mask(points[:, 0], masks)[1])
    np.testing.assert_array_equal(points[2], [[4.0, 4.5], [9.0, 8.5]])


def test_every_click_that_missed_is_drawn_again():
    masks = jnp.zeros((1, 20, 20), bool).at[:, 5:9, 5:9].set(True)
    moved = jnp.asarray([[[6.0, 6.0], [15.0, 15.0], [1.0, 1.0]]])
    points = move_initial_prompts(jax.random.key(0), moved, jnp.asarray([[1, 1, ABSENT]]), masks)
    np.testing.assert_array_equal(points[0, [0, 2]], moved[0, [0, 2]])
    assert bool(on_mask(points[:, 1], masks)[0])
