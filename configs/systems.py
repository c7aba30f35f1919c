"""Every trained system of the paper's tables, by name, at the paper's scale and at that of a laptop.

Command:   python -m ruac_jax.train --config configs/systems.py:bayes          SAM2.1 B+ on MOSE, as configs/ruac.py
           python -m ruac_jax.train --config configs/systems.py:nano/bayes     nano network on generated images
Hardware:  as configs/ruac.py; nano: 2 CPU cores, 4 GB, about 10 minutes, 4 of them for the base.
Score:     docs/results; the paper's figures stand beside ours there.

`SYSTEMS` says what each changes of the paper's run. The nano runs all start from the same base (segmentation from
scratch with SAM2's head) and, for each kind of head, from the same warm-up of it; then each trains as many steps as
every other. `python -m ruac_jax.study shift` runs and compares them. SAM2 itself and UCTTA are not trained: they are
evaluations of a converted checkpoint (docs/systems.md).
"""

import copy
import difflib
import functools
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import quickstart, ruac
from ruac_jax.data.shapes import DEVELOPMENT, SOURCE
from ruac_jax.errors import UserError

Changes = Mapping[str, Any]  # by dotted name

# Published schedules (epochs of the three phases) without an adversarial phase: its epochs go to the one before.
_SEGMENTATION_ONLY: Changes = {
    "schedule.segmentation_epochs": 20,
    "schedule.kl_epochs": 0,
    "schedule.adversarial_epochs": 0,
}
_NO_ATTACK: Changes = {"schedule.kl_epochs": 15, "schedule.adversarial_epochs": 0}
_STYLE_ONLY: Changes = {"attack.deformation": False, "attack.graph": False}

SYSTEMS: dict[str, Changes] = {
    "sam2_ft": {"model.head": "hypernetwork", **_SEGMENTATION_ONLY},
    "sam2_ft_lora": {"model.head": "hypernetwork", "model.lora_rank": 4, **_SEGMENTATION_ONLY},
    "ur_ern": {"model.head": "evidential", **_SEGMENTATION_ONLY},
    "bayes": _NO_ATTACK,
    "noise": {"attack.kind": "noise"},
    "pgd": {"attack.kind": "pgd"},
    "patch": {"attack.kind": "patch"},
    "mixstyle": {"attack.kind": "mixstyle"},
    "dsu": {"attack.kind": "dsu"},
    "stylegen_generic": {"data.stylised": "stylised/generic", **_NO_ATTACK},
    "stylegen_targeted": {"data.stylised": "stylised/targeted", **_NO_ATTACK},
    "style_global": {"attack.scope": "image", **_STYLE_ONLY},
    "style_single": {"attack.scope": "single", **_STYLE_ONLY},
    "style_multi": {"attack.scope": "objects", **_STYLE_ONLY},
    "style_multibg": _STYLE_ONLY,
    "style_gcn": {"attack.deformation": False},
    "deform": {"attack.style": False, "attack.graph": False},
    "ruac": {},
    # Component ablation (appendix M; without AUE it is "bayes") and the sweeps of the two weights (appendix L).
    "without_kl": {"loss.kl": 0.0},
    "split": {"loss.routing": "split"},
    **{f"kl_x{factor:g}": {"loss.kl": 0.05 * factor} for factor in (0.1, 0.3, 3, 10)},
    **{f"adversarial_{share:g}": {"loss.adversarial": share} for share in (0.05, 0.1, 0.4, 0.8)},
    # The rival of every learned attack: as strong, but drawn at random.
    "random": {"attack.kind": "random"},
    "random_uncalibrated": {"attack.kind": "random", "loss.calibration": 0.0},
}

_FROZEN: Changes = {"optimizer.encoder": 0.0}
_OPENING: Changes = {"model.rectifier": "opening"}

