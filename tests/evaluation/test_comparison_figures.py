import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ruac_jax.evaluation import comparison_figures
from ruac_jax.evaluation.comparison import Method, compare
from ruac_jax.evaluation.figures import PALETTE

GROUPS = {"src": "source", "a1": "a", "b1": "b", "a2": "a", "b2": "b"}
METRICS = ["j_and_f", "aurc"]


def methods(values):
    return [
        Method(name, {dataset: dict(zip(METRICS, row[i], strict=True)) for dataset, row in values.items()}, GROUPS, {})
        for i, name in enumerate(("base", "ruac"))
    ]


@pytest.fixture
def comparison():
    values = {
        "src": ((0.9, 0.1), (0.8, 0.2)),
        "a1": ((0.5, 0.3), (0.6, 0.2)),
        "b1": ((0.4, 0.3), (0.3, 0.4)),
        "a2": ((0.5, 0.3), (0.9, None)),
        "b2": ((0.4, 0.3), (None, 0.1)),
    }
    return compare(methods(values), METRICS)


@pytest.fixture
def saved(monkeypatch):
    """The figures written, to be looked into."""
    figures = []
    save = Figure.savefig

    def keep(figure, *arguments, **options):
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def has_color(path, code, pixels=20):
    color = np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)])
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return (np.abs(image - color).max(axis=2) <= 2).sum() >= pixels


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_bars_are_grouped_and_sorted_and_right_is_better(comparison, saved, tmp_path):
    comparison_figures.draw_deltas(comparison, "ruac", tmp_path / "deltas.png")
    first, second = saved[0].axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["src", "a2", "a1", "b1", "b2"]
    assert texts(first) == ["-10.0", "+40.0", "+10.0", "-10.0", "-"]
    assert texts(second) == ["+0.100", "-", "-0.100", "+0.100", "-0.200"]
    assert [bar.get_width() for bar in first.patches] == pytest.approx([-10, 40, 10, -10, 0])
    assert first.get_xlim()[0] < first.get_xlim()[1]
    assert second.get_xlim()[0] > second.get_xlim()[1]  # less is better
    gaps = np.diff(first.get_yticks())
    assert (gaps[[0, 2]] > gaps[[1, 3]]).all()
    assert all(has_color(tmp_path / "deltas.png", code, 300) for code in ("#222222", *PALETTE[:2]))


def test_points_lie_where_the_values_say(comparison, saved, tmp_path):
    comparison_figures.draw_scatter(comparison, "ruac", tmp_path / "scatter.png")
    first, second = saved[0].axes[:2]
    points = [tuple(line.get_xydata()[0]) for line in first.lines[1:]]
    assert points == [pytest.approx(point) for point in ((90, 80), (50, 60), (50, 90), (40, 30))]
    assert [tuple(line.get_xydata()[0]) for line in second.lines[1:]] == [
        (0.1, 0.2),
        (0.3, 0.2),
        (0.3, 0.4),
        (0.3, 0.1),
    ]
    assert len(texts(first)) == 3
    assert "a2" in texts(first)
    for axes, better in ((first, (0.2, 0.9)), (second, (0.9, 0.2))):  # shares of the panel's width and height
        low, high = axes.get_xlim()
        spot = tuple(low + share * (high - low) for share in better)
        (tinted,) = (path for collection in axes.collections for path in collection.get_paths())
        assert tinted.contains_point(spot)
        assert not tinted.contains_point(spot[::-1])


@pytest.mark.parametrize("rows", [((0.5, None), (0.5, 0.2)), ((0.0, 0.0), (0.0, 0.0))])
def test_one_dataset_without_difference_or_value(rows, tmp_path):
    comparison = compare(methods({"a1": rows}), METRICS)
    comparison_figures.draw_deltas(comparison, "ruac", tmp_path / "deltas.png")
    comparison_figures.draw_scatter(comparison, "ruac", tmp_path / "scatter.png")
    assert len(list(tmp_path.iterdir())) == 2


def test_curves_of_datasets_that_two_methods_have(saved, tmp_path):
    def curve(risk):
        return {"coverage": [0.5, 1.0], "risk": [risk, 0.5]}

    curves = {
        "base": {"one": curve(0.1), "two": curve(0.2), "empty": {"coverage": [], "risk": []}},
        "none": {},
        "ruac": {"two": curve(0.3), "one": curve(0.4), "three": curve(0.4), "empty": {"coverage": [], "risk": []}},
    }
    comparison_figures.draw_risk_coverage_overlay(curves, tmp_path / "curves.png")
    panels = [axes for axes in saved[0].axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == ["one", "two", "empty"]
    assert [line.get_ydata()[0] for line in panels[0].lines] == [0.1, 0.4]
    assert [line.get_color() for line in panels[1].lines] == ["#222222", PALETTE[1]]  # as in the legend
    assert [text.get_text() for text in saved[0].legends[0].get_texts()] == ["base", "none", "ruac"]
    comparison_figures.draw_risk_coverage_overlay({"base": curves["base"], "none": {}}, tmp_path / "nothing.png")
    assert not (tmp_path / "nothing.png").exists()
