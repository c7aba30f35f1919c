"""Evaluates: `python -m ruac_jax.evaluate --checkpoint MODEL --datasets trashcan,bbbc038 --data_dir DIR --output DIR`.

Writes `results.json`, `results.csv`, a Markdown table, figures and example pictures; docs/metrics.md defines every
figure. A killed evaluation continues where it was when started again. Several processes share the work with
`--shard 0/4`, `--shard 1/4` ... and one output folder; whichever ends last writes the report.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags

from ruac_jax.errors import UserError, run_main
from ruac_jax.evaluation.predictor import UncertaintySettings
from ruac_jax.evaluation.protocol import Protocol
from ruac_jax.evaluation.run import EvaluationSettings, evaluate_model, tabulate
from ruac_jax.hub import find_checkpoint

_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "Folder, file or name of a model (docs/checkpoints.md).")
_DATASETS = flags.DEFINE_list(
    "datasets", [], "NAME or NAME:SPLIT of prepared datasets; shapes/DOMAIN; shapes/all for the source and all targets."
)
_DATA_DIR = flags.DEFINE_string("data_dir", "datasets", "Where prepared datasets lie.")
_SOURCE = flags.DEFINE_string(
    "source", "", "The one of --datasets that the model was trained on, if not shapes/source: not averaged with others."
)
_OUTPUT = flags.DEFINE_string("output", "", "Folder for the results.")
_IMAGES = flags.DEFINE_integer(
    "num_images", None, "Images of each dataset, evenly spaced (default: 1000; generated: 40).", lower_bound=1
)
_FRAMES = flags.DEFINE_enum("frames", "first", ["first", "all"], "Of videos: the first frame, or all.")
_PROMPTS = flags.DEFINE_enum(
    "prompts", "fixed3", ["fixed3", "interactive3"], "Three fixed clicks, or one click and two corrections."
)
_OBJECTS = flags.DEFINE_integer("max_objects", None, "Judge the largest of each image (default: all).", lower_bound=1)
_PATCH = flags.DEFINE_integer("patch", 4, "Side of PAvPU's patches, px.", lower_bound=1, upper_bound=255)
_UNCERTAINTY = flags.DEFINE_enum("uncertainty", "analytic", ["analytic", "monte_carlo"], "How it is computed.")
_VARIANCE = flags.DEFINE_enum("variance", "product", ["product", "full"], "Logit variance of the analytic one.")
_SAMPLES = flags.DEFINE_integer("samples", 20, "Draws of the Monte Carlo one.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of these draws.", lower_bound=0, upper_bound=2**32 - 1)
_ADAPT = flags.DEFINE_enum(
    "adapt", "none", ["none", "uctta"], "Test-time adaptation of SAM2 without labels; needs --devices 1."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "Side of the network's square image, px (default: the variant's).", lower_bound=32
)
_PICTURES = flags.DEFINE_integer("pictures", 3, "Example images drawn of each dataset.", lower_bound=0)
_DEVICES = flags.DEFINE_integer("devices", None, "How many devices to use (default: all).", lower_bound=1)
_SHARD = flags.DEFINE_string("shard", "0/1", "I/N: do share I of N, counted from 0.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace another evaluation in the output folder.")


def main(argv: Sequence[str]) -> None:
    """Evaluates one model on every dataset named."""
    del argv
    for flag in (_CHECKPOINT, _DATASETS, _OUTPUT):
        if not flag.value:
            raise UserError(f"--{flag.name} is missing; see --help")
    devices = jax.local_devices()
    if _DEVICES.value is not None and _DEVICES.value > len(devices):
        raise UserError(f"--devices {_DEVICES.value}: there are {len(devices)}")
    settings = EvaluationSettings(
        image_size=_IMAGE_SIZE.value,
        num_images=_IMAGES.value,
        frames=_FRAMES.value,
        protocol=Protocol(_PROMPTS.value, _OBJECTS.value, _PATCH.value),
        uncertainty=UncertaintySettings(_UNCERTAINTY.value, _VARIANCE.value, _SAMPLES.value, _SEED.value),
        data_dir=_DATA_DIR.value,
        source=_SOURCE.value,
        pictures=_PICTURES.value,
        shard=_parse_shard(_SHARD.value),
        adaptation=_ADAPT.value,
        replace=_OVERWRITE.value,
    )
    results = evaluate_model(
        find_checkpoint(_CHECKPOINT.value),
        _DATASETS.value,
        Path(_OUTPUT.value),
        config={flag.name: flag.value for flag in _RECORDED},
        settings=settings,
        devices=devices[: _DEVICES.value],
    )
    if results is not None:
        print(tabulate(results, _SOURCE.value))


# What shapes the figures; where and by how many they are computed does not.
_RECORDED = (
    *(_DATASETS, _SOURCE, _IMAGES, _FRAMES, _PROMPTS, _OBJECTS, _PATCH),
    *(_UNCERTAINTY, _VARIANCE, _SAMPLES, _SEED, _ADAPT, _IMAGE_SIZE),
)


def _parse_shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise UserError(f"--shard {text}: expected I/N with I from 0 to N - 1, e.g. 0/4")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    run_main(main)