# What a nano network needs to be harmed, and helped, by an attack in few steps: chosen on the development domains.
# Learned shifts within the published budget, on top of random ones that are far larger, and fading of whole images.
_STRONG: Changes = {
    "attack.random_start": 1.0,
    "attack.lowest_contrast": 0.1,
    "attack.deformation": False,
    "attack.bound": "straight_through",
    "optimizer.attack": 1e-3,
    "loss.adversarial": 0.5,
    "loss.calibration": 1.0,
    "loss.routing": "split",
}
# What "ours" starts from, without what it learns; in all as large (attack/style_shift in the metrics of both: 0.45).
_AS_STRONG: Changes = {**_STRONG, "attack.kind": "random", "attack.style_epsilon": 1.0, "attack.random_style": 0.5}
# "ours" with one choice taken back, or changed for what else was tried.
_ABLATIONS: dict[str, Changes] = {
    "wide": {"attack.style_epsilon": 1.0},
    "without_start": {"attack.random_start": 0.0},
    "without_fade": {"attack.lowest_contrast": 1.0},
    "with_flow": {"attack.deformation": True},
    "clipped": {"attack.bound": "clip"},
    "fast_attack": {"optimizer.attack": 1e-2},
    "adversarial_0.35": {"loss.adversarial": 0.35},
    "live_posterior": {"loss.kl_stream": 2e-2, "loss.variance": "full"},  # 1e-3 with loss.kl: a spread that stays
    "joint": {"loss.routing": "joint"},
    "calibration_0.1": {"loss.calibration": 0.1},
    "uncalibrated": {"loss.calibration": 0.0},
    "frozen": _FROZEN,
    "opening": _OPENING,
}
NANO_SYSTEMS: dict[str, Changes] = {
    **SYSTEMS,
    "sam2_ft_lora": {**SYSTEMS["sam2_ft_lora"], **_FROZEN},
    **{f"{name}_opening": {**SYSTEMS[name], **_OPENING} for name in ("bayes", "ruac")},
    "ours": _STRONG,
    "ours_random": _AS_STRONG,
    "ours_random_uncalibrated": {**_AS_STRONG, "loss.calibration": 0.0},
    "ours_random_frozen": {**_AS_STRONG, **_FROZEN},
    "ours_random_opening": {**_AS_STRONG, **_OPENING},
    "ours_fade": {**_AS_STRONG, "attack.style": False, "attack.graph": False},
    **{f"ours_{name}": {**_STRONG, **changes} for name, changes in _ABLATIONS.items()},
}

NANO_WARMUP_STEPS, NANO_STEPS, NANO_LONG_STEPS = 300, 150, 400
_LONG = ("bayes", "ours", "ours_random")  # rows that also train `NANO_LONG_STEPS`, as NAME_long
PHOTO_STEPS, PHOTO_FACTOR = 6000, 2  # of what a row starts from; by the factor it then trains longer
# What a row, and the network it starts from, must have in common: a correction after the first clicks, which that
# network has not met, costs four points of J in so few steps (docs/results).
_PHOTO_ROW: Changes = {
    "optimizer.head": 1e-3,
    "interaction.corrections": 0,
    "interaction.box_probability": 0.3,
}
# For heads that are warmed up; SAM2's learns photos as its base did generated images.
_PHOTO_NETWORK: Changes = {**_PHOTO_ROW, "optimizer.encoder": 1e-3}
NANO_STYLISED_IMAGES = 1000  # beside their 2 or 9 copies each
_ENCODER_RATE = 5e-4
_NANO_RATES: Changes = {
    "optimizer.decoder": 5e-4,
    "optimizer.head": 3e-3,
    "optimizer.adapter": 1e-3,
    "optimizer.attack": 1e-2,
    "optimizer.warmup_steps": 30,  # without it a strong attack can end in empty masks within 40 steps
    "optimizer.average_decay": 0.98,  # what the last steps happen to be makes rows differ by points
    "interaction.corrections": 1,
}


def get_config(name: str = "ruac") -> ConfigDict:
    """The run of a system: `NAME` at the paper's scale, `nano/NAME` on a laptop."""
    scale, _, system = name.rpartition("/")
    known = {"": SYSTEMS, "nano": NANO_SYSTEMS}.get(scale, {})
    if system not in known:
        names = [*SYSTEMS, *(f"nano/{name}" for name in NANO_SYSTEMS)]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise UserError(f"no system {name!r}; did you mean {near!r}? known: {', '.join(names)}")
    return nano(system) if scale else _changed(ruac.get_config(), SYSTEMS[system])


