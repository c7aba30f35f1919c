import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import center_of_mass, gaussian_filter, map_coordinates

from ruac_jax.functional.warp import coverage, move_points, warp, warp_masks

SIZE = (9, 12)


def scipy_warp(image, flow):
    """out(p) = in(p + flow(p)) by scipy: order 1, border repeated."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float64)
    at = [y + flow[..., 1], x + flow[..., 0]]
    return np.stack([map_coordinates(c, at, order=1, mode="nearest") for c in np.moveaxis(image, -1, 0)], axis=-1)


@pytest.mark.parametrize("seed", range(4))
def test_equals_scipy_also_beyond_the_border(seed):
    rng = np.random.default_rng(seed)
    image, flow = rng.normal(size=(2, *SIZE, 3)), rng.normal(scale=4, size=(2, *SIZE, 2))
    got = warp(jnp.asarray(image, jnp.float32), jnp.asarray(flow, jnp.float32))
    np.testing.assert_allclose(got, [scipy_warp(*pair) for pair in zip(image, flow, strict=True)], atol=5e-6)


def test_zero_flow_is_the_identity(rng):
    image = jnp.asarray(rng.normal(size=(1, *SIZE, 3)), jnp.float32)
    np.testing.assert_array_equal(warp(image, jnp.zeros((1, *SIZE, 2))), image)


def test_whole_steps_bring_pixels_from_where_the_flow_points(rng):
    image = jnp.asarray(rng.normal(size=(1, *SIZE, 1)), jnp.float32)
    flow = jnp.broadcast_to(jnp.asarray([2.0, 1.0]), (1, *SIZE, 2))
    np.testing.assert_array_equal(warp(image, flow)[0, :-1, :-2], image[0, 1:, 2:])


def test_gradient_to_the_flow_equals_finite_differences(rng):
    image = rng.normal(size=(1, *SIZE, 2))
    # Half-way between pixels, so that no step of the differences meets a kink.
    flow = np.floor(rng.normal(scale=2, size=(1, *SIZE, 2))) + rng.uniform(0.2, 0.8, (1, *SIZE, 2))
    cotangent = rng.normal(size=image.shape)

    def loss(flow):
        return (warp(jnp.asarray(image, jnp.float32), flow) * jnp.asarray(cotangent, jnp.float32)).sum()

    got = np.asarray(jax.grad(loss)(jnp.asarray(flow, jnp.float32)))
    step = 1e-4
    for axis in range(2):
        up, down = flow.copy(), flow.copy()
        up[..., axis] += step
        down[..., axis] -= step
        change = (scipy_warp(image[0], up[0]) - scipy_warp(image[0], down[0])) / (2 * step)
        np.testing.assert_allclose(got[0, ..., axis], (change * cotangent[0]).sum(axis=-1), atol=2e-5)


def test_the_image_is_a_constant_and_nothing_scatters(rng):
    image, flow = (jnp.asarray(rng.normal(size=(2, *SIZE, c)), jnp.float32) for c in (3, 2))
    gradient = jax.jit(jax.grad(lambda i, f: jnp.square(warp(i, f)).sum(), argnums=(0, 1)))
    np.testing.assert_array_equal(gradient(image, flow)[0], jnp.zeros_like(image))
    # In the program as given to the compiler: on a CPU that one turns scatters into loops.
    assert "stablehlo.scatter" not in gradient.lower(image, flow).as_text()
    look_up = jax.jit(jax.grad(lambda i: i[0, jnp.asarray([1, 1, 2])].sum()))
    assert "stablehlo.scatter" in look_up.lower(image).as_text()


def test_masks_are_warped_each_by_its_own_flow_and_thresholded(rng):
    masks = rng.random((2, 3, *SIZE)) > 0.5
    flow = rng.normal(scale=2, size=(2, 3, *SIZE, 2))
    got = np.asarray(warp_masks(jnp.asarray(masks), jnp.asarray(flow, jnp.float32)))
    for b, k in np.ndindex(2, 3):
        want = scipy_warp(masks[b, k, ..., None].astype(float), flow[b, k])[..., 0]
        clear = np.abs(want - 0.5) > 1e-5
        np.testing.assert_array_equal(got[b, k][clear], want[clear] > 0.5)


def test_coverage_by_the_cases_of_its_definition():
    """One row of two objects, in this order of precedence: warped masks, their rims, old masks and rims."""
    old = jnp.asarray([[[[0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]], [[0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0]]]], bool)
    new = jnp.asarray([[[[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]], [[0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0]]]], bool)
    expected = [
        [1, 0.5, 0.5, 0.5, 0.5, 0.5, 0, 0, 0, 0, 0],
        [0, 0.5, 0.5, 0.5, 0.5, 0.5, 1, 1, 1, 1, 1],
    ]
    np.testing.assert_array_equal(coverage(old, new)[0, :, 0], expected)
    nothing = jnp.zeros_like(old)
    np.testing.assert_array_equal(coverage(nothing, nothing), jnp.zeros(old.shape))


def test_a_shrunken_object_leaves_no_rim():
    """Half-mixed pixels around a disk, as every drawn or photographed outline has them, vanish with the outline."""
    y, x = np.mgrid[:48, :48] - 23.5
    radius = np.hypot(x, y)
    image = np.clip(12.5 - radius, 0, 1)[..., None].astype(np.float32)  # 1 inside, 0 outside, a ramp of one pixel
    masks = jnp.asarray(radius < 12)[None, None]
    flow = jnp.asarray(np.stack([x, y], axis=-1) * 0.3, jnp.float32)  # backward: the disk shrinks to 12 / 1.3
    moved = warp_masks(masks, flow[None, None])
    share = coverage(masks, moved)[0, 0, :, :, None]
    composed = image * (1 - share) + share * warp(jnp.asarray(image)[None], flow[None])[0]
    outside = radius > 12 / 1.3 + 1
    assert float(jnp.abs(composed[outside]).max()) == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_moved_point_follows_its_warped_blob(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :48].astype(np.float64)
    centre = rng.uniform(18, 30, 2)
    blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 18)
    flow = np.stack([gaussian_filter(rng.normal(size=(48, 48)), 10) for _ in range(2)], axis=-1)
    flow *= 2.4 / np.abs(flow).max()
    moved_blob = scipy_warp(blob[..., None], flow)[..., 0]
    point = jnp.asarray(centre, jnp.float32)[None, None, None]
    got = np.asarray(move_points(point, jnp.asarray(flow, jnp.float32)[None, None]))[0, 0, 0]
    peak = center_of_mass(np.where(moved_blob > 0.8 * moved_blob.max(), moved_blob, 0))[::-1]
    slope = max(np.abs(np.diff(flow, axis=a)).max() for a in (0, 1))
    displacement = np.linalg.norm(got - centre)
    # Fixed-point error: the flow's change over one displacement; 0.3 px for a centre of mass on the grid.
    assert np.linalg.norm(got - peak) < slope * displacement * 2 + 0.3
    assert displacement > 0.5
    assert np.linalg.norm(got - peak) < np.linalg.norm(2 * centre - got - peak)  # and not against the blob


def test_points_move_against_their_own_flow_and_stay_in_the_image():
    flow = jnp.stack([jnp.full((*SIZE, 2), 1.5), jnp.full((*SIZE, 2), -3.0)])[None]
    points = jnp.asarray([[[[1.0, 4.0], [6.25, 5.5]], [[10.0, 7.0], [0.0, 0.0]]]])
    want = [[[[0.0, 2.5], [4.75, 4.0]], [[11.0, 8.0], [3.0, 3.0]]]]
    np.testing.assert_allclose(move_points(points, flow), want, atol=1e-6)
