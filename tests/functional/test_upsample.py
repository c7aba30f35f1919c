import jax
import numpy as np
import pytest

from ruac_jax.functional.resize import interpolation_matrix
from ruac_jax.functional.upsample import frame_side, frame_taps, upsample


@pytest.mark.parametrize(("source", "target"), [((16, 16), (90, 231)), ((32, 32), (7, 300)), ((8, 8), (8, 1))])
def test_equals_the_products_with_interpolation_matrices(source, target, rng):
    x = rng.standard_normal((2, *source)).astype(np.float32)
    got = upsample(jax.numpy.asarray(x), *(frame_taps(s, t) for s, t in zip(source, target, strict=True)))
    assert got.shape == (2, frame_side(target[0]), frame_side(target[1]))
    rows, columns = (interpolation_matrix(s, t, "bilinear") for s, t in zip(source, target, strict=True))
    np.testing.assert_allclose(got[:, : target[0], : target[1]], rows @ x.astype(float) @ columns.T, atol=2e-6)


def test_sizes_share_few_compilations(rng):
    x = jax.numpy.asarray(rng.standard_normal((1, 16, 16)), jax.numpy.float32)
    enlarge = jax.jit(upsample)
    for height, width in ((90, 231), (101, 140), (128, 256), (1, 129)):
        enlarge(x, frame_taps(16, height), frame_taps(16, width))
    assert enlarge._cache_size() == 1


def test_frames_hold_their_images_with_little_around():
    sides = np.arange(1, 5000)
    frames = np.array([frame_side(int(side)) for side in sides])
    assert (frames >= sides).all()
    assert len(set(frames.tolist())) < 15
    assert (frames[511:] < 1.5 * sides[511:]).all()
