"""What a study leaves behind: `NAME.json` with every number, `NAME.md` with its tables, `NAME.png`."""

import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from ruac_jax.evaluation.figures import save_figure


class Finding(NamedTuple):
    """What a study found.

    Attributes:
      results: every number, JSON values; what does not exist is None.
      tables: Markdown.
      figure: to be saved beside them.
    """

    results: dict[str, Any]
    tables: str
    figure: Figure


def write_finding(output: Path, name: str, finding: Finding, settings: Mapping[str, Any]) -> None:
    """Writes the three files of a study.

    Args:
      output: folder, made if it is not there.
      name: of the study and its files.
      finding: what to write.
      settings: what the study was asked, checkpoint fingerprint included; kept in the JSON file.

    Raises:
      ValueError: a number is NaN or infinite.
    """
    versions = {package: version(package) for package in ("ruac_jax", "jax", "flax")}
    content = {
        "study": name,
        "settings": dict(settings),
        "versions": versions | {"python": sys.version.split()[0]},
        "results": finding.results,
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{name}.json").write_text(text, encoding="utf-8")
    (output / f"{name}.md").write_text(finding.tables + "\n", encoding="utf-8")
    save_figure(finding.figure, output / f"{name}.png")
