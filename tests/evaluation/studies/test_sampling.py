import json

import pytest
from flax import nnx

from ruac_jax.errors import UserError
from ruac_jax.evaluation.predictor import ModelPredictor, UncertaintySettings
from ruac_jax.evaluation.protocol import evaluate_source
from ruac_jax.evaluation.studies.sampling import SAMPLES, study_sampling
from ruac_jax.heads.hypernetwork import HypernetworkHead
from ruac_jax.weights import create_model

SIZE = 64


@pytest.fixture(scope="module")
def finding(model, subjects):
    return study_sampling(model, SIZE, subjects, draws=4)


@pytest.mark.slow
def test_masks_do_not_depend_on_the_draws(finding):
    sweep = finding.results["sweep"]
    assert list(sweep) == ["shapes/source", "shapes/xray"]
    for by_method in sweep.values():
        assert list(by_method) == [*map(str, SAMPLES), "4", "product", "full"]
        for metric in ("j", "f", "j_and_f", "objects", "pixels", "images"):
            assert len({values[metric] for values in by_method.values()}) == 1
        assert len({values["auroc"] for values in by_method.values()}) > 1  # the uncertainty does
    average = finding.results["average_of_targets"]
    assert average["20"]["ece"] == sweep["shapes/xray"]["20"]["ece"]  # the only target


@pytest.mark.slow
@pytest.mark.parametrize("variance", ["product", "full"])
def test_closed_forms_equal_the_evaluation(model, subjects, finding, variance):
    subject = subjects[1]
    predictor = ModelPredictor(model, SIZE, uncertainty=UncertaintySettings(variance=variance))
    expected = evaluate_source([predictor], subject.source, indices=subject.indices).compute()
    for metric, value in finding.results["sweep"][subject.name][variance].items():
        # Compiled for another number of objects, logits differ in their last digits and few pixels change bins.
        assert value == pytest.approx(expected[metric], abs=2e-4), metric


@pytest.mark.slow
def test_tables_show_the_paper_s_figures_next_to_ours(finding):
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in finding.tables.splitlines()]
    rows = {line[0]: line[1:] for line in lines if line}
    assert rows["range over 1 to 100 draws"][0] == "0.00"
    assert rows["range in the paper (table S13)"] == ["0.18", "0.82", "-", "0.0070", "0.0040"]
    assert rows["the paper (A.8)"][8] == "> 0.99"
    agreement = finding.results["agreement"]["shapes/xray"]
    assert f"{agreement['product_full_variance']:.4f}" in finding.tables
    for title in ("J&F", "PAvPU", "AUROC", "AURC", "ECE"):
        assert f"## {title} of each dataset" in finding.tables
    json.dumps(finding.results, allow_nan=False)


@pytest.mark.slow
def test_nothing_to_judge_leaves_dashes(model, subjects):
    empty = subjects[1]._replace(indices=[])
    found = study_sampling(model, SIZE, [empty], draws=4)
    assert found.results["sweep"]["shapes/xray"]["20"]["j"] is None
    assert found.results["average_of_targets"]["20"]["j_and_f"] is None
    assert "| range over 1 to 100 draws      |    - |" in found.tables


def test_a_head_without_spread_is_refused(subjects):
    plain = create_model("nano", "hypernetwork", rngs=nnx.Rngs(0))
    assert isinstance(plain.head, HypernetworkHead)
    with pytest.raises(UserError, match="needs a head whose logits have a spread"):
        study_sampling(plain, SIZE, subjects, draws=4)
