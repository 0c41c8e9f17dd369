"""The presets of all experiments: locked, new at each call, and ready to run."""

import functools
import json

import jax
import jax.numpy as jnp
import pytest

from experiments.launch import problems
from experiments.methods import composing, settings
from experiments.studies import learning
from loplax import envs

pytestmark = pytest.mark.usefixtures("quick_compile", "black_images")
BRAX = ("ant", "slippery_ant", "hopper", "walker")
PRESETS = {
    name: tuple(problems.part(name, "config").PRESETS) for name in problems.NAMES
}
# Traced to the end of a segment; one robot is enough.
TRACED = {name: ("paper", "smoke") for name in PRESETS.keys() - BRAX} | {
    "slippery_ant": ("smoke",)
}
make = functools.cache(envs.make)  # a robot's model takes a second to load


def configs(name):
    return problems.part(name, "config")


presets = pytest.mark.parametrize(
    ("name", "preset"), [(name, p) for name, given in PRESETS.items() for p in given]
)


@presets
def test_presets_are_locked_and_new_at_each_call(name, preset):
    config = configs(name).get_config(preset)
    for place in (config, config.sweep, config.cbp):
        with pytest.raises((AttributeError, KeyError)):
            place.lerning_rate = 0.1
    config.seeds, config.cbp.decay_rate = 77, 0.5
    other = configs(name).get_config(preset)
    assert other.seeds != 77 and other.cbp.decay_rate != 0.5
    assert preset in configs(name).PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_the_first_preset_is_the_default(name):
    assert configs(name).get_config() == configs(name).get_config(PRESETS[name][0])
    assert all(text[-1:] != "." for text in configs(name).PRESETS.values())


@pytest.mark.parametrize("name", PRESETS)
def test_unknown_presets_are_refused(name):
    with pytest.raises(ValueError, match="preset.*'papre'"):
        configs(name).get_config("papre")


@presets
def test_presets_can_be_run_and_are_not_changed_by_it(name, preset, monkeypatch):
    """All methods are built; some presets are traced to the end of a segment."""
    if name in BRAX:
        pytest.importorskip("brax")
    monkeypatch.setattr(envs, "make", make)
    config = configs(name).get_config(preset)
    before = json.loads(config.to_json())
    study = problems.part(name, "study").make(config)
    number, bins = study.segments
    assert number * bins == study.bins
    methods = [study.method(config, method) for method in config.methods]
    swept = {at for at, _ in settings.flatten(config.sweep)}
    assert all(method.hparams.keys() <= swept for method in methods)
    assert json.loads(config.to_json()) == before
    supervised = isinstance(study, learning.Study)
    # Where the output layer is zeroed there is no plasticity injection.
    if supervised and "zero_head" not in study.at_task:
        chunk = study.stream(study.data, study.numbers).chunk
        items = study.bins * study.chunks * chunk // study.bins_per_chunk
        found = composing.method(config, "plasticity_injection", study.items).values
        assert found["plasticity_injection.injection_step"] == items // 2
    if preset not in TRACED.get(name, ()):
        return
    learner, numbers, *_ = methods[0]
    hparams = {setting: jnp.float32(value) for setting, value in numbers.items()}
    state = jax.eval_shape(learner.init, jax.random.key(0), hparams, study.data)
    after, found = jax.eval_shape(learner.segment, state, study.data)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    shown = problems.part(name, "plot").FIGURE
    tested = shown.metric.startswith("test_")
    apart = (len(learner.subsets),) if tested and learner.subsets else ()
    assert found[shown.metric].shape == (bins, *apart)
    success = "accuracy" in shown.metric or shown.metric in ("return", "correlation")
    assert shown.higher_is_better == success
    counted = {"example": "examples", "step": "environment steps", "update": "updates"}
    assert shown.steps == counted[study.unit]
