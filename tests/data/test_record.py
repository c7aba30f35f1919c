import numpy as np
import pytest

from ruac_jax.data.record import Record, pad_objects, select_objects


def make_record(rng, areas):
    masks = np.zeros((len(areas), 6, 8), bool)
    for mask, area in zip(masks, areas, strict=True):
        mask.reshape(-1)[rng.choice(48, area, replace=False)] = True
    return Record(image=rng.integers(0, 256, (6, 8, 3), np.uint8), masks=masks, image_id="one")


def test_empty_masks_are_dropped_and_order_is_kept(rng):
    record = make_record(rng, [5, 0, 7, 0, 9])
    chosen = select_objects(record, 3, rng)
    np.testing.assert_array_equal(chosen["masks"], record["masks"][[0, 2, 4]])
    assert chosen["image_id"] == "one"


def test_no_object_at_all_gives_no_mask(rng):
    assert select_objects(make_record(rng, [0, 0]), 3, rng)["masks"].shape == (0, 6, 8)
    assert select_objects(make_record(rng, []), 3, rng)["masks"].shape == (0, 6, 8)


def test_the_draw_is_uniform_and_without_replacement(rng):
    record = make_record(rng, [1, 2, 3, 0, 4, 5])
    counts = np.zeros(6)
    draws = 3000
    for _ in range(draws):
        areas = select_objects(record, 2, rng)["masks"].sum(axis=(1, 2))
        assert len(set(areas)) == 2
        counts[areas] += 1
    assert counts[0] == 0
    # Each of five objects is in 2/5 of the draws; five standard deviations of a binomial count.
    np.testing.assert_allclose(counts[1:], draws * 0.4, atol=5 * np.sqrt(draws * 0.24))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_padding_marks_the_slots_in_use(rng, count):
    masks = make_record(rng, [4] * count)["masks"]
    padded, valid = pad_objects(masks, 3)
    np.testing.assert_array_equal(padded[:count], masks)
    assert not padded[count:].any()
    assert valid.tolist() == [slot < count for slot in range(3)]
