"""The whole story offline on a laptop CPU: nano network, generated images, base, RUAC, evaluation on shifted domains.

Command:   python -m ruac_jax.train --config configs/quickstart.py
Hardware:  2 CPU cores, 4 GB; about 8 minutes.
Score:     J&F 82 on the source domain (a disk around the click: 51), 44 on the targets; see docs/status.md.

The attack is stronger than the paper's (configs/ruac.py), whose budgets and learning rates change nothing measurable in
so few steps on so small a network.
"""

from ml_collections import ConfigDict

from ruac_jax.config import default_config
from ruac_jax.data.shapes import DEVELOPMENT, SOURCE


def shared() -> ConfigDict:
    """What both runs have in common: network, images, small batches in float32."""
    config = default_config()
    config.model.variant = "nano"
    config.data.dataset = f"shapes/{SOURCE}"
    config.data.num_images = 4000
    config.data.augment = False  # the generator varies enough by itself
    config.data.batch_size = 8
    config.data.images_per_device = 8
    config.runtime.compute_dtype = "float32"
    config.runtime.rematerialize = False
    config.runtime.log_every = 20
    config.runtime.picture_every = 0
    config.runtime.checkpoint_every = 200
    config.optimizer.clip_norm = 1.0
    config.interaction.first_clicks = 3  # as many as in the evaluation
    return config


def base() -> ConfigDict:
    """Segmentation from scratch with SAM2's own head: stands in for a converted SAM2.1 checkpoint."""
    config = shared()
    config.model.head = "hypernetwork"
    config.interaction.corrections = 0
    config.interaction.box_probability = 0.3
    config.schedule.segmentation_epochs = 1
    config.schedule.kl_epochs = 0
    config.schedule.adversarial_epochs = 0
    config.schedule.steps_per_epoch = 1000
    config.optimizer.encoder = 1.5e-3
    config.optimizer.decoder = 1.5e-3
    config.optimizer.head = 1.5e-3
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.01
    return config


def get_config() -> ConfigDict:
    config = shared()
    config.pretrain = base()
    config.interaction.corrections = 1
    config.schedule.segmentation_epochs = 2
    config.schedule.kl_epochs = 1
    config.schedule.adversarial_epochs = 3
    config.schedule.steps_per_epoch = 50
    config.optimizer.decoder = 5e-4
    config.optimizer.head = 3e-3
    config.optimizer.attack = 1e-2
    config.attack.style_epsilon = 0.5
    config.attack.bound = "straight_through"
    config.loss.adversarial = 0.5
    config.loss.kl_stream = 2e-2  # 1e-3 with loss.kl, for a spread that does not die
    config.loss.variance = "full"
    config.runtime.picture_every = 100
    config.evaluation.datasets = tuple(f"shapes/{domain}" for domain in (SOURCE, *DEVELOPMENT))
    return config
