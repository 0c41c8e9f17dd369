"""Slowly-changing regression: the published setting, and the published effect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.launch import devices
from experiments.slowly_changing_regression import config as configs
from experiments.slowly_changing_regression import study
from experiments.studies import learning
from loplax import supervised

NAME = "slowly_changing_regression"
LINEAR = 0.88  # published squared error of a linear model, at any time


def test_default_is_the_published_setting():
    config = configs.get_config()
    assert (config.examples, config.bin, config.seeds) == (1_000_000, 20_000, 100)
    assert (config.optimizer, config.learning_rate) == ("sgd", 0.01)
    assert (config.hidden, config.activation) == ((5,), "relu")
    stream = dict(inputs=20, slow=15, period=10_000, flip="all", units=100, beta=0.7)
    assert config.stream.to_dict() == stream
    assert config.cbp.maturity_threshold == 100
    assert config.cbp.decay_rate == 0.99
    assert config.cbp.utility == "adaptable_contribution"
    made = study.make(config)
    assert (made.bins, made.steps_per_bin) == (50, 20_000)


BAD = [
    ({"activation": "rely"}, "activation.*'rely'"),
    ({"activation": "linear"}, "activation.*'linear'"),
    ({"hidden": (5, 0)}, "hidden"),
    ({"hidden": (), "methods": ("cbp",)}, "no hidden layer"),
    ({"hidden": (), "methods": ("redo",)}, "no hidden layer"),
    ({"hidden": (0,), "methods": ("crelu",)}, "hidden"),
    ({"bin": 0}, "bin"),
    ({"bin": -20}, "bin"),
    ({"bin": 30}, "multiple"),
    ({"bin": 8}, "drawn at once"),
    ({"examples": 0}, "examples"),
    ({"examples": 50}, "multiple"),
    ({"stream__flip": "two"}, "flip.*'two'"),
    ({"stream__period": 0}, "period"),
    ({"stream__slow": 21}, "slow"),
    ({"stream__units": 0}, "units"),
    ({"stream__beta": float("nan")}, "beta"),
]


@pytest.mark.parametrize(("changes", "match"), BAD, ids=lambda x: str(x)[:50])
def test_bad_input_is_refused_before_anything_is_written(
    changes, match, small, launched, tmp_path
):
    with pytest.raises(ValueError, match=match):
        launched(tmp_path / "study", NAME, small(**changes))
    assert not (tmp_path / "study").exists()


@pytest.fixture(scope="module")
def effect(changed):
    """Mean losses of 32 runs in bins of 100,000 examples, per method.

    Backprop is continual backprop at rate 0, which saves compiling it.
    """
    config = changed(configs.get_config("laptop"), bin=100_000)
    made = study.make(config)
    build = learning.problem(made, config, "cbp")
    numbers = made.method(config, "cbp").hparams

    def run(key, rate):
        hparams = numbers | {"cbp.replacement_rate": rate}
        state = supervised.init(build, key, hparams)
        problem = build(hparams, state.key_tx, ())

        def learn(state, _):
            stream, items = problem.stream.draw(state.stream)
            state = state._replace(stream=stream)
            state, found = supervised.learn(problem, state, items)
            return state, found["loss"].mean()

        return jax.lax.scan(learn, state, None, 50)[1]

    keys = jnp.tile(jax.random.split(jax.random.key(0), 32), 2)
    rates = jnp.repeat(jnp.array([0.0, numbers["cbp.replacement_rate"]]), 32)
    options = devices.compiler_options(jax.devices()[0])
    losses = jax.jit(jax.vmap(run), compiler_options=options)(keys, rates)
    means = np.mean(np.asarray(losses).reshape(2, 32, 5, 10), axis=(1, 3))
    return dict(zip(("bp", "cbp"), means, strict=True))


def test_backprop_loses_plasticity(effect):
    """First and last: 0.66 to 0.77 and 1.05 to 1.22, over twelve keys of a study."""
    assert effect["bp"][-1] > 1.25 * effect["bp"][0]
    assert effect["bp"][-1] > LINEAR


def test_continual_backprop_keeps_it(effect):
    """First and last: 0.54 to 0.59 and 0.54 to 0.61, over twelve keys of a study."""
    assert effect["cbp"].max() < 1.25 * effect["cbp"][0]
    assert effect["cbp"][-1] < 0.7 * effect["bp"][-1]
    assert effect["cbp"][-1] < 0.8 * LINEAR