def nano(system: str, seed: int = 0, steps: int = NANO_STEPS) -> ConfigDict:
    """A system on the nano network: base, warm-up of the head, then `steps` steps of its own.

    The encoder learns too, where the paper freezes one that has seen billions of masks: that of the base has seen one
    domain, and what it does not pass on no decoder can learn.
    """
    changes = NANO_SYSTEMS[system]
    rates = {**_NANO_RATES, "optimizer.encoder": _ENCODER_RATE}
    config = _changed(quickstart.shared(), {**rates, **changes, "seed": seed})
    schedule = config.schedule
    adversarial, kl = schedule.adversarial_epochs > 0, schedule.kl_epochs > 0
    schedule.segmentation_epochs, schedule.kl_epochs = int(not (adversarial or kl)), int(kl and not adversarial)
    schedule.adversarial_epochs, schedule.steps_per_epoch = int(adversarial), steps
    if config.data.stylised:
        config.data.num_images = NANO_STYLISED_IMAGES
    config.evaluation.datasets = tuple(f"shapes/{domain}" for domain in (SOURCE, *DEVELOPMENT))
    config.pretrain = warmup(config.model.head, seed, config.model.rectifier)
    return config


def warmup(head: str, seed: int, rectifier: str) -> ConfigDict:
    """What every nano run with this head starts from: the base, and then the head fine-tuned on segmentation."""
    changes = {**_NANO_RATES, "model.head": head, "model.rectifier": rectifier, "seed": seed}
    config = _changed(quickstart.shared(), changes)
    config.schedule.segmentation_epochs, config.schedule.kl_epochs = 1, 0
    config.schedule.adversarial_epochs, config.schedule.steps_per_epoch = 0, NANO_WARMUP_STEPS
    config.pretrain = base(seed)
    return config


def base(seed: int) -> ConfigDict:
    """Segmentation from scratch with SAM2's own head: what a converted SAM2.1 is to the paper's runs."""
    config = quickstart.base()
    config.seed = seed
    return config


def trained_on(config: ConfigDict, dataset: str, split: str, data_dir: str) -> ConfigDict:
    """A row of the benchmark on another dataset, from a network that saw generated images and then this one.

    Photos are harder than what the generator draws. So the network learns them for `PHOTO_STEPS`, in place of the
    warm-up: with the head of its row, for one that is added afterwards trails, and a Weibull head with the
    "opening" rectifier, whatever the row's own is, for without it so long a run stalls (docs/results). The row then
    trains with the clicks of that network, whatever it trains with on generated images.
    """
    head = config.model.head
    generated = base(config.seed) if head == "hypernetwork" else warmup(head, config.seed, "opening")
    photos = copy.deepcopy(generated)
    if head != "hypernetwork":
        _changed(photos, _PHOTO_NETWORK)
    photos.pretrain, photos.schedule.steps_per_epoch = generated, PHOTO_STEPS
    parts = [photos]
    if config.get("pretrain") is not None:  # else it is that network itself, not trained further
        _changed(config, {**_PHOTO_ROW, "model.rectifier": generated.model.rectifier})
        config.pretrain = photos
        config.schedule.steps_per_epoch *= PHOTO_FACTOR
        parts.append(config)
    for part in parts:
        part.data.dataset, part.data.split, part.data.data_dir, part.data.augment = dataset, split, data_dir, True
    return parts[-1]


def _changed(config: ConfigDict, changes: Changes) -> ConfigDict:
    with config.unlocked():
        config.update_from_flattened_dict(dict(changes))
    return config


# Rows of the shift benchmark, each from a seed to what is trained. SAM2 and UCTTA are the base, not trained further.
BENCHMARK: dict[str, Callable[[int], ConfigDict]] = {
    "sam2": base,
    "uctta": base,
    **{name: functools.partial(nano, name) for name in NANO_SYSTEMS},
    **{f"{name}_long": functools.partial(nano, name, steps=NANO_LONG_STEPS) for name in _LONG},
}
