"""Every plugin is the transformation that it is said to be."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.methods import composing
from experiments.methods.plugin import Stage
from experiments.methods.table import PLUGINS
from loplax import nets, optim
from loplax.optim import keys

pytestmark = pytest.mark.usefixtures("quick_compile")

# Of each number a value that a few steps show, and another one.
OPTIMIZER = {
    "learning_rate": (0.02, 0.03),
    "momentum": (0.8, 0.5),
    "weight_decay": (0.3, 0.2),
    "b1": (0.8, 0.5),
    "b2": (0.9, 0.7),
}
OWN = {
    "cbp": {
        "replacement_rate": (0.25, 0.125),
        "maturity_threshold": (2, 4),
        "decay_rate": (0.9, 0.1),
    },
    "release": {
        "replacement_rate": (0.25, 0.125),
        "maturity_threshold": (2, 4),
        "decay_rate": (0.9, 0.1),
        "magnitude": (0.1, 0.2),
    },
    "ccbp": {
        "replacement_rate": (0.5, 0.25),
        "sharpness": (16.0, 1.0),
        "threshold": (1.0, 0.6),
        "decay_rate": (0.9, 0.1),
        "period": (3, 4),
    },
    "shrink_and_perturb": {
        "shrink": (0.9, 0.8),
        "perturb_scale": (0.1, 0.2),
        "period": (2, 3),
    },
    "l2_init": {"strength": (0.1, 0.2)},
    "redo": {"threshold": (0.9, 0.5), "period": (3, 4), "decay_rate": (0.8, 0.1)},
    "regrama": {"threshold": (0.9, 0.5), "period": (3, 4), "decay_rate": (0.8, 0.1)},
    "upgd": {"noise_scale": (0.1, 0.2), "decay_rate": (0.9, 0.5)},
    "self_normalized_resets": {
        "rejection_threshold": (0.05, 0.7),
        "initial_threshold": (2, 4),
        "period": (3, 4),
    },
    "hare_tortoise": {"decay_rate": (0.9, 0.5), "period": (3, 4)},
    "spectral": {"strength": (0.1, 0.2), "exponent": (2.0, 1.0)},
    "parseval": {"strength": (0.1, 0.2), "scale": (2.0, 1.0)},
    "wasserstein": {"strength": (0.1, 0.2)},
    "weight_clipping": {"kappa": (0.9, 0.8)},
    "weight_resets": {"factor": (0.5, 0.25), "period": (3, 4)},
    "input_normalization": {"decay_rate": (0.9, 0.5)},
    "plasticity_injection": {"injection_step": (3, 4)},
    "ema": {"decay_rate": (0.9, 0.5)},
    "er": {"new_weight": (0.5, 0.9)},
    "er_ace": {"new_weight": (0.5, 0.9)},
    "mir": {"new_weight": (0.5, 0.9), "step_size": (0.1, 5.0)},
    "der": {"alpha": (0.5, 0.9)},
    "derpp": {"alpha": (0.5, 0.9), "beta": (0.5, 0.9)},
    "lwf": {"temperature": (2.0, 4.0), "strength": (1.0, 0.5)},
    "lora": {"alpha": (1.0, 2.0)},
    "least_squares": {"ridge": (0.1, 0.2)},
    "ncm": {"decay_rate": (0.9, 0.5)},
    "one_cycle": {
        "pct_start": (0.3, 0.6),
        "div_factor": (25.0, 5.0),
        "final_div_factor": (10.0, 2.0),
    },
    "metaplastic": {"m": (1.0, 3.0)},
    "mesu": {
        "window": (10.0, 20.0),
        "prior_deviation": (1.0, 0.5),
        "initial_deviation": (0.5, 1.0),
        "clip": (0.5, 0.1),
    },
    "ewc": {"strength": (0.1, 0.2)},
    "random_consolidation": {"strength": (0.1, 0.2)},
    "si": {"strength": (0.1, 0.2), "xi": (0.1, 0.5)},
    "mas": {"strength": (0.1, 0.2)},
}
# With which a plugin does nothing.
IDLE = {
    "l2": {"weight_decay": 0.0},
    "cbp": {"replacement_rate": 0.0},
    "release": {"replacement_rate": 0.0},
    "ccbp": {"replacement_rate": 0.0},
    "shrink_and_perturb": {"shrink": 1.0, "weight_decay": 0.0, "perturb_scale": 0.0},
    "l2_init": {"strength": 0.0},
    "redo": {"threshold": 0.0},
    "regrama": {"threshold": 0.0},
    "self_normalized_resets": {"initial_threshold": 1e6, "period": 1e6},
    "hare_tortoise": {"decay_rate": 0.0},
    "spectral": {"strength": 0.0},
    "parseval": {"strength": 0.0},
    "wasserstein": {"strength": 0.0},
    "weight_clipping": {"kappa": 1e6},
    "weight_resets": {"factor": 0.0},
    "plasticity_injection": {"injection_step": 1e6},
    "metaplastic": {"m": 0.0},
}
CHOICES = {
    "cbp": {"utility": "contribution", "budget": "all"},
    "weight_resets": {"utility": "magnitude"},
}
OPTIMIZERS = [name for name, plugin in PLUGINS.items() if plugin.optimizer]
NUMBERED = [name for name, plugin in PLUGINS.items() if plugin.numbers]
# What needs sessions, see test_rehearsing.
LEARNING = [n for n in NUMBERED if not PLUGINS[n].keeper and not PLUGINS[n].sessions]


@functools.cache
def method(toy, name, optimizer="sgd"):
    config = toy.configured(optimizer, **CHOICES)
    for each in ("cbp", "release"):
        config.sweep[each].replacement_rate = (0.25,)
    return composing.method(config, name)


def numbers(made):
    """Both values of each number that a method uses, by address."""
    known = lambda plugin, number: OWN.get(plugin, {}).get(number) or OPTIMIZER[number]
    splits = {at: at.rpartition(".")[::2] for at in made.values}
    return {at: known(*split) for at, split in splits.items()}


def first(made, **changes):
    """Numbers by address; changes by the number's own name."""
    values = {address: both[0] for address, both in numbers(made).items()}
    return values | {at: changes[own(at)] for at in values if own(at) in changes}


