"""How many draws does the uncertainty need, and what are the closed forms worth? (appendices O and A.8)

The sweep scores every number of draws, and both closed forms, with the metrics of the evaluation. J&F belongs to the
mean logits, so it has to be the same in every row. Beside it, both closed forms are compared with many draws pixel by
pixel.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from tqdm import tqdm

from ruac_jax.data.record import Record
from ruac_jax.errors import UserError
from ruac_jax.evaluation.measure import measure_objects, objects_at_once
from ruac_jax.evaluation.protocol import Protocol, network_image
from ruac_jax.evaluation.report import average as average_of_targets
from ruac_jax.evaluation.run import Subject, group_of
from ruac_jax.evaluation.state import DatasetState
from ruac_jax.evaluation.studies.agreement import Agreement
from ruac_jax.evaluation.studies.clicks import SLOTS, clicked_groups
from ruac_jax.evaluation.studies.draws import VARIANCES, SpreadPredictor
from ruac_jax.evaluation.studies.figures import draw_sampling
from ruac_jax.evaluation.studies.output import Finding
from ruac_jax.evaluation.tables import markdown_table, show
from ruac_jax.heads.hypernetwork import HypernetworkHead
from ruac_jax.model import SAM2

SAMPLES = (1, 5, 10, 20, 50, 100)

# Title, and whether it is shown in percent.
_METRICS = {
    "j_and_f": ("J&F", True),
    "pavpu": ("PAvPU", True),
    "auroc": ("AUROC", True),
    "aurc": ("AURC", False),
    "ece": ("ECE", False),
}
_KEPT = ("images", "objects", "pixels", "j", "f", *_METRICS, "auroc_object", "auroc_mask", "nll", "brier")
# Table S13: largest minus least value over the numbers of draws.
_PAPER_RANGES = {"j_and_f": 0.0018, "pavpu": 0.0082, "aurc": 0.007, "ece": 0.004}
_PAPER_VARIANCES = "> 0.99"  # A.8, Pearson correlation of "product" and "full" variance


def study_sampling(model: SAM2, image_size: int, subjects: Sequence[Subject], draws: int) -> Finding:
    """Evaluates a model by every number of draws.

    Args:
      model: a network whose head has a spread.
      image_size: side of the square images that it sees, px.
      subjects: datasets; source domains do not count in the average.
      draws: of the reference that the closed forms are compared with, an even number.

    Raises:
      UserError: the head has no spread, or a record cannot be used.
    """
    if isinstance(model.head, HypernetworkHead):
        raise UserError("sampling needs a head whose logits have a spread, and the checkpoint's has none")
    predictor = SpreadPredictor(model, image_size, sorted({*SAMPLES, draws // 2, draws}))
    methods = [*dict.fromkeys(map(str, (*SAMPLES, draws))), *VARIANCES]
    sweep: dict[str, dict[str, dict[str, int | float | None]]] = {}
    agreements: dict[str, Agreement] = {}
    for subject in subjects:
        states, agreement = {method: DatasetState() for method in methods}, Agreement.empty()
        for index in tqdm(subject.indices, subject.name, unit="image", leave=False, dynamic_ncols=True):
            found, pixels = _measure_record(predictor, subject.source[index], methods, draws)
            states = {method: state.merge(found[method]) for method, state in states.items()}
            agreement = agreement.merge(pixels)
        metrics = {method: state.compute() for method, state in states.items()}
        sweep[subject.name] = {method: {name: found[name] for name in _KEPT} for method, found in metrics.items()}
        agreements[subject.name] = agreement
    groups = {name: group_of(name) for name in sweep}
    average = {}
    for method in methods:
        shown = {name: {metric: rows[method][metric] for metric in _METRICS} for name, rows in sweep.items()}
        average[method] = average_of_targets(shown, groups)
    agreed = {name: agreement.compute() for name, agreement in agreements.items()}
    results = {"sweep": sweep, "average_of_targets": average, "agreement": agreed, "draws": draws}
    return Finding(results, _format(sweep, average, agreed, draws), draw_sampling(sweep, agreements, agreed))


def _measure_record(
    predictor: SpreadPredictor, record: Record, methods: Sequence[str], draws: int
) -> tuple[dict[str, DatasetState], Agreement]:
    states, agreement = {method: DatasetState(images=1) for method in methods}, Agreement.empty()
    image_id, features = record["image_id"], None
    key = jax.random.key(zlib.crc32(image_id.encode()))
    step = objects_at_once(SLOTS, record["image"].shape[:2])
    for number, group in enumerate(clicked_groups(record, predictor.image_size)):
        if features is None:
            features = predictor.encode(network_image(record["image"], predictor.image_size))
        spread = predictor.decode(features, group.points, group.labels, jax.random.fold_in(key, number))
        objects = len(group.masks)
        agreement = agreement.merge(Agreement.of(spread, objects, draws))
        for method in methods:
            for first in range(0, objects, step):
                truth = group.masks[first : first + step]
                measured = measure_objects(spread.maps(method), first, step, truth, Protocol().patch, image_id)
                states[method] = states[method].merge(measured.state)
    return states, agreement


def _format(sweep: Mapping[str, Any], average: Mapping[str, Any], agreement: Mapping[str, Any], draws: int) -> str:
    parts = ["# Monte Carlo draws and closed forms", "## Average of the targets", _format_average(average)]
    parts += [f"## Closed forms against {draws} draws, pixel by pixel", _format_agreement(agreement), _LEGEND]
    for metric, (title, _) in _METRICS.items():
        methods = list(average)
        rows = [[name, *(_cell(by_method[m], metric) for m in methods)] for name, by_method in sweep.items()]
        parts += [f"## {title} of each dataset, by draws and closed form", markdown_table(["dataset", *methods], rows)]
    return "\n\n".join(parts)


def _cell(values: Mapping[str, Any], metric: str) -> str:
    percent = _METRICS[metric][1]
    return show(values.get(metric), 2 if percent else 4, percent=percent)


def _format_average(rows: Mapping[str, Mapping[str, Any]]) -> str:
    def line(title: str, values: Mapping[str, Any]) -> list[str]:
        return [title, *(_cell(values, metric) for metric in _METRICS)]

    lines = [line(f"analytic, {m}" if m in VARIANCES else f"draws: {m}", values) for m, values in rows.items()]
    swept = [rows[str(count)] for count in SAMPLES]
    known = {metric: [row[metric] for row in swept if row.get(metric) is not None] for metric in _METRICS}
    ranges = {metric: max(values) - min(values) for metric, values in known.items() if values}
    lines.append(line(f"range over {SAMPLES[0]} to {SAMPLES[-1]} draws", ranges))
    lines.append(line("range in the paper (table S13)", _PAPER_RANGES))
    return markdown_table(["uncertainty", *(title for title, _ in _METRICS.values())], lines)


def _format_agreement(agreement: Mapping[str, Any]) -> str:
    header = ["dataset", "r product", "r full", "r halves", "max product", "max full", "max halves"]
    header += ["bias product", "bias full", "r of variances", "full / product"]
    lines = []
    for name, found in agreement.items():
        by_pair = [found[pair] for pair in (*VARIANCES, "halves")]
        lines.append(
            [
                name,
                *(show(pair["pearson"]) for pair in by_pair),
                *(show(pair["max_difference"], 3) for pair in by_pair),
                *(show(pair["mean_difference"]) for pair in by_pair[:2]),
                show(found["product_full_variance"]),
                show(found["variance_ratio"]["median"], 1),
            ]
        )
    lines.append(["the paper (A.8)", *["-"] * 8, _PAPER_VARIANCES, "-"])
    return markdown_table(header, lines)


_LEGEND = """J&F, PAvPU and AUROC (pixels) in percent, AURC and ECE as fractions; range: largest minus least value. r:
Pearson correlation of u; max: largest absolute difference of u; bias: mean of analytic minus sampled u; halves: between
two halves of the draws, the part that is the sampling's own. r of variances: between "product" and "full" logit
variance; full / product: median over objects of the ratio of their means."""
