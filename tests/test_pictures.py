import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ruac_jax.pictures import OUTLINES, Row, color_uncertainty, draw_everything, draw_prompted
from ruac_jax.prompt_flags import ObjectPrompt

HEIGHT, WIDTH = 40, 60


def render(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3]


def share_of(pixels, color):
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.mean(np.abs(pixels.astype(int) - wanted).max(axis=2) <= 3)


def texts(figure):
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def make_row(objects=2, title=""):
    masks = [np.zeros((HEIGHT, WIDTH), bool) for _ in range(objects)]
    for index, mask in enumerate(masks):
        mask[5:15, 5 + 5 * index : 8 + 5 * index] = True
    uncertainty = np.zeros((HEIGHT, WIDTH), np.float32)
    uncertainty[20:30, 30:50] = 0.8
    return Row(title, masks, [f"object {i + 1}" for i in range(objects)], uncertainty)


@pytest.fixture
def image(rng):
    return rng.integers(100, 156, (HEIGHT, WIDTH, 3), np.uint8)


PROMPTS = [ObjectPrompt(((6, 8), (50, 30)), (1, 0)), ObjectPrompt(box=(9, 4, 14, 16))]


def test_colours_run_from_certain_to_not():
    found = color_uncertainty(np.array([[-0.5, 0.0, 0.5, 1.0, 2.0]], np.float32))
    expected = [colormaps["magma"](x, bytes=True)[:3] for x in (0.0, 0.0, 0.5, 1.0, 1.0)]
    np.testing.assert_array_equal(found[0], expected)


def test_the_legend_names_what_is_drawn(image):
    figure = draw_prompted(image, PROMPTS, [make_row()], doubtful_above=0.5)
    assert texts(figure) == [
        "error-prone: uncertainty above 0.5",
        "click on the object",
        "click on the background",
        "box",
        "object 1",
        "object 2",
    ]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image and prompts", "masks", "uncertainty"]
    row = make_row()
    without = draw_prompted(
        image, PROMPTS, [row._replace(masks=[mask & False for mask in row.masks])], doubtful_above=1.0
    )
    shares = [[share_of(render(drawn), color) for color in OUTLINES[:2]] for drawn in (figure, without)]
    assert (np.array(shares[0]) > 1.5 * np.array(shares[1])).all()


def test_the_legend_leaves_out_what_is_not(image):
    figure = draw_prompted(image, PROMPTS[1:], [make_row(1)], doubtful_above=0.25)
    assert texts(figure) == ["error-prone: uncertainty above 0.25", "box", "object 1"]
    many = draw_prompted(image, PROMPTS[1:] * 10, [make_row(10)], doubtful_above=0.25)
    assert texts(many) == ["error-prone: uncertainty above 0.25", "box"]


def test_doubtful_pixels_are_those_above_the_threshold(image):
    def marked(threshold):
        axes = draw_prompted(image, PROMPTS, [make_row()], doubtful_above=threshold).axes[1]
        return axes.get_images()[-1].get_array()[:, :, 3] > 0

    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[20:30, 30:50] = True
    np.testing.assert_array_equal(marked(0.5), expected)
    assert not marked(0.9).any()


def test_a_row_for_each_hypothesis(image):
    rows = [make_row(title=f"hypothesis {i}") for i in (1, 2, 3)]
    figure = draw_prompted(image, PROMPTS, rows, doubtful_above=0.5)
    assert [axes.get_ylabel() for axes in figure.axes[:9:3]] == ["hypothesis 1", "hypothesis 2", "hypothesis 3"]


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3), (1500, 700)])
def test_images_of_any_size_without_a_mask(size, rng):
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    row = Row("", [np.zeros(size, bool)], ["object 1"], rng.uniform(0, 1, size).astype(np.float32))
    render(draw_prompted(image, [ObjectPrompt(((0, 0),), (1,))], [row], doubtful_above=0.5))
    render(draw_everything(image, np.zeros(size, np.uint16), []))


def test_outlines_of_shrunken_masks_lie_where_the_masks_are():
    mask = np.zeros((1500, 3000), bool)
    mask[300:900, 600:2100] = True
    image = np.zeros((*mask.shape, 3), np.uint8)
    row = Row("", [mask], ["object 1"], np.zeros(mask.shape, np.float32))
    axes = draw_prompted(image, [ObjectPrompt()], [row], doubtful_above=0.5).axes[1]
    corners = axes.collections[-1].get_paths()[0].vertices
    # A third of the size, so half a drawn pixel is 1.5 px.
    np.testing.assert_allclose(corners.min(axis=0), [599.5, 299.5], atol=1.6)
    np.testing.assert_allclose(corners.max(axis=0), [2099.5, 899.5], atol=1.6)


def test_every_mask_has_the_colour_of_its_mean_uncertainty(image):
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    labels[:20, :20], labels[20:, 40:] = 1, 2
    figure = draw_everything(image, labels, [0.25, 0.75])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "2 masks", "mean uncertainty"]
    drawn = figure.axes[2].get_images()[0].get_array()
    factor = drawn.shape[0] // HEIGHT
    for (y, x), value in {(10, 10): 0.25, (30, 50): 0.75}.items():
        np.testing.assert_allclose(drawn[y * factor, x * factor], colormaps["magma"](value)[:3])