def own(address):
    return address.rpartition(".")[2]


def learn_all(toy, made, rows):
    """Weights that are learned side by side, so that every number is traced."""
    stacked = {at: jnp.float32([row[at] for row in rows]) for at in rows[0]}
    many = jax.jit(jax.vmap(functools.partial(toy.learned, made)))(stacked)
    return [
        jax.tree.map(lambda x, i=i: np.asarray(x[i]), many) for i in range(len(rows))
    ]


@functools.cache
def learned(toy, name, optimizer="sgd"):
    """Weights by what was changed: a number, or ``"idle"``, or nothing (``""``)."""
    made = method(toy, name, optimizer)
    rows = {"": first(made)}
    rows |= {at: rows[""] | {at: other} for at, (_, other) in numbers(made).items()}
    rows["idle"] = first(made, **IDLE.get(name, {}))
    return dict(zip(rows, learn_all(toy, made, [*rows.values()]), strict=True))


def differ(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any(not np.allclose(a, b, rtol=1e-3) for a, b in pairs)


@pytest.mark.parametrize("name", ["bp", *LEARNING])
def test_every_number_is_used_and_may_be_traced(toy, name):
    found = learned(toy, name)
    for address in numbers(method(toy, name)):
        finite = jax.tree.map(lambda x: np.isfinite(x).all(), found[address])
        assert jax.tree.all(finite)
        assert differ(found[""], found[address]), address


@pytest.mark.parametrize("name", IDLE)
def test_what_does_nothing_is_plain_backprop(toy, name):
    found, plain = learned(toy, name)["idle"], learned(toy, "bp")[""]
    toy.close(found["base"] if name == "plasticity_injection" else found, plain)
    assert differ(learned(toy, name)[""], learned(toy, name)["idle"])


def test_without_replacements_units_count_alike(toy):
    """Then Adam with counts per unit is plain Adam."""
    toy.close(learned(toy, "cbp", "adam")["idle"], learned(toy, "bp", "adam")[""])


def _release(inner, units, *, magnitude, **own):
    return RESETS["cbp"](inner, units, release=magnitude, **own)


RESETS = {
    "release": _release,
    "cbp": functools.partial(optim.continual_backprop, max_replacements=2),
    "ccbp": optim.ccbp,
    "redo": optim.redo,
    "regrama": optim.regrama,
    "self_normalized_resets": optim.self_normalized_resets,
}
ADDED = {
    "l2_init": lambda strength: optim.l2_init(strength),
    "spectral": optim.spectral_regularization,
    "parseval": lambda **own: optax.masked(
        optim.parseval_regularization(**own), {"w": True, "b": False, "v": False}
    ),
    "wasserstein": optim.wasserstein_regularization,
    "a_gem": optim.a_gem,
    "ewc": optim.elastic_weight_consolidation,
    "random_consolidation": optim.elastic_weight_consolidation,
    "mas": optim.memory_aware_synapses,
}
AROUND = {
    "shrink_and_perturb": optim.shrink_and_perturb,
    "weight_clipping": optim.weight_clipping,
    "one_cycle": optim.one_cycle,
    "metaplastic": lambda inner, m: optax.chain(inner, optim.metaplastic(m)),
    "si": optim.synaptic_intelligence,
    "nap": optim.normalize_and_project,
    "weight_resets": optim.selective_weight_reinitialization,
    "hare_tortoise": lambda inner, decay_rate, period: optim.hare_tortoise(
        inner, momentum=decay_rate, period=period, reset_inner=False
    ),
}
FROZEN = {
    "freeze_old_outputs": "old_outputs",
    "lora": "beside_adapters",
    "head_only": "beside_head",
}
AROUND |= {
    name: lambda inner, argument=argument, **_: optim.frozen(inner, argument=argument)
    for name, argument in FROZEN.items()
}
RANDOM = ("shrink_and_perturb", "weight_resets")


def inner_by_hand(toy, name, n, optimizer):
    """The optimiser of a method."""
    optimizer = name if PLUGINS[name].optimizer else optimizer
    rate = n["learning_rate"]
    if optimizer == "adamw":
        return optax.adamw(rate, n["b1"], n["b2"], weight_decay=n["weight_decay"])
    if optimizer == "upgd":
        values = {s: n[s] for s in ("weight_decay", "noise_scale", "decay_rate")}
        return optim.upgd(rate, **values, key=keys.named(toy.KEY, "upgd"))
    if optimizer == "mesu":
        own = {s: n[s] for s in ("window", "prior_deviation", "clip")}
        later = optax.scale_by_learning_rate(rate, flip_sign=False)
        return optax.chain(optim.mesu(**own), later)
    if optimizer == "adam_eps_hat":
        inner = optim.adam(rate, None, n["b1"], n["b2"], eps_hat=True)
    elif "adam" in optimizer and name in RESETS:
        inner = optim.adam(rate, toy.GROUPS, n["b1"], n["b2"])
    elif "adam" in optimizer:
        inner = optax.adam(rate, n["b1"], n["b2"])
    else:
        inner = optax.sgd(rate, n.get("momentum"))
    if "weight_decay" not in n:
        return inner
    return optax.chain(optax.add_decayed_weights(n["weight_decay"]), inner)


def by_hand(toy, name, values, optimizer):
    """What a method is, in terms of optax and of loplax.optim."""
    n = {own(at): value for at, value in values.items()}
    inner = inner_by_hand(toy, name, n, optimizer)
    given = {number: n[number] for number in OWN.get(name, {})} | CHOICES.get(name, {})
    key = keys.named(toy.KEY, name)
    if name == "plasticity_injection":
        rate = optax.scale_by_learning_rate(n["learning_rate"], flip_sign=False)
        inner = inner_by_hand(toy, name, n | {"learning_rate": 1.0}, optimizer)
        return optax.chain(nets.learn_in_turn(inner, n["injection_step"]), rate)
    if name in RESETS:
        fixed = {"initializer": toy.INITIALIZER, "key": key}
        groups = toy.SIGNED if name == "release" else toy.GROUPS
        return RESETS[name](inner, groups, **given, **fixed)
    if name in ADDED:
        return optax.chain(ADDED[name](**given), inner)
    if name == "weight_resets":
        given["initializer"] = toy.INITIALIZER
    if name in RANDOM:
        given["key"] = key
    return AROUND[name](inner, **given) if name in AROUND else inner


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("name", PLUGINS)
def test_a_method_is_what_it_says(toy, name, optimizer):
    """Operation for operation, with each number in its place."""
    made = method(toy, name, optimizer)
    values = first(made)
    found, arrays = toy.program(toy.transformation(made, values), name)
    expected, others = toy.program(by_hand(toy, name, values, optimizer), name)
    assert found == expected
    jax.tree.map(np.testing.assert_array_equal, arrays, others)


@pytest.mark.parametrize(
    "optimizer", [name for name in OPTIMIZERS if not PLUGINS[name].claims]
)
def test_defaults_are_in_range(toy, optimizer):
    config = toy.configured(optimizer)
    for name, plugin in PLUGINS.items():
        made = composing.method(config, name)
        toy.transformation(made, made.values)
        toy.network(made, made.values)
        toy.filled(made, made.values)
        elsewhere = plugin.evaluated or plugin.sessions
        whole = plugin.optimizer or plugin.options or plugin.stage == Stage.SCALE
        assert plugin.compared or whole or elsewhere
        assert not (plugin.compared and elsewhere)


TOO_HIGH = {
    "b1": 1.0,
    "b2": 1.0,
    "momentum": 1.0,
    "replacement_rate": 1.5,
    "decay_rate": 1.5,
    "rejection_threshold": 1.5,
    "factor": 1.0,
    "shrink": 1.5,
    "new_weight": 1.5,
    "pct_start": 1.5,
}
ALSO = {
    "period": (0, 1.5),
    "window": (0,),
    "prior_deviation": (0,),
    "initial_deviation": (0,),
    "clip": (0,),
    "injection_step": (1.5,),
    "initial_threshold": (0.5,),
    "exponent": (0.5,),
    "temperature": (0.5,),
    "div_factor": (0.5,),
    "final_div_factor": (0.5,),
}


@pytest.mark.parametrize("name", ["bp", *NUMBERED])
def test_bad_numbers_are_refused_by_name(toy, name):
    """What the transformation does not know, the network or the learner refuses."""
    made = method(toy, name)
    for address in made.values:
        number = own(address)
        bad = [-1.0, float("nan"), float("inf"), TOO_HIGH.get(number, -2.0)]
        for value in (*bad, *ALSO.get(number, ())):
            values = first(made) | {address: value}
            with pytest.raises(ValueError, match=rf"\b{number}\b"):
                toy.transformation(made, values)
                toy.network(made, values)
                toy.filled(made, values)


def choosing(made, name, **choices):
    """The method with other choices of a plugin."""
    return made._replace(choices=made.choices | {name: made.choices[name] | choices})


@pytest.mark.parametrize(
    ("name", "choice", "other"),
    [
        ("weight_resets", "utility", "random"),
        ("weight_resets", "utility", "gradient"),
        ("weight_resets", "pruning", "threshold"),
        ("weight_resets", "decay_rate", 0.9),
        ("cbp", "utility", "weight"),
        ("cbp", "budget", "random"),
        ("release", "utility", "weight"),
    ],
)
def test_every_choice_is_used(toy, name, choice, other):
    """The weights that it learns are others."""
    made = choosing(method(toy, name), name, **{choice: other})
    (found,) = learn_all(toy, made, [first(made)])
    assert differ(found, learned(toy, name)[""])


def test_the_path_of_si_is_that_of_the_weights_or_of_their_signs(toy):
    """Signs are those of weights alone, and of a network that reads nothing else."""
    seen = lambda w: jnp.sign(w) if jnp.ndim(w) > 1 else w
    numbers = {"strength": 0.1, "xi": 0.1}
    for path, own in (("weight", {}), ("sign", {"path": seen})):
        made = choosing(method(toy, "si"), "si", path=path)
        found = toy.transformation(made, first(made), groups=toy.SIGNED)
        expected = AROUND["si"](optax.sgd(0.02), **numbers, through=seen, **own)
        assert toy.equal(toy.program(found, "si"), toy.program(expected, "si"))
    with pytest.raises(ValueError, match=r"si\.path is sign, and the weights are not"):
        toy.transformation(made, first(made))
    made = choosing(made, "si", path="sing")
    with pytest.raises(ValueError, match=r"si\.path.*'sing'; did you mean 'sign'"):
        toy.transformation(made, first(made))


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("name", ["cbp", "release", "redo"])
def test_moments_of_replaced_units_start_anew_or_not(toy, name, reset):
    """Units start anew in the third step; the fourth gradient is 0."""
    made = choosing(method(toy, name, "adam"), name, reset_inner=reset)
    values = first(made, weight_decay=0.0)
    tx = toy.transformation(made, values)
    params = toy.init()
    step, state = jax.jit(tx.update), tx.init(params)
    features = {toy.GROUPS[0].name: jnp.arange(8.0)}
    for slope in (1.0, 1.0, 1.0, 0.0):
        chosen = state.released if name == "release" else state.replaced
        replaced = np.asarray(chosen[toy.GROUPS[0].name])
        grads = jax.tree.map(lambda x, slope=slope: jnp.full_like(x, slope), params)
        updates, state = step(grads, state, params, features=features)
        params = optax.apply_updates(params, updates)
    assert 0 < replaced.sum() < 8
    for path in ("w", "b", "v"):
        moment = np.asarray(optax.tree.get(state.inner, "mu")[path])
        by_unit = np.moveaxis(np.atleast_2d(moment), 0 if path == "v" else -1, 0)
        kept = 0.8 * (1 - 0.8**3)
        np.testing.assert_allclose(by_unit[~replaced], kept, rtol=1e-5)
        np.testing.assert_allclose(by_unit[replaced], 0 if reset else kept, rtol=1e-5)
