import dataclasses

import pytest
from ml_collections import ConfigDict

from ruac_jax.config import Config, default_config, parse_config
from ruac_jax.errors import UserError


def test_defaults_are_the_papers_run():
    config = parse_config(default_config())
    assert config == Config()
    assert (config.data.batch_size, config.data.max_objects, config.interaction.corrections) == (32, 3, 7)
    assert (config.optimizer.decoder, config.optimizer.head, config.optimizer.attack) == (1e-6, 1e-4, 1e-3)
    assert (config.loss.kl, config.loss.adversarial, config.loss.calibration) == (0.05, 0.2, 0.1)


def test_every_misspelt_key_is_reported_with_its_nearest_name():
    values = dataclasses.asdict(Config())
    values["optimizer"]["decodr"] = 1e-3
    values["losses"] = {}
    with pytest.raises(UserError) as caught:
        parse_config(values)
    message = str(caught.value)
    assert "config.optimizer.decodr: no such setting; did you mean 'decoder'?" in message
    assert "config.losses: no such setting; did you mean 'loss'?" in message


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("data.batch_size", 31, "a multiple of data.images_per_device (2)"),
        ("data.batch_size", "32", "expected int"),
        ("data.batch_size", True, "expected int"),
        ("interaction.box_probability", 1.5, "a probability"),
        ("loss.routing", "jiont", "did you mean 'joint'?"),
        ("loss.kl", float("nan"), "a finite number"),
        ("loss.adversarial", 2.0, "at most 1"),
        ("optimizer.head", -1e-4, "zero or more"),
        ("model.kappa_min", 20.0, "less than model.kappa_max"),
        ("image_size", 1000, "a multiple of 32"),
        ("evaluation.datasets", "mose", "a tuple of names"),
    ],
)
def test_impossible_values_are_named(path, value, expected):
    values = dataclasses.asdict(Config())
    group, _, name = path.rpartition(".")
    target = values[group] if group else values
    target[name] = value
    with pytest.raises(UserError, match="cannot be used") as caught:
        parse_config(values)
    assert f"config.{path}" in str(caught.value)
    assert expected in str(caught.value)


def test_all_impossible_values_are_listed_at_once():
    values = dataclasses.asdict(Config())
    values["data"]["max_objects"] = 0
    values["optimizer"]["clip_norm"] = 0
    with pytest.raises(UserError) as caught:
        parse_config(values)
    assert "max_objects" in str(caught.value)
    assert "clip_norm" in str(caught.value)


def test_integers_serve_as_floats():
    values = dataclasses.asdict(Config())
    values["loss"]["kl"] = 1
    assert parse_config(values).loss.kl == 1.0


def test_attack_switched_off_needs_no_adversarial_epochs():
    values = dataclasses.asdict(Config())
    values["attack"] |= {"style": False, "graph": False, "deformation": False}
    with pytest.raises(UserError, match="adversarial_epochs"):
        parse_config(values)
    values["schedule"]["adversarial_epochs"] = 0
    assert parse_config(values).attack.style is False


def test_fading_alone_is_an_attack_of_the_random_kind_only():
    values = dataclasses.asdict(Config())
    values["attack"] |= {"style": False, "graph": False, "deformation": False, "lowest_contrast": 0.1}
    with pytest.raises(UserError, match="adversarial_epochs"):
        parse_config(values)
    values["attack"]["kind"] = "random"
    assert parse_config(values).attack.lowest_contrast == 0.1
    for wrong in (0.0, 1.1):
        values["attack"]["lowest_contrast"] = wrong
        with pytest.raises(UserError, match="lowest_contrast"):
            parse_config(values)


def test_pretraining_is_checked_too():
    config = default_config()
    config.pretrain = default_config()
    config.pretrain.model.variant = "tiny"
    with pytest.raises(UserError, match=r"config\.pretrain\.model\.variant"):
        parse_config(config)
    config.pretrain.model.variant = "base_plus"
    config.pretrain.data.max_objects = -1
    with pytest.raises(UserError, match=r"config\.pretrain\.data\.max_objects"):
        parse_config(config)


def test_result_is_hashable_so_that_it_can_be_static():
    config = default_config()
    config.pretrain = default_config()
    assert isinstance(hash(parse_config(config)), int)


def test_unknown_attribute_in_a_config_file_fails_where_it_is_written():
    config = default_config()
    assert isinstance(config, ConfigDict)
    with pytest.raises(AttributeError, match="decoder"):
        config.optimizer.decodr = 1e-3
