"""Settings of a training run: one tree of frozen dataclasses, checked in full before anything else starts.

A file in `configs/` starts from `default_config()`, changes what differs and returns the result of `get_config()`.
`parse_config` turns it into a `Config` and reports every misspelt key and every impossible value in one error.
Defaults are the paper's run (sections 3.4, C.2, C.3; epochs and weights as in docs/method.md).
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import ml_collections

from ruac_jax.errors import UserError

AttackKind = Literal["learned", "random", "noise", "pgd", "patch", "mixstyle", "dsu"]
Scope = Literal["image", "single", "objects", "all"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network and where its weights come from."""

    variant: str = "base_plus"
    head: Literal["hypernetwork", "weibull", "evidential"] = "weibull"
    checkpoint: str = ""  # folder of a converted or trained model; empty: random weights, or `pretrain`
    kappa_min: float = 0.1
    kappa_max: float = 10.0
    prior_shape: float = 1.0
    prior_rate: float = 3.0
    rectifier: Literal["straight_through", "opening"] = "straight_through"  # gradient at a closed unit of the head
    lora_rank: int = 0  # of LoRA in the encoder, trained at optimizer.adapter; 0: none


@dataclasses.dataclass(frozen=True)
class AttackConfig:
    """The attack of the adversarial branch (sections 3.3 and 4, appendix B).

    All but `kind` is for the attacks by style and deformation, "learned" and "random".
    """

    kind: AttackKind = "learned"
    scope: Scope = "all"  # what is styled: the image as one, one object, every object, or these and the background
    style: bool = True
    graph: bool = True
    deformation: bool = True
    style_epsilon: float = 0.3  # largest shift of a slot's mean or std, normalised colour units
    flow_epsilon: float = 0.15  # deformation bound in cells of the stride-16 grid
    bound: Literal["clip", "straight_through"] = "clip"
    random_start: float = 0.0  # largest random shift, drawn evenly, that the learned one comes on top of; same units
    random_style: float = 0.5  # mean size of random shifts, share of style_epsilon
    random_flow: float = 0.5  # mean length of random flow over an object, share of flow_epsilon
    lowest_contrast: float = 1.0  # least that fading leaves of an attacked image's contrast; 1: no fading


@dataclasses.dataclass(frozen=True)
class InteractionConfig:
    """Prompts drawn in training (SAM2's recipe)."""

    first_clicks: int = 1  # at most, where the first prompt is not a box
    corrections: int = 7
    box_probability: float = 0.5
    truth_probability: float = 0.1  # a correction drawn from the object instead of from the error region
    box_noise: float = 0.1  # share of the box side
    box_noise_limit: float = 20.0  # px


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the objective (section 3.4; table of appendix C.3)."""

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    object_score: float = 1.0
    kl: float = 0.05
    kl_stream: float = 1e-11  # weight of each stream inside the KL term
    adversarial: float = 0.2
    calibration: float = 0.1
    routing: Literal["joint", "split"] = "joint"
    variance: Literal["product", "full"] = "product"


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Length of the three phases (appendix C.2)."""

    segmentation_epochs: int = 5
    kl_epochs: int = 2
    adversarial_epochs: int = 13
    steps_per_epoch: int = 0  # 0: samples of the training source // batch size


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with one cosine per parameter group; a learning rate of zero freezes the group."""

    encoder: float = 0.0
    decoder: float = 1e-6
    head: float = 1e-4
    adapter: float = 1e-4
    attack: float = 1e-3
    weight_decay: float = 0.1
    final_fraction: float = 0.1  # of the learning rate, at the last step
    warmup_steps: int = 0
    clip_norm: float = 0.1
    clip_attack_apart: bool = False
    average_decay: float = 0.0  # of the running average of the network's parameters that is saved; 0: the last ones
    max_nonfinite_steps: int = 10


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where training images come from and how they are batched."""

    dataset: str = "mose"
    data_dir: str = "datasets"
    split: str = "train"
    clips: str = ""  # file of clip names to keep, one a line
    stylised: str = ""  # folder of stylised copies that join the images (docs/stylised.md)
    num_images: int = 2000  # size of a generated dataset
    samples_per_clip: int = 4  # visits of a clip per epoch, a random frame each
    batch_size: int = 32  # images per optimiser step, over all devices and micro-batches
    images_per_device: int = 2  # images of one micro-batch on one device
    max_objects: int = 3
    augment: bool = True
    workers: int = 0


