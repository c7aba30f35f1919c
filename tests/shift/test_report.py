import numpy as np
import pytest

from ruac_jax.shift.report import domain_mean, format_set, format_summary, mean_over_seeds, summarize

DOMAINS = ["shapes/fog", "shapes/thin"]
KINDS = {"shapes/fog": "appearance", "shapes/thin": "shape"}


def row(j, aurc):
    return {"j": j, "aurc": aurc, "images": 3}


RESULTS = {
    "bayes": {
        0: {"shapes/fog": row(0.5, 0.4), "shapes/thin": row(0.7, 0.2)},
        1: {"shapes/fog": row(0.6, 0.3), "shapes/thin": row(0.6, 0.3)},
    },
    "ruac": {
        0: {"shapes/fog": row(0.8, 0.1), "shapes/thin": row(0.6, 0.3)},
        1: {"shapes/fog": row(0.5, 0.5), "shapes/thin": row(0.5, None)},
    },
}


def test_means_over_domains_need_all_of_them():
    assert domain_mean(RESULTS["bayes"][0], "j", DOMAINS) == pytest.approx(0.6)
    assert domain_mean(RESULTS["ruac"][1], "aurc", DOMAINS) is None
    assert domain_mean(RESULTS["bayes"][0], "j", [*DOMAINS, "shapes/none"]) is None


def test_seeds_are_paired_before_they_are_averaged():
    found = summarize(RESULTS, "ruac", "bayes", "j", DOMAINS)
    per_seed, reference = np.array([0.7, 0.5]), np.array([0.6, 0.6])
    assert found.mean == pytest.approx(per_seed.mean())
    assert found.spread == pytest.approx(per_seed.std(ddof=1))
    assert found.gain == pytest.approx((per_seed - reference).mean())
    assert (found.seeds, found.better, found.pairs) == (2, 1, 2)


def test_lower_is_better_where_it_is_and_missing_values_drop_the_pair():
    found = summarize(RESULTS, "ruac", "bayes", "aurc", DOMAINS)
    assert (found.seeds, found.better, found.pairs) == (1, 1, 1)
    assert found.spread is None
    assert found.gain == pytest.approx(0.2 - 0.3)


def test_domains_are_averaged_over_seeds():
    means = mean_over_seeds(RESULTS["ruac"])
    assert means["shapes/fog"]["j"] == pytest.approx(0.65)
    assert means["shapes/thin"]["aurc"] is None


def test_the_table_has_two_rows_per_system():
    lines = format_summary(RESULTS, "bayes", DOMAINS, ["j", "aurc"]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["bayes", "ruac", "- minus bayes"]
    assert "60.0 ± 14.1" in lines[3]
    assert "+0.0 (1/2)" in lines[4]
    assert "-0.1000 (1/1)" in lines[4]


def test_a_set_has_seeds_kinds_and_domains():
    text = format_set(RESULTS, "bayes", DOMAINS, KINDS, ["j", "aurc"])
    assert "### appearance (shapes/fog)" in text
    assert "### shape (shapes/thin)" in text
    assert "| shapes/fog" in text
    assert "wins" in text
