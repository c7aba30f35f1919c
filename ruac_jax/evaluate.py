"""Evaluates: `python -m ruac_jax.evaluate --checkpoint runs/quickstart/model --datasets shapes/all --output out`.

Writes `results.json`, `results.csv`, a Markdown table and figures; see docs/method.md for the metrics.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from ruac_jax.errors import UserError, run_main
from ruac_jax.evaluation.run import evaluate_model

_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "Folder of a converted or trained model.")
_DATASETS = flags.DEFINE_list("datasets", [], "Datasets: shapes/DOMAIN, or shapes/all for the source and all targets.")
_DATA_DIR = flags.DEFINE_string("data_dir", "datasets", "Where prepared datasets lie.")
_OUTPUT = flags.DEFINE_string("output", "", "Folder for the results.")
_IMAGES = flags.DEFINE_integer("num_images", 40, "Images of each dataset, from its start.", lower_bound=1)
_PICTURES = flags.DEFINE_integer("pictures", 3, "Example images drawn of each dataset.", lower_bound=0)


def main(argv: Sequence[str]) -> None:
    """Evaluates one model on every dataset named."""
    del argv
    for flag in (_CHECKPOINT, _DATASETS, _OUTPUT):
        if not flag.value:
            raise UserError(f"--{flag.name} is missing; see --help")
    evaluate_model(
        Path(_CHECKPOINT.value),
        _DATASETS.value,
        Path(_OUTPUT.value),
        config={"datasets": _DATASETS.value, "num_images": _IMAGES.value},
        data_dir=_DATA_DIR.value,
        num_images=_IMAGES.value,
        pictures=_PICTURES.value,
    )


if __name__ == "__main__":
    run_main(main)
