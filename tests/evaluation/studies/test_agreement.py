import numpy as np
import pytest
from scipy.stats import pearsonr

from ruac_jax.evaluation.studies.agreement import BINS, Agreement
from ruac_jax.evaluation.studies.draws import Spread

DRAWS = 40


def entropy(p):
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def make_spread(rng, objects=5, slots=8):
    """Maps that resemble each other; what lies in unused slots would spoil every figure."""
    shape = (slots, 6, 7)
    p = rng.uniform(0.02, 0.98, shape)
    names = ("product", "full", str(DRAWS // 2), str(DRAWS))
    probability = {name: np.clip(p + rng.normal(0, 0.01, shape), 0.011, 0.989) for name in names}
    first = probability[str(DRAWS // 2)]
    second = np.clip(p + rng.normal(0, 0.01, shape), 0.011, 0.989)
    probability[str(DRAWS)] = (first + second) / 2
    product = rng.gamma(2, 1, shape)
    variance = {"product": product, "full": product * rng.uniform(2, 4, (slots, 1, 1)) + rng.gamma(1, 0.1, shape)}
    uncertainty = {name: entropy(values) for name, values in probability.items()}
    for maps in (probability, variance, uncertainty):
        for name, values in maps.items():
            values = values.astype(np.float32)
            values[objects:] = 0.5 if maps is probability else 77
            maps[name] = values
    return Spread(np.zeros(shape, np.float32), probability, uncertainty, variance), entropy(second[:objects])


def test_figures_equal_scipy_on_all_pixels(rng):
    spread, other_half = make_spread(rng)
    result = Agreement.of(spread, 5, DRAWS).compute()
    u = {name: values[:5].astype(np.float64).ravel() for name, values in spread.uncertainty.items()}
    v = {name: values[:5].astype(np.float64) for name, values in spread.variance.items()}
    pairs = {
        "product": (u["product"], u[str(DRAWS)]),
        "full": (u["full"], u[str(DRAWS)]),
        "halves": (u[str(DRAWS // 2)], other_half.ravel()),
    }
    for name, (a, b) in pairs.items():
        tolerance = 1e-5 if name == "halves" else 1e-12  # the second half comes from float32 probabilities
        assert result[name]["pearson"] == pytest.approx(pearsonr(a, b).statistic, abs=tolerance)
        assert result[name]["max_difference"] == pytest.approx(np.abs(a - b).max(), abs=tolerance)
        assert result[name]["mean_difference"] == pytest.approx((a - b).mean(), abs=tolerance)
    expected = pearsonr(v["product"].ravel(), v["full"].ravel()).statistic
    assert result["product_full_variance"] == pytest.approx(expected, abs=1e-12)
    assert result["product_full_u"] == pytest.approx(pearsonr(u["product"], u["full"]).statistic, abs=1e-12)
    ratios = v["full"].mean(axis=(1, 2)) / v["product"].mean(axis=(1, 2))
    assert result["variance_ratio"] == pytest.approx(
        {"median": np.median(ratios), "least": ratios.min(), "largest": ratios.max()}, rel=1e-12
    )
    assert result["pixels"] == 5 * 42


def test_density_counts_pixels_where_they_lie(rng):
    spread, _ = make_spread(rng)
    density = Agreement.of(spread, 5, DRAWS).density
    for counts, name in zip(density, ("product", "full"), strict=True):
        u, drawn = (spread.uncertainty[key][:5].ravel() for key in (name, str(DRAWS)))
        expected, _, _ = np.histogram2d(drawn, u, bins=BINS, range=[[0, 1], [0, 1]])
        np.testing.assert_array_equal(counts.sum(axis=1), expected.sum(axis=1))
        np.testing.assert_array_equal(counts, expected)


def test_parts_merge_to_the_whole(rng):
    spread, _ = make_spread(rng, objects=8)

    def part(start, stop):
        cut = [{name: values[start:stop] for name, values in maps.items()} for maps in spread[1:]]
        return Agreement.of(Spread(spread.logits[start:stop], *cut), stop - start, DRAWS)

    whole = Agreement.of(spread, 8, DRAWS).compute()
    merged = Agreement.empty().merge(part(0, 3)).merge(part(3, 4)).merge(part(4, 8)).merge(Agreement.empty()).compute()
    for name in ("product", "full", "halves"):
        assert merged.pop(name) == pytest.approx(whole.pop(name), abs=1e-12)
    assert merged.pop("variance_ratio") == pytest.approx(whole.pop("variance_ratio"))
    assert merged == pytest.approx(whole, abs=1e-12)


def test_nothing_and_no_spread_have_no_figure(rng):
    nothing = Agreement.empty().compute()
    assert nothing["pixels"] == 0
    assert nothing["product"] == dict.fromkeys(("pearson", "max_difference", "mean_difference"))
    assert nothing["variance_ratio"] == dict.fromkeys(("median", "least", "largest"))
    spread, _ = make_spread(rng)
    for values in spread.variance.values():
        values[:] = 0
    still = Agreement.of(spread, 5, DRAWS).compute()
    assert still["product_full_variance"] is None
    assert still["variance_ratio"]["median"] is None
