import numpy as np
import pytest

from ruac_jax.errors import UserError
from ruac_jax.prompt_flags import ObjectPrompt, check_inside, parse_prompts


def test_points_are_of_one_object():
    (prompt,) = parse_prompts(["1,2", "3.5,4,0", "5,6,1"], [])
    assert prompt == ObjectPrompt(((1, 2), (3.5, 4), (5, 6)), (1, 0, 1), None)
    given = prompt.arguments()
    assert given.keys() == {"point_coords", "point_labels"}
    np.testing.assert_array_equal(given["point_coords"], [[1, 2], [3.5, 4], [5, 6]])
    np.testing.assert_array_equal(given["point_labels"], [1, 0, 1])


def test_every_box_is_an_object():
    prompts = parse_prompts([], ["1,2,3,4", "5,6,7.5,8"])
    assert prompts == [ObjectPrompt(box=(1, 2, 3, 4)), ObjectPrompt(box=(5, 6, 7.5, 8))]
    assert prompts[1].arguments().keys() == {"box"}


def test_points_and_a_box_combine():
    (prompt,) = parse_prompts(["1,2"], ["0,0,3,4"])
    assert prompt == ObjectPrompt(((1, 2),), (1,), (0, 0, 3, 4))
    assert prompt.arguments().keys() == {"point_coords", "point_labels", "box"}


@pytest.mark.parametrize(
    ("points", "boxes", "message"),
    [
        ([], [], "what shall be segmented?"),
        (["1"], [], "--point 1: expected x,y or x,y,label"),
        (["1,2,3,4"], [], "--point 1,2,3,4: expected x,y or x,y,label"),
        (["1,b"], [], "--point 1,b: expected x,y"),
        (["nan,1"], [], "--point nan,1: expected x,y"),
        (["1,2,2"], [], "unknown label 2; expected 1"),
        (["1,2,0.5"], [], r"unknown label 0\.5"),
        ([], ["1,2,3"], "--box 1,2,3: expected x0,y0,x1,y1"),
        ([], ["1,2,inf,4"], "--box 1,2,inf,4: expected x0,y0,x1,y1"),
        ([], ["5,2,3,4"], "expected x0 < x1 and y0 < y1"),
        ([], ["1,4,3,4"], "expected x0 < x1 and y0 < y1"),
        (["1,2"], ["1,2,3,4", "1,2,3,4"], "at most one --box, found 2"),
    ],
)
def test_mistakes(points, boxes, message):
    with pytest.raises(UserError, match=message):
        parse_prompts(points, boxes)


@pytest.mark.parametrize("point", [(-0.5, 0), (0, -0.5), (9.4, 4.4), (0, 0)])
def test_pixels_reach_half_a_pixel_around_their_centres(point):
    check_inside([ObjectPrompt((point,), (1,))], (5, 10), "it")


@pytest.mark.parametrize("point", [(-0.6, 0), (0, -0.6), (9.5, 0), (0, 4.5)])
def test_points_outside(point):
    with pytest.raises(UserError, match=r"is outside it, which has 10 x 5 px"):
        check_inside([ObjectPrompt(), ObjectPrompt((point,), (1,))], (5, 10), "it")


def test_boxes_end_with_the_image():
    check_inside([ObjectPrompt(box=(0, 0, 10, 5))], (5, 10), "it")
    for box in ((-1, 0, 10, 5), (0, -1, 10, 5), (0, 0, 10.5, 5), (0, 0, 10, 5.5)):
        with pytest.raises(UserError, match="is not inside it"):
            check_inside([ObjectPrompt(box=box)], (5, 10), "it")
