import numpy as np
import pytest

from ruac_jax.data.masks import RunLengthMasks, mask_areas


@pytest.fixture
def masks(rng):
    return rng.random((5, 7, 11)) < 0.4


def test_runs_decode_to_the_masks_they_were_made_of(masks):
    runs = RunLengthMasks.encode((7, 11), masks)
    assert runs.shape == masks.shape
    assert len(runs) == 5
    np.testing.assert_array_equal(runs[:], masks)
    np.testing.assert_array_equal(runs[1:3], masks[1:3])
    np.testing.assert_array_equal(runs[np.array([4, 0, 4])], masks[[4, 0, 4]])


def test_areas_need_no_decoding(masks):
    expected = masks.sum(axis=(1, 2))
    np.testing.assert_array_equal(mask_areas(RunLengthMasks.encode((7, 11), masks)), expected)
    np.testing.assert_array_equal(mask_areas(masks), expected)


def test_no_object_is_a_stack_of_none():
    empty = RunLengthMasks.encode((7, 11), [])
    assert empty.shape == empty[:].shape == (0, 7, 11)
    assert mask_areas(empty).shape == (0,)


def test_full_and_empty_masks_and_single_pixels():
    masks = np.zeros((3, 4, 6), bool)
    masks[1] = True
    masks[2, 3, 5] = True
    np.testing.assert_array_equal(RunLengthMasks.encode((4, 6), masks)[:], masks)


def test_a_mask_of_another_size_is_refused(masks):
    with pytest.raises(ValueError, match="a mask of 11x7 px in an image of 7x11"):
        RunLengthMasks.encode((11, 7), masks)


def test_a_thousand_large_masks_take_little_memory():
    def squares():
        for index in range(1000):
            mask = np.zeros((600, 800), bool)
            top, left = index // 40 * 20, index % 40 * 20
            mask[top : top + 15, left : left + 15] = True
            yield mask

    runs = RunLengthMasks.encode((600, 800), squares())
    assert sum(map(len, runs.counts)) < 1000 * 60
    np.testing.assert_array_equal(runs.areas(), np.full(1000, 225))
