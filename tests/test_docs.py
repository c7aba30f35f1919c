"""Documents name what is there."""

import re
from pathlib import Path

import pytest

from ruac_jax.data.catalog import DATASETS

ROOT = Path(__file__).parents[1]


def test_the_page_of_datasets_has_each_in_its_group():
    table = dict(re.findall(r"^\| (\w+) \| (.*) \|$", (ROOT / "docs/datasets.md").read_text(), re.MULTILINE))
    listed = {name: group for group, names in table.items() for name in re.findall(r"`(\w+)`", names)}
    assert listed == {name: dataset.group for name, dataset in DATASETS.items()}


PAGES = [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert link.startswith("http") or (page.parent / link).exists(), link
