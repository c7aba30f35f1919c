import dataclasses

import pytest

from ruac_jax.config import AttackConfig, Config, OptimizerConfig, ScheduleConfig
from ruac_jax.evaluation.studies.parameters import study_parameters
from ruac_jax.weights import ModelMetadata, abstract_model, leaves

CONSTANT = "positional_encoding_gaussian_matrix"


def study(variant="nano", head="weibull", config=None):
    return study_parameters(abstract_model(variant, head), ModelMetadata(variant, head), config or Config())


def cells(tables):
    rows = [line.strip("|").split("|") for line in tables.splitlines() if line.startswith("|")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_paper_s_sizes_on_the_paper_s_network():
    found = study("base_plus")
    parts = {part: counts["parameters"] for part, counts in found.results["parts"].items()}
    # Appendix P, table S14, and the published weights
    assert parts["head"] == 34_340
    assert parts["style attacker"] == 33_926
    assert parts["graph refinement"] == 33_928
    assert parts["deformation offsets"] == 369_986
    assert round(parts["image encoder"] / 1e6, 1) == 69.1
    assert round(found.results["additions"] / 1e6, 2) == 0.47
    assert round(100 * found.results["additions_over_encoder"], 2) == 0.68
    table = cells(found.tables)
    assert table["image encoder"] == ["frozen", f"{parts['image encoder']:,}", "69.1 M"]
    assert table["head (weibull)"] == ["trained", "34,340", "34,340"]
    assert table["head and attackers"] == ["", "472,180", "472,180"]
    assert table["the same over the image encoder"] == ["", "0.68 %", "0.68 %"]


@pytest.mark.parametrize("head", ["weibull", "hypernetwork"])
def test_parts_add_up_to_the_network(head):
    found = study(head=head)
    parts = found.results["parts"]
    network = sum(parts[part]["parameters"] for part in list(parts)[:6])
    assert network == sum(x.size for path, x in leaves(abstract_model("nano", head)).items() if CONSTANT not in path)
    assert found.results["paper"] == {}  # nothing of a narrower network compares


def test_paper_s_head_is_not_held_against_another():
    paper = study("tiny", "hypernetwork").results["paper"]
    assert set(paper) == {"style attacker", "graph refinement", "deformation offsets"}


def test_learning_rates_say_what_is_trained():
    table = cells(study().tables)
    states = {part: row[0] for part, row in table.items()}
    assert states["image encoder"] == "frozen"
    assert states["memory encoder (of the deformation attack)"] == "frozen"
    assert states["mask decoder"] == states["no-memory embedding"] == states["style attacker"] == "trained"
    other = study(config=Config(optimizer=OptimizerConfig(encoder=1e-5, decoder=0.0, attack=0.0)))
    states = {part: row[0] for part, row in cells(other.tables).items()}
    assert states["image encoder"] == "trained"
    assert states["mask decoder"] == states["prompt encoder"] == states["graph refinement"] == "frozen"
    trained = [counts["parameters"] for counts in other.results["parts"].values() if counts["trained"]]
    assert cells(other.tables)["all that is trained"][1] == f"{sum(trained):,}"


def test_parts_that_do_not_exist():
    no_attack = study(config=Config(schedule=ScheduleConfig(1, 1, 0)))
    assert cells(no_attack.tables)["style attacker"] == ["-", "0", "-"]
    assert no_attack.results["additions"] == no_attack.results["parts"]["head"]["parameters"]
    half = dataclasses.replace(Config(), attack=AttackConfig(style=False, graph=False))
    parts = study(config=half).results["parts"]
    assert parts["style attacker"]["parameters"] == 0 < parts["deformation offsets"]["parameters"]
