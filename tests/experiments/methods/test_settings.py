"""The sections of a configuration that say what methods do, and what is swept."""

import math

import numpy as np
import pytest

from experiments.methods import composing, settings
from experiments.methods.table import PLUGINS


def test_configurations_hold_the_defaults(toy):
    config = toy.configured()
    for name, plugin in PLUGINS.items():
        found = config[name].to_dict() if name in config else {}
        assert found == {**plugin.numbers, **plugin.choices}
        for setting, value in found.items():
            assert settings.DEFAULTS[f"{name}.{setting}"] == value


def test_every_number_can_be_swept_and_is_not_at_first(toy):
    """At the address at which it is set."""
    config = toy.configured()
    assert settings.swept(config) == {}
    for name in PLUGINS:
        for address in composing.method(config, name).values:
            config.sweep.update_from_flattened_dict({address: (0.5, 0.25)})
    swept = settings.swept(config)
    numbers = {f"{n}.{number}" for n, p in PLUGINS.items() for number in p.numbers}
    assert swept.keys() == numbers | {"learning_rate"}


def test_choices_are_swept_but_for_lists(toy):
    config = toy.configured()
    assert config.sweep.cbp.utility == config.sweep.er.capacity == ()
    assert "later" in config.er and "later" not in config.sweep.er


def test_numbers_that_a_section_adds_can_be_swept_too(toy):
    config = toy.configured()
    config.cbp.b1 = 0.5
    settings.add_sweep(config, "stream.beta", "stream.noise")
    assert config.sweep.cbp.b1 == ()
    assert config.sweep.stream.to_dict() == {"beta": (), "noise": ()}


@pytest.mark.parametrize("value", ["fast", None, (0.1,), math.inf, math.nan])
def test_values_that_are_no_numbers_are_refused(toy, value):
    config = toy.configured()
    config.sweep.cbp.decay_rate = (0.5, value)
    for read in (settings.swept, lambda c: composing.method(c, "bp")):
        with pytest.raises(
            ValueError, match=r"cbp\.decay_rate takes finite numbers only"
        ):
            read(config)


def test_numbers_are_checked_with_each_of_the_swept_values(toy):
    config = toy.configured()
    config.sweep.learning_rate = (0.5, np.float32(0.25))
    config.sweep.cbp.decay_rate = (0.125,)  # of no number here
    found = list(settings.each(config, {"learning_rate": 1.0, "x": 2.0}))
    assert found == [{"learning_rate": rate, "x": 2.0} for rate in (1.0, 0.5, 0.25)]


def test_configurations_share_nothing(toy):
    one, other = toy.configured(), toy.configured()
    one.cbp.replacement_rate = 0.7
    one.momentum.momentum = 0.1
    one.sweep.learning_rate = (1.0,)
    assert other == toy.configured() != one
    assert PLUGINS["cbp"].numbers["replacement_rate"] == 1e-4


def test_unknown_presets_are_refused():
    settings.check_preset("smoke", {"smoke": "seconds"})
    with pytest.raises(ValueError, match="preset.*'smok'; did you mean 'smoke'"):
        settings.check_preset("smok", {"smoke": "seconds"})