@dataclasses.dataclass(frozen=True)
class RuntimeConfig:
    """Numerics, logging and checkpoints."""

    compute_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    rematerialize: bool = True  # recompute each click step in the backward pass
    log_every: int = 10
    picture_every: int = 500
    checkpoint_every: int = 155
    checkpoints_kept: int = 2


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated when training ends; an empty tuple: nothing."""

    datasets: tuple[str, ...] = ()
    num_images: int = 40
    pictures: int = 3


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything a run depends on."""

    seed: int = 0
    image_size: int = 0  # 0: the variant's own
    model: ModelConfig = ModelConfig()
    attack: AttackConfig = AttackConfig()
    interaction: InteractionConfig = InteractionConfig()
    loss: LossConfig = LossConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    data: DataConfig = DataConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    pretrain: "Config | None" = None  # trains the weights that this run starts from


def default_config() -> ml_collections.ConfigDict:
    """Returns every setting at its default, as an editable, locked `ConfigDict`."""
    return ml_collections.ConfigDict(dataclasses.asdict(Config())).lock()


def parse_config(config: Mapping[str, Any] | ml_collections.ConfigDict) -> Config:
    """Checks a configuration in full.

    Args:
      config: what `get_config()` of a file in `configs/` returned.

    Returns:
      The typed, immutable settings.

    Raises:
      UserError: listing every unknown key (with the nearest valid name), every value of the wrong type and every
        impossible value.
    """
    problems: list[str] = []
    parsed = _parse(Config, config, "config", problems)
    if parsed is not None:
        problems += _impossible(parsed, "config")
    if problems:
        raise UserError("the configuration cannot be used:\n  " + "\n  ".join(problems))
    return parsed


def _parse(cls: type, values: Any, path: str, problems: list[str]) -> Any:
    if not isinstance(values, Mapping | ml_collections.ConfigDict):
        problems.append(f"{path}: expected a group of settings, found {values!r}")
        return None
    hints = typing.get_type_hints(cls)
    parsed = {}
    for name, value in values.items():
        if name not in hints:
            nearest = difflib.get_close_matches(name, hints, n=1, cutoff=0.0)[0]
            problems.append(f"{path}.{name}: no such setting; did you mean '{nearest}'?")
        else:
            parsed[name] = _convert(hints[name], value, f"{path}.{name}", problems)
    return None if problems else cls(**parsed)


def _convert(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
    origin = typing.get_origin(hint)
    if origin is types.UnionType or origin is typing.Union:  # an optional group
        (group,) = (part for part in typing.get_args(hint) if part is not type(None))
        return None if value is None else _parse(group, value, path, problems)
    if dataclasses.is_dataclass(hint):
        return _parse(hint, value, path, problems)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            nearest = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.0)[0]
            problems.append(f"{path}: expected one of {', '.join(choices)}, found {value!r}; did you mean '{nearest}'?")
        return value
    if origin is tuple:
        if isinstance(value, str) or not all(isinstance(entry, str) for entry in value):
            problems.append(f"{path}: expected a tuple of names, found {value!r}")
            return ()
        return tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        problems.append(f"{path}: expected {hint.__name__}, found {value!r}")
    elif hint is float and not math.isfinite(value):
        problems.append(f"{path}: expected a finite number, found {value!r}")
    return value


