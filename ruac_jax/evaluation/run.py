"""Evaluates a saved model on named datasets and writes the report."""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int, UInt8

from ruac_jax.data.shapes import SOURCE, TARGETS
from ruac_jax.data.sources import GENERATED, load_source
from ruac_jax.errors import UserError
from ruac_jax.evaluation.figures import draw_domain_bars, draw_examples, draw_reliability, draw_risk_coverage
from ruac_jax.evaluation.protocol import evaluate_source
from ruac_jax.evaluation.report import format_table, write_results
from ruac_jax.evaluation.trivial import DiskPredictor, mean_area_share
from ruac_jax.inference import Segmentation, encode, segment
from ruac_jax.interaction import repeat_for_objects
from ruac_jax.model import SAM2, ImageFeatures, Prompts
from ruac_jax.sam2.variants import variant
from ruac_jax.weights import load_model


class Versions(NamedTuple):
    """What the figures were made with."""

    ruac_jax: str
    jax: str
    flax: str
    python: str


class ModelPredictor:
    """A model under the evaluation protocol: compiled once to encode, once per number of objects to decode."""

    def __init__(self, model: SAM2, image_size: int):
        """Takes a network and the side of the square images that it sees, px."""
        self.image_size = image_size
        graph, self._state = nnx.split(model)

        @jax.jit
        def encode_one(state: nnx.State, image: jax.Array) -> ImageFeatures:
            return encode(nnx.merge(graph, state), image[None])

        @jax.jit
        def decode_objects(
            state: nnx.State, features: ImageFeatures, points: jax.Array, labels: jax.Array
        ) -> Segmentation:
            n = len(points)
            height, width = features.high_res_s0.shape[1:3]
            prompts = Prompts(points, labels, jnp.zeros((n, height, width), jnp.float32), jnp.zeros(n, bool))
            return segment(nnx.merge(graph, state), repeat_for_objects(features, n), prompts)

        self._encode, self._decode = encode_one, decode_objects

    def encode(self, image: UInt8[np.ndarray, "s s 3"]) -> ImageFeatures:
        """Features of one RGB image."""
        return self._encode(self._state, image)

    def decode(
        self, features: ImageFeatures, points: Float[np.ndarray, "n p 2"], labels: Int[np.ndarray, "n p"]
    ) -> Segmentation:
        """Masks and uncertainty of `n` objects."""
        return self._decode(self._state, features, points, labels)


def expand_names(names: Sequence[str]) -> list[str]:
    """Replaces `shapes/all` by the source and every target domain."""
    everything = [GENERATED + domain for domain in (SOURCE, *TARGETS)]
    return [name for given in names for name in (everything if given == f"{GENERATED}all" else [given])]


def evaluate_model(
    checkpoint: Path,
    names: Sequence[str],
    output: Path,
    *,
    config: dict[str, Any],
    data_dir: str = "datasets",
    num_images: int = 40,
    pictures: int = 3,
) -> dict[str, dict[str, Any]]:
    """Evaluates a saved model and prints its table.

    Args:
      checkpoint: folder of the model.
      names: datasets, see `ruac_jax.data.sources`.
      output: folder for `results.json`, tables, figures.
      config: settings of the run, kept with the results.
      data_dir: where prepared datasets lie.
      num_images: images of each dataset, from its start.
      pictures: example images drawn of each dataset.

    Returns:
      The figures of each dataset.

    Raises:
      UserError: no model there, or no such dataset.
    """
    names = expand_names(names)
    model, metadata = load_model(checkpoint)
    size = int(config.get("image_size") or variant(metadata.variant).image_size)
    predictor = ModelPredictor(model, size)
    results: dict[str, dict[str, Any]] = {}
    curves = {}
    for name in names:
        source = load_source(name, "validation", data_dir=data_dir, size=size, num_images=num_images)
        state, examples = evaluate_source(predictor, source, name=name, max_images=num_images, examples=pictures)
        results[name] = state.compute()
        if name == GENERATED + SOURCE:  # what a predictor reaches that sees only the clicks
            disk = DiskPredictor(mean_area_share(source), size)
            trivial, _ = evaluate_source(disk, source, name="trivial", max_images=num_images)
            results[name] |= {f"trivial_{metric}": trivial.compute()[metric] for metric in ("j", "f", "j_and_f")}
        curves[name] = state.curves()
        draw_examples(examples, output / "examples" / f"{name.replace('/', '_')}.png")
    _report(results, curves, output, config, str(checkpoint), metadata.fingerprint)
    return results


def _report(
    results: dict[str, dict[str, Any]],
    curves: dict[str, Any],
    output: Path,
    config: dict[str, Any],
    checkpoint: str,
    fingerprint: str,
) -> None:
    versions = Versions(version("ruac_jax"), version("jax"), version("flax"), sys.version.split()[0])
    groups = {name: _group_of(name) for name in results}
    write_results(
        output,
        results,
        config=config,
        versions=versions._asdict(),
        checkpoint={"path": checkpoint, "fingerprint": fingerprint},
        groups=groups,
        curves=curves,
    )
    draw_domain_bars(results, output / "domains.png", groups=groups)
    draw_risk_coverage({name: curve["risk_coverage"] for name, curve in curves.items()}, output / "risk_coverage.png")
    draw_reliability({name: curve["reliability"] for name, curve in curves.items()}, output / "reliability.png")
    print(format_table(results, groups=groups))


def _group_of(name: str) -> str:
    if not name.startswith(GENERATED):
        return "datasets"
    domain = name.removeprefix(GENERATED)
    if domain != SOURCE and domain not in TARGETS:
        raise UserError(f"no such generated domain: {domain!r}")
    return "source" if domain == SOURCE else TARGETS[domain]
