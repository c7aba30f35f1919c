"""Trains: `python -m ruac_jax.train --config configs/quickstart.py --workdir runs/quickstart`.

Every setting can be changed on the command line, e.g. `--config.data.batch_size=16`. A run that is started again
with the same workdir continues where its newest checkpoint left it.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from ruac_jax.config import parse_config
from ruac_jax.errors import UserError, run_main
from ruac_jax.evaluation.run import EvaluationSettings, evaluate_model, tabulate
from ruac_jax.training.loop import train

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File with get_config(), see configs/; FILE:NAME hands it a name.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; default: runs/ and the config's NAME or file name.")
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Join the processes of a cluster (jax.distributed) before starting.")


def main(argv: Sequence[str]) -> None:
    """Trains, then evaluates what the configuration names."""
    del argv
    if _CONFIG.value is None:
        raise UserError("which configuration? Give --config, e.g. --config configs/quickstart.py")
    name, _, run = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    file = Path(name)
    if not file.is_file():
        raise UserError(f"no configuration {file}: expected a Python file with get_config(), such as those in configs/")
    config = parse_config(_CONFIG.value)
    if _MULTIHOST.value:
        jax.distributed.initialize()
    workdir = Path(_WORKDIR.value or Path("runs") / (run or file.stem))
    model = train(config, workdir)
    if config.evaluation.datasets and jax.process_index() == 0:
        results = evaluate_model(
            model,
            config.evaluation.datasets,
            workdir / "evaluation",
            config=dataclasses.asdict(config),
            settings=EvaluationSettings(
                image_size=config.image_size,
                num_images=config.evaluation.num_images,
                data_dir=config.data.data_dir,
                pictures=config.evaluation.pictures,
                replace=True,
            ),
        )
        if results is not None:
            print(tabulate(results))


if __name__ == "__main__":
    run_main(main)
