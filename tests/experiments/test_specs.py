"""The methods' names and numbers, and how configurations get them."""

import itertools

import ml_collections

from experiments.methods import specs


def configured():
    config = ml_collections.ConfigDict({"learning_rate": 0.5})
    specs.add_methods(config)
    specs.add_execution(config)
    return config


def test_configurations_hold_the_defaults():
    config = configured()
    for name, numbers in specs.OPTIMIZERS.items():
        assert (config[name].to_dict() if numbers else {}) == numbers
    for name, spec in specs.SPECS.items():
        found = config[name].to_dict() if name in config else {}
        assert found == {**spec.settings, **spec.choices}


def test_every_number_can_be_swept_and_is_not_at_first():
    numbers = [*specs.OPTIMIZERS.values(), *(s.settings for s in specs.SPECS.values())]
    names = {"learning_rate", *itertools.chain(*numbers)}
    assert configured().sweep.to_dict() == dict.fromkeys(names, ())


def control():
    config = ml_collections.ConfigDict({"learning_rate": 0.5})
    specs.add_control(config)
    return config


def test_agents_are_those_of_the_paper():
    """Dohare et al., Nature 632, 2024, Methods; their Adam has betas of 0.99 in CBP."""
    config = control()
    counts = (config.num_envs, config.num_steps, config.epochs, config.minibatches)
    assert counts == (1, 2048, 10, 16)
    assert (config.gamma, config.gae_lambda, config.clip) == (0.99, 0.95, 0.2)
    assert (config.value_weight, config.entropy_weight) == (1, 0)
    assert (config.hidden, config.activation, config.optimizer) == (
        (256, 256),
        "relu",
        "adam",
    )
    assert (config.adam.b1, config.adam.b2) == (0.9, 0.999)
    for name in ("tuned_adam", "l2", "cbp", "redo"):
        assert (config[name].b1, config[name].b2) == (0.99, 0.99)
    assert (config.tuned_adam.weight_decay, config.l2.weight_decay) == (0, 1e-3)
    assert (config.cbp.weight_decay, config.cbp.replacement_rate) == (1e-4, 1e-4)
    assert (config.cbp.maturity_threshold, config.cbp.utility) == (
        10_000,
        "contribution",
    )


def test_every_number_of_an_agent_can_be_swept_too():
    own = {"gamma", "gae_lambda", "clip", "value_weight", "entropy_weight"}
    names = own.union(configured().sweep)
    assert control().sweep.to_dict() == dict.fromkeys(names, ())


def test_agents_change_nothing_for_others():
    control()
    assert "b1" not in configured().cbp and specs.SPECS["l2"].settings.keys() == {
        "weight_decay"
    }


def test_configurations_share_nothing():
    one, other = configured(), configured()
    one.cbp.replacement_rate = 0.7
    one.momentum.momentum = 0.1
    one.sweep.learning_rate = (1.0,)
    assert other == configured() != one
    assert specs.SPECS["cbp"].settings["replacement_rate"] == 1e-4


def test_figures_can_tell_the_methods_apart():
    assert list(specs.LABELS) == list(specs.SPECS)
    assert len(set(specs.LABELS.values())) == len(specs.SPECS)


def test_methods_and_optimizers_have_names_of_their_own():
    """A configuration has one entry for each."""
    assert not specs.OPTIMIZERS.keys() & specs.SPECS.keys()
