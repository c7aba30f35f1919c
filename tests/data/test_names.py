from itertools import pairwise

import pytest

from ruac_jax.data.dataset import Counts, Dataset, Listing
from ruac_jax.data.names import check_split, natural_key
from ruac_jax.errors import UserError


def test_numbers_in_names_count_as_numbers():
    ordered = ["2", "10", "a", "a/2", "a/10", "a2b1", "a2b3", "a2b20", "a02b", "a10", "b"]
    by_rule = sorted(ordered[::-1], key=natural_key)
    assert by_rule.index("2") < by_rule.index("10") < by_rule.index("a")
    assert by_rule.index("a/2") < by_rule.index("a/10")
    assert by_rule.index("a2b1") < by_rule.index("a2b3") < by_rule.index("a2b20") < by_rule.index("a10")
    assert by_rule[-1] == "b"


def test_names_that_differ_have_keys_that_differ():
    names = ["x1", "x01", "x001", "x", "", "1x", "x²"]
    keys = sorted(natural_key(name) for name in names)
    assert all(first < second for first, second in pairwise(keys))


def test_a_split_that_is_not_there_names_those_that_are():
    dataset = Dataset(
        name="toy",
        title="toy",
        group="objects",
        splits={"train": Counts(), "val": Counts()},
        evaluation_split="val",
        license="",
        download="",
        layout="",
        list_samples=lambda source, split: Listing([], []),
    )
    check_split(dataset, "val")
    with pytest.raises(UserError, match=r"toy has no split 'test'; known are train, val"):
        check_split(dataset, "test")
