import jax
import numpy as np
import pytest
from flax import nnx

from ruac_jax.demo_state import Answer, Click, Session, Settings, SharedModel, answer, to_image
from ruac_jax.evaluation.correction import correct_mask
from ruac_jax.predictor import Predictor
from ruac_jax.prompt_flags import ObjectPrompt
from ruac_jax.weights import create_model

PROMPT = ObjectPrompt(points=((20.0, 12.0), (3.0, 4.0)), labels=(1, 0))


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


@pytest.fixture(scope="module")
def predictor(image):
    predictor = Predictor(create_model("nano", "weibull", rngs=nnx.Rngs(0)), image_size=64)
    predictor.set_image(image)
    return predictor


def clicked(image, *clicks):
    session = Session(image)
    for click in clicks:
        session = session.add(Click(*click))
    return session


def test_clicks_become_points_with_labels_in_their_order(image):
    session = clicked(image, ("object", 1.0, 2.0), ("background", 3.0, 4.0), ("object", 5.5, 6.0))
    assert session.prompt() == ObjectPrompt(((1.0, 2.0), (3.0, 4.0), (5.5, 6.0)), (1, 0, 1))


@pytest.mark.parametrize(
    ("first", "second"), [((1.0, 9.0), (7.0, 2.0)), ((7.0, 2.0), (1.0, 9.0)), ((1.0, 2.0), (7.0, 9.0))]
)
def test_any_two_opposite_corners_make_the_box(image, first, second):
    session = clicked(image, ("corner", *first), ("corner", *second))
    assert session.prompt() == ObjectPrompt(box=(1.0, 2.0, 7.0, 9.0))
    assert session.open_corner() is None


def test_a_box_counts_when_it_is_complete_and_until_the_next_one_is(image):
    one = clicked(image, ("corner", 1.0, 2.0))
    assert one.prompt() is None
    assert one.open_corner() == Click("corner", 1.0, 2.0)
    whole = one.add(Click("object", 4.0, 4.0)).add(Click("corner", 7.0, 9.0))
    assert whole.prompt() == ObjectPrompt(((4.0, 4.0),), (1,), (1.0, 2.0, 7.0, 9.0))
    begun = whole.add(Click("corner", 30.0, 30.0))
    assert begun.prompt() == whole.prompt()
    assert begun.add(Click("corner", 20.0, 35.0)).prompt().box == (20.0, 30.0, 30.0, 35.0)


@pytest.mark.parametrize("corner", [(1.0, 9.0), (7.0, 2.0), (1.0, 2.0)])
def test_a_corner_that_leaves_the_box_without_extent_is_left_out(image, corner):
    one = clicked(image, ("corner", 1.0, 2.0))
    assert one.add(Click("corner", *corner)) is one


def test_undo_takes_back_click_by_click_and_clear_all(image):
    session = clicked(image, ("object", 1.0, 2.0), ("corner", 3.0, 4.0), ("corner", 5.0, 6.0))
    assert session.undo().prompt() == ObjectPrompt(((1.0, 2.0),), (1,))
    assert session.undo().open_corner() == Click("corner", 3.0, 4.0)
    assert session.undo().undo().undo().undo().clicks == ()
    assert session.clear().prompt() is None
    assert session.clear().image is image


@pytest.mark.parametrize("shown", [(20, 50), (60, 150), (7, 11)])
def test_middles_of_shown_pixels_and_of_the_image_agree(shown):
    size = (20, 50)
    # The middle of pixel (x, y) of the image is at the fraction (x + 1/2) / width of either picture.
    for x, y in ((0, 0), (49, 19), (13, 7)):
        place = ((x + 0.5) / 50 * shown[1], (y + 0.5) / 20 * shown[0])
        assert to_image(place, shown, size) == pytest.approx((x, y), abs=1e-9)


