import math

import numpy as np
import pytest
from scipy import ndimage

from ruac_jax.evaluation.strata import STRATA, StrataState, StratumState, describe, format_strata, perimeter
from tests.evaluation.metrics.merging import check_merging

SIZE = (100, 100)  # one pixel is 0.01 % of the image


def box(top, bottom, left, right, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def names_of(mask, j=0.9):
    traits = describe(mask, j)
    return {name for name, test in STRATA.items() if test(traits)}


def test_strata_by_hand():
    small = box(10, 19, 10, 20)  # 90 pixels: 0.9 %
    assert names_of(small) == {
        "all objects",
        "area < 1 %",
        "compact",
        "in one piece",
        "inside the image",
        "J >= 0.5",
    }
    bar = box(40, 44, 0, 60)  # 2.4 %, fifteen times as long as wide, at the left edge
    assert names_of(bar, 0.2) == {
        "all objects",
        "area 1-10 %",
        "thin or ragged",
        "in one piece",
        "cut by the border",
        "J < 0.5",
    }
    pair = box(0, 50, 0, 50) | box(60, 90, 60, 90)  # 34 %
    assert names_of(pair, 0.5) == {
        "all objects",
        "area > 10 %",
        "compact",
        "in several pieces",
        "cut by the border",
        "J >= 0.5",
    }


def test_bounds_of_the_size_strata():
    assert "area < 1 %" in names_of(box(0, 9, 0, 11))  # 99 pixels
    assert "area 1-10 %" in names_of(box(0, 10, 0, 10))  # 100
    assert "area 1-10 %" in names_of(box(0, 50, 0, 20))  # 1000 of 10000
    assert "area > 10 %" in names_of(box(0, 1, 0, 1001, (1, 10000)))  # 1001 of 10000


def test_every_object_is_in_one_stratum_of_each_kind(rng):
    kinds = [list(STRATA)[1:4], *(list(STRATA)[start : start + 2] for start in range(4, 12, 2))]
    assert {name for kind in kinds for name in kind} | {"all objects"} == set(STRATA)
    for _ in range(40):
        smooth = ndimage.gaussian_filter(rng.standard_normal((40, 50)), rng.uniform(1, 6))
        names = names_of(smooth > np.quantile(smooth, rng.uniform(0.5, 0.995)), rng.random())
        assert all(len(names & set(kind)) == 1 for kind in kinds)


@pytest.mark.parametrize("radius", [20, 57.5])
def test_a_disk_has_its_own_perimeter_and_compactness_one(radius):
    y, x = np.mgrid[:121, :121] - 60
    disk = x**2 + y**2 <= radius**2
    assert perimeter(disk) == pytest.approx(2 * math.pi * radius, rel=0.02)
    assert describe(disk, 1.0).compactness == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("angle", [0, 20, 45, 70])
@pytest.mark.parametrize(("length", "stratum"), [(60, "compact"), (240, "thin or ragged")])
def test_bars_are_thin_however_they_are_turned(angle, length, stratum):
    turn = math.radians(angle)
    y, x = np.mgrid[:301, :301] - 150
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    bar = (np.abs(along) < length / 2) & (np.abs(across) < 10)
    assert stratum in names_of(bar)
    assert perimeter(bar) == pytest.approx(2 * (length + 20), rel=0.09)


def test_perimeter_by_hand():
    # One pixel: two crossings in each of four directions.
    assert perimeter(np.ones((1, 1), bool)) == pytest.approx(math.pi / 8 * (4 + 4 / math.sqrt(2)))
    # 2 x 3: four along rows, six along columns, and eight on each set of four diagonals.
    assert perimeter(np.ones((2, 3), bool)) == pytest.approx(math.pi / 8 * (10 + 16 / math.sqrt(2)))


def test_pieces_touch_by_corners():
    assert describe(np.eye(5, dtype=bool), 1.0).pieces == 1
    assert describe(np.eye(9, dtype=bool) & (np.arange(9) % 2 == 0), 1.0).pieces == 5


@pytest.mark.parametrize("edge", [(0, slice(3, 5)), (9, slice(3, 5)), (slice(3, 5), 0), (slice(3, 5), 14)])
def test_each_edge_is_a_border(edge):
    mask = np.zeros((10, 15), bool)
    mask[4, 7] = True
    assert not describe(mask, 1.0).at_border
    mask[edge] = True
    assert describe(mask, 1.0).at_border


def test_an_object_without_a_pixel_is_refused():
    with pytest.raises(ValueError, match="without a pixel"):
        describe(np.zeros((3, 3), bool), 0.0)


def test_figures_of_a_stratum_by_hand():
    truth = np.stack([box(10, 15, 10, 15), box(0, 50, 0, 50), box(20, 29, 20, 30)])  # 0.25 %, 25 %, 0.9 %
    j, f, u = np.array([0.25, 0.75, 1.0]), np.array([0.5, 1.0, 0.0]), np.array([0.5, 0.125, 0.25])
    result = StrataState.from_objects(truth, j, f, u).compute()
    assert result["area < 1 %"] == {
        "objects": 2,
        "j": 0.625,
        "f": 0.25,
        "j_and_f": 0.4375,
        "uncertainty": 0.375,
        "failure_rate": 0.5,
    }
    assert result["J < 0.5"]["objects"] == 1
    assert result["J < 0.5"]["failure_rate"] == 1
    assert result["J >= 0.5"]["failure_rate"] == 0
    assert result["all objects"]["uncertainty"] == pytest.approx(0.875 / 3, abs=1e-9)
    assert result["in several pieces"] == {"objects": 0} | dict.fromkeys(
        ("j", "f", "j_and_f", "uncertainty", "failure_rate")
    )


def test_any_order_of_merging_gives_the_same_bits(rng):
    smooth = ndimage.gaussian_filter(rng.standard_normal((60, 30, 30)), (0, 3, 3))
    data = (smooth > 0.05, *rng.random((3, 60)))
    whole = StrataState.from_objects(*data).compute()
    parts = [StrataState.from_objects(*(array[i : i + 4] for array in data)) for i in range(0, 60, 4)]
    assert check_merging(StrataState(), parts, StrataState.compute) == whole
    assert whole["all objects"]["uncertainty"] == pytest.approx(data[3].mean(), abs=1e-9)


def test_table_shows_every_stratum_and_dashes_where_nothing_is():
    lines = format_strata(
        StrataState.from_objects(box(0, 50, 0, 50)[None], *np.array([[0.75], [0.5], [0.2]])).compute()
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines.splitlines()]
    assert [row[0] for row in rows[2:]] == list(STRATA)
    assert rows[2] == ["all objects", "1", "62.50", "75.00", "50.00", "0.00", "0.2000"]
    assert rows[3] == ["area < 1 %", "0", "-", "-", "-", "-", "-"]


def test_no_object_has_no_figure():
    assert set(StratumState().compute().values()) == {0, None}
    none = np.zeros((0, 4, 4), bool)
    assert StrataState.from_objects(none, *np.zeros((3, 0))) == StrataState()