def _impossible(config: Config, path: str) -> Iterator[str]:
    """Yields what no run could use, beyond types."""

    def check(ok: bool, name: str, expected: str) -> Iterator[str]:
        if not ok:
            value = config
            for part in name.split("."):
                value = getattr(value, part)
            yield f"{path}.{name}: expected {expected}, found {value!r}"

    for group, names in _NOT_NEGATIVE.items():
        for name in names:
            yield from check(getattr(getattr(config, group), name) >= 0, f"{group}.{name}", "zero or more")
    for group, names in _POSITIVE.items():
        for name in names:
            yield from check(getattr(getattr(config, group), name) > 0, f"{group}.{name}", "more than zero")
    for name in ("box_probability", "truth_probability"):
        yield from check(0 <= getattr(config.interaction, name) <= 1, f"interaction.{name}", "a probability")
    yield from check(0 <= config.optimizer.average_decay < 1, "optimizer.average_decay", "at least 0, below 1")
    yield from check(config.loss.adversarial <= 1, "loss.adversarial", "a share of the loss, at most 1")
    yield from check(config.model.kappa_min < config.model.kappa_max, "model.kappa_min", "less than model.kappa_max")
    yield from check(config.image_size % 32 == 0 and config.image_size >= 0, "image_size", "a multiple of 32")
    yield from check(
        config.data.batch_size % config.data.images_per_device == 0,
        "data.batch_size",
        f"a multiple of data.images_per_device ({config.data.images_per_device})",
    )
    yield from check(
        config.schedule.segmentation_epochs + config.schedule.kl_epochs + config.schedule.adversarial_epochs > 0,
        "schedule.segmentation_epochs",
        "at least one epoch in one of the phases",
    )
    attack = config.attack
    colours_or_shapes = attack.kind in ("learned", "random")
    fades = attack.kind == "random" and attack.lowest_contrast < 1  # a learned attack has something to learn
    yield from check(
        not colours_or_shapes or attack.style or attack.deformation or fades or not config.schedule.adversarial_epochs,
        "schedule.adversarial_epochs",
        "0 where attack.style and attack.deformation are both off",
    )
    if attack.kind == "learned":
        yield from check(attack.style or not attack.graph, "attack.graph", "False where attack.style is off")
        yield from check(
            attack.scope == "all" or not attack.graph, "attack.graph", 'False where attack.scope is not "all"'
        )
    yield from check(0 <= attack.random_start <= 3, "attack.random_start", "from 0 to 3 colour units")
    yield from check(0 < attack.lowest_contrast <= 1, "attack.lowest_contrast", "above 0, at most 1 (no fading)")
    for name in ("random_style", "random_flow"):
        yield from check(0 < getattr(attack, name) < 1, f"attack.{name}", "a share between 0 and 1")
    if config.pretrain is not None:
        yield from check(not config.model.checkpoint, "model.checkpoint", "'' where `pretrain` makes the weights")
        yield from check(
            config.pretrain.model.variant == config.model.variant,
            "pretrain.model.variant",
            f"the variant of the run itself ({config.model.variant})",
        )
        yield from _impossible(config.pretrain, f"{path}.pretrain")


_NOT_NEGATIVE = {
    "model": ("lora_rank",),
    "interaction": ("corrections", "box_noise", "box_noise_limit"),
    "loss": ("focal", "dice", "iou", "object_score", "kl", "kl_stream", "adversarial", "calibration"),
    "schedule": ("segmentation_epochs", "kl_epochs", "adversarial_epochs", "steps_per_epoch"),
    "optimizer": ("encoder", "decoder", "head", "adapter", "attack", "weight_decay", "final_fraction", "warmup_steps"),
    "data": ("workers",),
    "runtime": ("picture_every",),
    "evaluation": ("num_images", "pictures"),
}
_POSITIVE = {
    "model": ("kappa_min", "prior_shape", "prior_rate"),
    "attack": ("style_epsilon", "flow_epsilon"),
    "interaction": ("first_clicks",),
    "optimizer": ("clip_norm", "max_nonfinite_steps"),
    "data": ("num_images", "samples_per_clip", "batch_size", "images_per_device", "max_objects"),
    "runtime": ("log_every", "checkpoint_every", "checkpoints_kept"),
}
