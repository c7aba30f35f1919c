import numpy as np

from ruac_jax.data.masks import RunLengthMasks
from ruac_jax.data.record import Record
from ruac_jax.evaluation.studies.clicks import clicked_groups
from ruac_jax.prompts import fixed_clicks


def make_record(objects=11):
    masks = np.zeros((objects, 40, 80), bool)
    for i, mask in enumerate(masks):
        mask[2 * i : 2 * i + 9, 5 * i : 5 * i + 7] = True
    masks[3] = False
    return Record(image=np.zeros((40, 80, 3), np.uint8), masks=masks, image_id="a")


def test_objects_come_in_groups_of_eight_with_scaled_clicks():
    record = make_record()
    first, second = clicked_groups(record, 160)
    kept = np.delete(record["masks"], 3, axis=0)
    np.testing.assert_array_equal(np.concatenate([first.masks, second.masks]), kept)
    assert [len(group.masks) for group in (first, second)] == [8, 2]
    expected = np.stack([fixed_clicks(mask)[0] for mask in kept]) * np.array([2.0, 4.0])  # 160 / 80 and 160 / 40
    np.testing.assert_allclose(first.points, expected[:8], rtol=1e-6)
    np.testing.assert_allclose(second.points, expected[[8, *[9] * 7]], rtol=1e-6)
    for group in (first, second):
        assert (group.points.dtype, group.labels.dtype, group.labels.shape) == (np.float32, np.int32, (8, 3))
        assert (group.labels == 1).all()


def test_runs_and_arrays_give_the_same_groups():
    record = make_record()
    runs = RunLengthMasks.encode((40, 80), record["masks"])
    for group, other in zip(clicked_groups(record, 64), clicked_groups({**record, "masks": runs}, 64), strict=True):
        for mine, theirs in zip(group, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_stored_clicks_are_used():
    record = make_record()
    stored = np.arange(11 * 3 * 2, dtype=np.int32).reshape(11, 3, 2)
    first, _ = clicked_groups(Record(**record, points=stored), 80)
    np.testing.assert_array_equal(first.points[:4, :, 0], stored[[0, 1, 2, 4], :, 0])
    np.testing.assert_array_equal(first.points[:4, :, 1], 2 * stored[[0, 1, 2, 4], :, 1])


def test_an_image_without_objects_has_no_group():
    record = make_record()
    record["masks"] = record["masks"][3:4]
    assert list(clicked_groups(record, 64)) == []
