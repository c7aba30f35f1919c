import dataclasses

import pytest

from configs import ruac
from configs.systems import (
    BENCHMARK,
    NANO_LONG_STEPS,
    NANO_STEPS,
    NANO_SYSTEMS,
    PHOTO_FACTOR,
    PHOTO_STEPS,
    SYSTEMS,
    get_config,
    nano,
    trained_on,
)
from ruac_jax.config import parse_config
from ruac_jax.errors import UserError
from ruac_jax.training.loop import stretches


def flat(config, path=""):
    found = {}
    for name, value in config.items():
        found |= flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_the_papers_run_but_for_what_it_says(name):
    mine = flat(dataclasses.asdict(parse_config(get_config(name))))
    paper = flat(dataclasses.asdict(parse_config(ruac.get_config())))
    expected = {key: value for key, value in SYSTEMS[name].items() if paper[key] != value}
    assert {key: value for key, value in mine.items() if paper[key] != value} == expected
    epochs = [mine[f"schedule.{phase}_epochs"] for phase in ("segmentation", "kl", "adversarial")]
    assert sum(epochs) == 20


def test_no_two_systems_are_the_same():
    configs = [parse_config(nano(name)) for name in NANO_SYSTEMS]
    assert len(set(configs)) == len(configs)


@pytest.mark.parametrize("name", NANO_SYSTEMS)
def test_nano_runs_start_alike_and_train_as_long(name):
    config = parse_config(get_config(f"nano/{name}"))
    (stretch,) = stretches(config, config.schedule.steps_per_epoch)
    assert stretch.stop == NANO_STEPS
    like = "sam2_ft" if config.model.head == "hypernetwork" else f"ours{'_opening' * name.endswith('_opening')}"
    if config.model.head != "evidential":
        assert config.pretrain == parse_config(nano(like)).pretrain
    assert config.pretrain.pretrain == parse_config(nano("ours")).pretrain.pretrain
    adversarial = NANO_SYSTEMS[name].get("schedule.adversarial_epochs", 1)
    assert config.schedule.adversarial_epochs == adversarial


def test_long_rows_differ_from_their_own_in_length_alone():
    long = [name for name in BENCHMARK if name.endswith("_long")]
    assert len(long) == 3
    for name in long:
        mine, own = (
            flat(dataclasses.asdict(parse_config(BENCHMARK[n](0)))) for n in (name, name.removesuffix("_long"))
        )
        assert {key for key in mine if mine[key] != own[key]} == {"schedule.steps_per_epoch"}
        assert mine["schedule.steps_per_epoch"] == NANO_LONG_STEPS > NANO_STEPS


def test_only_lora_and_the_frozen_rows_keep_the_encoder_and_no_warmup_trains_it():
    kept = {name for name in NANO_SYSTEMS if parse_config(nano(name)).optimizer.encoder == 0}
    assert kept == {"sam2_ft_lora", "ours_frozen", "ours_random_frozen"}
    assert {parse_config(nano(name)).pretrain.optimizer.encoder for name in NANO_SYSTEMS} == {0.0}


def test_a_seed_reaches_every_part():
    config = parse_config(BENCHMARK["ours"](2))
    assert (config.seed, config.pretrain.seed, config.pretrain.pretrain.seed) == (2, 2, 2)
    assert parse_config(BENCHMARK["sam2"](2)) == config.pretrain.pretrain


@pytest.mark.parametrize("system", ["sam2", "sam2_ft", "ours", "ur_ern", "ours_frozen"])
def test_another_dataset_is_what_a_row_and_its_network_are_trained_on(system):
    given = BENCHMARK[system](1)
    config = parse_config(trained_on(given, "mine", "all", "folder"))
    photos = config if system == "sam2" else config.pretrain
    for part in (config, photos):
        data = part.data
        assert (data.dataset, data.split, data.data_dir, data.augment) == ("mine", "all", "folder", True)
        assert part.model.head == given.model.head
    assert photos.schedule.steps_per_epoch == PHOTO_STEPS
    assert photos.optimizer.encoder > 0
    assert config.interaction == photos.interaction
    generated = photos.pretrain
    assert generated.data.dataset == "shapes/source"
    if config.model.head == "hypernetwork":  # SAM2's rows start from what the row "sam2" is
        assert photos == parse_config(trained_on(BENCHMARK["sam2"](1), "mine", "all", "folder"))
        assert generated == parse_config(BENCHMARK["sam2"](1))
    else:  # the others from a network that has had their head and rectifier from the start of the photos
        assert {part.model.rectifier for part in (config, photos, generated)} == {"opening"}
        assert generated.pretrain == parse_config(BENCHMARK["sam2"](1))


def test_a_longer_row_is_longer_on_another_dataset_too():
    rows = [trained_on(BENCHMARK[name](0), "mine", "all", "folder") for name in ("ours", "ours_long")]
    expected = [NANO_STEPS * PHOTO_FACTOR, NANO_LONG_STEPS * PHOTO_FACTOR]
    assert [row.schedule.steps_per_epoch for row in rows] == expected
    assert rows[0].pretrain == rows[1].pretrain


def test_a_wrong_name_is_told_the_nearest():
    with pytest.raises(UserError, match="did you mean 'nano/ruac'"):
        get_config("nano/ruca")
