import re

import numpy as np
import pytest
from flax import nnx
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from ruac_jax.demo_pictures import (
    describe_answer,
    describe_clicks,
    describe_mask,
    draw_mask,
    draw_session,
    draw_uncertainty,
    draw_waiting,
    view_size,
)
from ruac_jax.demo_state import Answer, Click, Session, SharedModel
from ruac_jax.pictures import DOUBT, NEGATIVE, POSITIVE
from ruac_jax.predictor import Predictor
from ruac_jax.weights import create_model

SIZE = (40, 64)  # shown ten times as large


@pytest.fixture
def session():
    return Session(np.full((*SIZE, 3), 100, np.uint8))


@pytest.fixture
def answer():
    mask, uncertainty = np.zeros(SIZE, bool), np.zeros(SIZE, np.float32)
    mask[10:30, 10:50] = True
    uncertainty[:, 30:] = 0.6
    return Answer(mask, uncertainty, (0.3, 0.9, 0.1), 1, 0)


def at(picture, x, y):
    """The colour in the middle of a pixel of the image."""
    return picture[round((y + 0.5) * 10), round((x + 0.5) * 10)].astype(int)


def color(name):
    return np.round(255 * np.array(to_rgb(name)))


@pytest.mark.parametrize(
    ("size", "shown"),
    [((40, 64), (400, 640)), ((1, 1), (640, 640)), ((700, 900), (700, 900)), ((3000, 1500), (1000, 500))],
)
def test_pictures_have_the_size_that_clicks_are_counted_in(size, shown):
    assert view_size(size) == shown
    assert draw_session(Session(np.zeros((*size, 3), np.uint8))).shape == (*shown, 3)


def test_marks_are_where_the_clicks_are(session):
    for kind, x, y in (("object", 12.0, 8.0), ("background", 50.0, 33.0)):
        session = session.add(Click(kind, x, y))
    picture = draw_session(session)
    np.testing.assert_allclose(at(picture, 12, 8), color(POSITIVE), atol=1)
    np.testing.assert_allclose(at(picture, 50, 33), color(NEGATIVE), atol=1)
    np.testing.assert_array_equal(at(picture, 30, 20), [100, 100, 100])


def test_the_first_corner_of_a_box_is_seen_at_once(session):
    one = draw_session(session.add(Click("corner", 12.0, 8.0)))
    changed = (one != draw_session(session)).any(axis=2)
    ys, xs = np.nonzero(changed)
    assert changed.any()
    np.testing.assert_allclose([xs.mean() + 0.5, ys.mean() + 0.5], [125, 85], atol=1)


def test_mask_and_error_prone_pixels_are_told_apart(session, answer):
    picture, waiting = draw_mask(session, answer, 0.5), draw_waiting(session)
    doubt_inside, doubt_outside, certain = at(picture, 40, 20), at(picture, 58, 35), at(picture, 20, 20)
    assert np.abs(doubt_outside - color(DOUBT)).max() < 60
    assert doubt_inside[0] > doubt_inside[2] + 80
    assert certain[2] > certain[0] + 20  # blue
    assert np.ptp(at(picture, 3, 3)) == 0  # neither: grey
    assert np.ptp(waiting, axis=2).max() == 0
    calm = draw_mask(session, answer, 0.7)
    np.testing.assert_array_equal(at(calm, 40, 20), certain)


def test_uncertainty_has_the_colours_of_the_bar(session, answer):
    picture = draw_uncertainty(session, answer)
    for x, u in ((20, 0.0), (58, 0.6)):
        expected = 255 * np.array(colormaps["magma"](u)[:3])
        np.testing.assert_allclose(at(picture, x, 5), expected, atol=2)


def test_texts_give_the_figures_and_escape_names(answer):
    predictor = Predictor(create_model("nano", "hypernetwork", rngs=nnx.Rngs(0)), image_size=64)
    model = SharedModel("<run>", "a & b", predictor)
    text = describe_answer(model, answer._replace(removed=7), 0.5)
    assert "&lt;run&gt;" in text
    assert "a &amp; b" in text
    assert re.findall(r"<b>(.*?)</b>", text) == ["0.90", "0.30", "50 %", "7"]
    assert re.findall(r'chip chosen">(.*?)<', text) == ["mask 2: 0.90"]
    assert "a single mask" in describe_answer(model, answer._replace(ious=(0.9,), which=0), 0.5)
    assert "empty" in describe_answer(model, answer._replace(mask=np.zeros(SIZE, bool)), 0.5)
    assert "No mask yet" in describe_answer(model, None, 0.5)
    assert "above 0.25" in describe_mask(0.25)


def test_hints_follow_the_clicks(session):
    assert "Click on an object" in describe_clicks(session)
    assert "opposite corner" in describe_clicks(session.add(Click("corner", 1.0, 2.0)))
    assert "background at 1.5, 2.0 px" in describe_clicks(session.add(Click("background", 1.5, 2.0)))
