import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ruac_jax.evaluation.studies.output import Finding, write_finding


def make_figure():
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([0, 1], [1, 0])
    return figure


def test_three_files(tmp_path):
    finding = Finding({"a": {"b": None, "c": 0.25}}, "| a table |", make_figure())
    write_finding(tmp_path / "new" / "out", "sampling", finding, {"draws": 2})
    content = json.loads((tmp_path / "new" / "out" / "sampling.json").read_text())
    assert content["study"] == "sampling"
    assert content["settings"] == {"draws": 2}
    assert content["results"] == {"a": {"b": None, "c": 0.25}}
    assert set(content["versions"]) == {"ruac_jax", "jax", "flax", "python"}
    assert (tmp_path / "new" / "out" / "sampling.md").read_text() == "| a table |\n"
    assert np.asarray(Image.open(tmp_path / "new" / "out" / "sampling.png")).std() > 5
    assert len(list((tmp_path / "new" / "out").iterdir())) == 3


def test_not_a_number_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_finding(tmp_path / "out", "sampling", Finding({"a": float("nan")}, "", make_figure()), {})
    assert list(tmp_path.iterdir()) == []
