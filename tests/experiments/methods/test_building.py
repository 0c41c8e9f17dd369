"""What is said of a plugin whose builders cannot take what they are given."""

import pytest

from experiments.methods import composing
from experiments.methods.plugin import Plugin
from experiments.methods.table import PLUGINS


@pytest.mark.parametrize(
    ("slot", "maker", "takes"),
    [
        ("optimizer", "transformation", "setting, scale, learning_rate"),
        ("gradient", "transformation", "setting, scale"),
        ("wrap", "transformation", "inner, setting, scale"),
        ("around", "network", "network, shape, scale"),
        ("stream", "filled", "stream, scale"),
        ("lone_stream", "filled", "stream, scale"),
        ("objective", "filled", "problem, scale"),
        ("keeper", "filled", "problem, scale"),
        ("on_task", "filled", "problem, scale"),
    ],
)
def test_the_plugin_and_the_slot_are_named(toy, monkeypatch, slot, maker, takes):
    own = Plugin("mine", "#000000", {"scale": 1.0}, **{slot: lambda *, scal: None})
    monkeypatch.setitem(PLUGINS, "mine", own)
    made = composing.method(toy.configured(), "mine")
    with pytest.raises(ValueError, match=rf"mine: {slot} must take \({takes}\)"):
        getattr(toy, maker)(made, made.values)


def test_an_error_of_a_builder_is_its_own(toy, monkeypatch):
    def broken(inner, setting, scale):
        raise TypeError("a bug")

    own = Plugin("mine", "#000000", {"scale": 1.0}, wrap=broken)
    monkeypatch.setitem(PLUGINS, "mine", own)
    made = composing.method(toy.configured(), "mine")
    with pytest.raises(TypeError, match="a bug"):
        toy.transformation(made, made.values)
