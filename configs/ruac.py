"""RUAC as in the paper: SAM2.1 Hiera-B+, Weibull head, learned style and deformation attack, trained on MOSE.

Command:   python -m ruac_jax.train --config configs/ruac.py
Needs:     checkpoints/sam2.1_hiera_base_plus (python -m convert.sam2_to_flax) and
           datasets/mose (python -m ruac_jax.prepare_data mose --source ... --data_dir datasets)
Hardware:  the paper trained on 8 A40 of 48 GB, 2 images each, for about 6 hours; fewer devices accumulate more
           micro-batches to the same 32 images a step.
Schedule:  20 epochs of 155 steps where the 1,246 clips of SAM2's MOSE sample list are used (--config.data.clips).
Score:     not reproduced yet; the paper reports 81.6 J&F and 63.7 PAvPU over 23 target datasets.
"""

from ml_collections import ConfigDict

from ruac_jax.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.checkpoint = "checkpoints/sam2.1_hiera_base_plus"
    return config
