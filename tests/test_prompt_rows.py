import numpy as np
import pytest

from ruac_jax.errors import UserError
from ruac_jax.prompt_rows import join_rows, power_of_two, prompt_rows
from ruac_jax.sam2.prompt_encoder import ABSENT, NO_POINTS

SIDE = 16


def rows(point_coords=None, point_labels=None, box=None, mask_input=None, *, size=(50, 100), normalize=True):
    return prompt_rows(
        point_coords, point_labels, box, mask_input, original=size, image_size=4 * SIDE, normalize=normalize
    )


def test_coordinates_are_scaled_by_each_axis():
    found = rows([[100, 25], [50, 50]], [1, 0])
    np.testing.assert_array_equal(found.points, [[[64, 32], [32, 64]]])
    np.testing.assert_array_equal(found.labels, [[1, 0]])
    assert (found.points.dtype, found.labels.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(rows([[0.5, 0.25]], [1], normalize=False).points, [[[32, 16]]])


def test_boxes_come_first_and_give_rows():
    found = rows([[[0, 0]], [[100, 50]]], [[1], [0]], [[0, 0, 50, 25], [25, 25, 100, 50]])
    np.testing.assert_array_equal(found.labels, [[2, 3, 1], [2, 3, 0]])
    np.testing.assert_array_equal(found.points[1], [[16, 32], [64, 64], [64, 64]])
    assert rows(box=[0, 0, 50, 25]).labels.tolist() == [[2, 3]]
    assert rows(box=np.zeros((0, 4))).labels.shape == (0, 2)


def test_masks_serve_all_rows_or_one_each(rng):
    mask = rng.standard_normal((3, 1, SIDE, SIDE)).astype(np.float32)
    boxes = np.tile([0, 0, 9, 9], (3, 1))
    np.testing.assert_array_equal(rows(box=boxes, mask_input=mask).mask, mask[:, 0])
    np.testing.assert_array_equal(rows(box=boxes, mask_input=mask[0]).mask, np.tile(mask[0], (3, 1, 1)))
    alone = rows(mask_input=mask)
    assert alone.labels.tolist() == [[NO_POINTS]] * 3
    assert alone.has_mask.all()
    nothing = rows()
    assert (nothing.labels.tolist(), nothing.has_mask.tolist()) == ([[NO_POINTS]], [False])


def test_joined_rows_are_padded_with_absent_slots_and_blank_masks(rng):
    mask = rng.standard_normal((1, SIDE, SIDE)).astype(np.float32)
    parts = [rows([[1, 1]], [1]), rows([[1, 1]], [0], [0, 0, 5, 5]), rows(mask_input=mask), rows(box=np.zeros((0, 4)))]
    joined = join_rows(parts, SIDE)
    assert joined.labels.tolist() == [[1, ABSENT, ABSENT, ABSENT], [2, 3, 0, ABSENT], [NO_POINTS, *[ABSENT] * 3]]
    assert joined.has_mask.tolist() == [False, False, True]
    np.testing.assert_array_equal(joined.mask, np.concatenate([np.zeros((2, SIDE, SIDE)), mask]))
    assert not join_rows(parts[:2], SIDE).mask.size


def test_powers_of_two():
    assert [power_of_two(n) for n in (0, 1, 2, 3, 4, 5, 64, 65)] == [1, 1, 2, 4, 4, 8, 64, 128]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"point_coords": [[1, 2]]}, r"point_labels: expected one label for each point \(1 object, 0 background\)"),
        ({"point_labels": [1]}, "point_labels: found labels without points"),
        ({"point_coords": [1, 2], "point_labels": [1]}, r"point_coords: expected shape \(P, 2\) or .*found \(2,\)"),
        ({"point_coords": [[1, 2, 3]], "point_labels": [1]}, r"found \(1, 3\)"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 0]}, r"expected shape \(1,\), one label .* found \(2,\)"),
        ({"point_coords": [[1, 2]], "point_labels": [7]}, r"expected 1 \(object\) or 0 \(background\), found 7"),
        ({"point_coords": [[1, np.nan]], "point_labels": [1]}, "point_coords: expected finite numbers"),
        ({"point_coords": [[1, 2], [3]], "point_labels": [1, 1]}, "point_coords: expected an array of numbers"),
        ({"box": [1, 2, 3]}, r"box: expected shape \(4,\) or \(N, 4\), found \(3,\)"),
        ({"box": ["a", "b", "c", "d"]}, "box: expected an array of numbers, found list"),
        ({"box": [[0, 0, 5, 5], [9, 9, 3, 12]]}, r"x0 <= x1 and y0 <= y1, found \(9, 9, 3, 12\)"),
        (
            {"point_coords": [[1, 2]], "point_labels": [1], "box": [[0, 0, 5, 5]] * 3},
            r"as many rows of points as boxes, found 1 and 3; .* shape \(3, P, 2\)",
        ),
        ({"mask_input": np.zeros((1, 9, 9))}, r"mask_input: .* shape \(1, 16, 16\) or .* found \(1, 9, 9\)"),
        ({"mask_input": np.zeros((3, 16, 16))}, r"found \(3, 16, 16\)"),
        ({"mask_input": np.zeros((2, 1, 16, 16)), "box": [0, 0, 5, 5]}, "one for each of 1 objects, found 2"),
    ],
)
def test_mistakes_are_explained(arguments, message):
    with pytest.raises(UserError, match=message) as error:
        rows(**arguments)
    assert "\n" not in str(error.value)
