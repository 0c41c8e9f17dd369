"""The presets of all experiments: locked, new at each call, and ready to run."""

import importlib
import json

import jax
import jax.numpy as jnp
import pytest

pytestmark = pytest.mark.usefixtures("quick_compile", "black_images")
IMAGES = ("digits", "laptop", "paper", "smoke")
PRESETS = {
    "slowly_changing_regression": ("paper", "laptop", "smoke"),
    "permuted_mnist": (*IMAGES, "width100"),
    "continual_imagenet": IMAGES,
    "incremental_cifar": IMAGES,
}


def configs(name):
    return importlib.import_module(f"experiments.{name}.config")


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
    assert preset in configs(name).__doc__


@pytest.mark.parametrize("name", PRESETS)
def test_unknown_presets_are_refused(name):
    with pytest.raises(ValueError, match="preset.*'papre'"):
        configs(name).get_config("papre")


@presets
def test_presets_can_be_run_and_are_not_changed_by_it(name, preset):
    """All methods are built; two presets are traced to the end of a segment."""
    config = configs(name).get_config(preset)
    before = json.loads(config.to_json())
    study = importlib.import_module(f"experiments.{name}.study").make(config)
    number, bins = study.segments
    assert number * bins == study.bins
    methods = [study.method(config, method) for method in config.methods]
    assert json.loads(config.to_json()) == before
    if study.at_task != "zero":  # with which there is no plasticity injection
        items = study.bins * study.chunks * study.stream(study.data).chunk
        assert config.plasticity_injection.injection_step == items // 2
    if preset not in ("paper", "smoke"):
        return
    learner, numbers = methods[0]
    hparams = {setting: jnp.float32(value) for setting, value in numbers.items()}
    state = jax.eval_shape(learner.init, jax.random.key(0), hparams, study.data)
    after, found = jax.eval_shape(learner.segment, state, study.data)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    shown = importlib.import_module(f"experiments.{name}.plot").FIGURE
    assert found[shown.metric].shape == (bins,)
    assert shown.higher_is_better == ("accuracy" in shown.metric)