def test_edges_of_the_picture_stay_on_the_image():
    assert to_image((0.0, 0.0), (60, 150), (20, 50)) == (0.0, 0.0)
    assert to_image((150.0, 60.0), (60, 150), (20, 50)) == (49.0, 19.0)


@pytest.mark.parametrize("shown", ["best", "1", "2", "3", "single"])
def test_the_mask_asked_for_is_shown(predictor, shown):
    expected = predictor.predict(**PROMPT.arguments(), multimask_output=shown != "single")
    which = {"best": expected.iou_predictions.argmax(), "single": 0}.get(shown)
    which = int(shown) - 1 if which is None else int(which)
    found = answer(predictor, PROMPT, Settings(shown=shown))
    assert found.which == which
    np.testing.assert_array_equal(found.mask, expected.masks[which])
    np.testing.assert_array_equal(found.uncertainty, expected.uncertainty[which])
    np.testing.assert_array_equal(np.float32(found.ious), expected.iou_predictions)
    assert found.removed == 0


def test_draws_are_those_of_the_predictor_and_the_same_every_time(predictor):
    settings = Settings(shown="1", method="monte_carlo", samples=5)
    expected = predictor.predict(
        **PROMPT.arguments(), uncertainty="monte_carlo", samples=5, key=jax.random.key(0)
    ).uncertainty[0]
    for _ in range(2):
        np.testing.assert_array_equal(answer(predictor, PROMPT, settings).uncertainty, expected)
    assert np.abs(answer(predictor, PROMPT, Settings(shown="1")).uncertainty - expected).max() > 1e-3


def test_the_correction_is_that_of_the_evaluation(monkeypatch, predictor):
    plain = answer(predictor, PROMPT, Settings(shown="1"))
    mask, uncertainty = np.zeros((40, 50), bool), np.zeros((40, 50), np.float32)
    mask[5:20, 5:30] = mask[30:33, 40:44] = True
    uncertainty[30:33, 40:44] = 0.9  # a distrusted fragment of 12 pixels beside 375 certain ones
    known = predictor.predict(**PROMPT.arguments())._replace(
        masks=np.stack([mask] * 3), uncertainty=np.stack([uncertainty] * 3)
    )
    monkeypatch.setattr(predictor, "predict", lambda **_: known)
    found = answer(predictor, PROMPT, Settings(corrected=True))
    np.testing.assert_array_equal(found.mask, correct_mask(mask, uncertainty))
    assert found.removed == 12
    assert answer(predictor, PROMPT, Settings()).removed == plain.removed == 0


def test_figures_of_the_mask_are_taken_inside_it():
    uncertainty = np.array([[0.2, 0.6], [0.7, 1.0]], np.float32)
    found = Answer(np.array([[True, True], [True, False]]), uncertainty, (0.5,), 0, 0)
    assert found.mean_uncertainty() == pytest.approx(0.5)
    assert found.doubtful_share(0.5) == pytest.approx(2 / 3)
    assert found.doubtful_share(0.7) == 0.0  # above, not at
    empty = found._replace(mask=np.zeros((2, 2), bool))
    assert empty.mean_uncertainty() is None
    assert empty.doubtful_share(0.5) is None


def test_an_image_is_encoded_when_it_changes(monkeypatch, predictor, image):
    encoded = []
    original = predictor.set_image
    monkeypatch.setattr(predictor, "set_image", lambda image: (encoded.append(image.shape), original(image)))
    model = SharedModel("name", "", predictor)
    other = np.ascontiguousarray(image.transpose(1, 0, 2))  # the same bytes' number, another shape
    first = model.answer(image, PROMPT, Settings())
    model.answer(image.copy(), PROMPT, Settings(shown="2"))
    assert model.answer(other, PROMPT, Settings()).mask.shape == (50, 40)
    again = model.answer(image, PROMPT, Settings())
    assert encoded == [image.shape, other.shape, image.shape]
    np.testing.assert_array_equal(first.uncertainty, again.uncertainty)
