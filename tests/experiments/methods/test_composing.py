"""Methods as lists of plugins: what composes, what is refused, what figures show."""

import functools
import itertools
import re

import jax
import numpy as np
import optax
import pytest

from experiments.methods import composing, settings
from experiments.methods.plugin import Stage
from experiments.methods.table import PLUGINS
from experiments.permuted_mnist import config as configs
from loplax import nets, optim
from loplax.optim import keys

pytestmark = pytest.mark.usefixtures("quick_compile")


def slots(name):
    """What a method has one of, among that which a plugin fills."""
    plugin = PLUGINS[name]
    single = ("optimizer", "objective", "stream")
    single = [slot for slot in single if getattr(plugin, slot)]
    return {*plugin.claims, *plugin.options, *plugin.sets, *single}


def clash(one, other):
    """Whether two plugins fill one slot that holds one thing, or that one claims."""
    claimed = {*PLUGINS[one].claims, *PLUGINS[other].claims} & set(composing.SLOTS)
    filled = lambda name: {slot for slot in claimed if getattr(PLUGINS[name], slot)}
    return bool((slots(one) | filled(one)) & (slots(other) | filled(other)))


def learns(name):
    """Whether a plugin changes the transformation, whose optimiser is SGD."""
    plugin = PLUGINS[name]
    fills = plugin.optimizer or plugin.gradient or plugin.wrap or plugin.sets
    return bool(fills) and name != "sgd"


PAIRS = list(itertools.combinations(PLUGINS, 2))
COMPOSING = [pair for pair in PAIRS if not clash(*pair)]
CLASHING = [pair for pair in PAIRS if clash(*pair)]


@functools.cache
def program(toy, *names):
    """What a method does in a step, whatever the numbers."""
    config = toy.configured(input_normalization={"weight_decay": 0.5})
    made = composing.method(config, "+".join(names))
    return toy.program(toy.transformation(made, made.values), made.name)


@pytest.mark.parametrize("first", PLUGINS)
def test_plugins_for_different_slots_compose(toy, first):
    """Both have their part, and one that has none changes nothing."""
    for pair in (pair for pair in COMPOSING if pair[0] == first):
        if "plasticity_injection" in pair:  # alone it has other weights
            program(toy, *pair)
            continue
        for one, other in (pair, pair[::-1]):
            same = toy.equal(program(toy, *pair), program(toy, other))
            assert same != learns(one), pair


def test_plugins_for_one_slot_are_refused(toy):
    config = toy.configured()
    for one, other in CLASHING:
        either = rf"\b({one} and {other}|{other} and {one}) both\b"
        with pytest.raises(ValueError, match=either):
            composing.method(config, f"{one}+{other}")
    assert ("ewc", "mesu") in CLASHING and ("cbp", "mesu") in CLASHING
    assert ("cbp", "redo") in CLASHING and ("l2", "shrink_and_perturb") in CLASHING


def test_an_optimiser_of_the_configuration_claims_its_slots_too(toy):
    assert composing.method(toy.configured("mesu"), "bp").optimizer == "mesu"
    with pytest.raises(ValueError, match="mesu and cbp both claim wrap"):
        composing.method(toy.configured("mesu"), "cbp")


def listed(name):
    """The slot, if any, in which the order of the names counts."""
    plugin = PLUGINS[name]
    if plugin.gradient:
        return "gradient"
    if plugin.stage == Stage.FREEZE:
        return name  # in either order nothing of it moves
    return plugin.stage if plugin.wrap else name


def test_the_order_of_the_names_counts_within_a_slot_only(toy):
    for pair in COMPOSING:
        if learns(pair[0]) and learns(pair[1]):
            same = toy.equal(program(toy, *pair), program(toy, *pair[::-1]))
            assert same == (listed(pair[0]) != listed(pair[1])), pair


def test_products_are_what_they_say(toy):
    """Penalties, then the optimiser, then what is around it; each with its own key."""
    config = toy.configured(cbp={"replacement_rate": 0.3}, l2={"weight_decay": 0.1})
    config.plasticity_injection.injection_step = 3
    key = functools.partial(keys.named, toy.KEY)
    rate, reinitialize = 0.02, {"initializer": toy.INITIALIZER}
    adam = optim.adam(rate, toy.GROUPS, 0.99, 0.99)
    inner = optax.chain(optax.add_decayed_weights(0.1), adam)
    inner = optim.weight_clipping(optax.chain(optim.l2_init(1e-3), inner), kappa=2.0)
    cbp = {**PLUGINS["cbp"].numbers, "replacement_rate": 0.3, "max_replacements": 3}
    cbp |= {"utility": "adaptable_contribution", "key": key("cbp")}
    noise = {"perturb_scale": 1e-3, "key": key("shrink_and_perturb")}
    decayed = optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(1.0))
    later = optax.scale_by_learning_rate(rate, flip_sign=False)
    products = {
        "cbp+tuned_adam+weight_clipping+l2+l2_init": optim.continual_backprop(
            inner, toy.GROUPS, **cbp, **reinitialize
        ),
        "shrink_and_perturb+plasticity_injection": optim.shrink_and_perturb(
            optax.chain(nets.learn_in_turn(decayed, 3), later), **noise
        ),
        "weight_resets+upgd": optim.selective_weight_reinitialization(
            optim.upgd(**PLUGINS["upgd"].numbers, key=key("upgd")),
            factor=1e-3,
            period=1000,
            key=key("weight_resets"),
            **reinitialize,
        ),
    }
    for name, expected in products.items():
        made = composing.method(config, name)
        found = toy.program(toy.transformation(made, made.values), name)
        assert toy.equal(found, toy.program(expected, name)), name


@pytest.mark.parametrize(
    "name",
    [
        "tuned_adam+l2+l2_init+spectral+parseval+wasserstein+weight_clipping+nap+cbp",
        "upgd+input_normalization+weight_resets",
        "adamw+plasticity_injection+parseval+shrink_and_perturb",
        "momentum+hare_tortoise+input_normalization",
    ],
)
def test_products_learn(toy, name):
    made = composing.method(toy.configured(), name)
    found = jax.jit(functools.partial(toy.learned, made, steps=5))(made.values)
    for leaf in jax.tree.leaves(found):
        assert np.isfinite(leaf).all() and np.unique(leaf).size > 1


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("cpb", "methods.*'cpb'; did you mean 'cbp'"),
        ("bp+cpb", "'cpb'; did you mean 'cbp'"),
        ("bp+", "got ''"),
        ("", "got ''"),
        ("cbp+layer_norm+cbp", "names a plugin twice"),
    ],
)
def test_unknown_and_repeated_plugins_are_refused(toy, name, match):
    with pytest.raises(ValueError, match=match):
        composing.method(toy.configured(), name)


@pytest.mark.parametrize("optimizer", ["sdg", "cbp", ""])
def test_what_is_no_optimizer_is_refused(toy, optimizer):
    with pytest.raises(ValueError, match=f"optimizer.*'{optimizer}'"):
        composing.method(toy.configured(optimizer), "bp")


def test_values_are_those_of_the_optimizer_and_the_plugins():
    config = configs.get_config("paper")
    config.learning_rate, config.optimizer = 0.5, "momentum"
    config.momentum.weight_decay, config.l2.weight_decay = 0.25, 0.125
    values = lambda name: composing.method(config, name).values
    plain = {"momentum.momentum": 0.9, "learning_rate": 0.5}
    assert values("bp") == plain | {"momentum.weight_decay": 0.25}
    assert values("l2") == plain | {"l2.weight_decay": 0.125}
    own = {f"cbp.{n}": value for n, value in PLUGINS["cbp"].numbers.items()}
    own["cbp.replacement_rate"] = 1e-5
    assert values("cbp+l2") == values("l2") | own
    for name in ("adamw", "upgd"):  # with a learning rate of their own
        assert values(name) == {
            f"{name}.{n}": v for n, v in PLUGINS[name].numbers.items()
        }
    other = values("upgd+l2") | values("upgd+weight_resets")
    assert other.keys() >= {"l2.weight_decay", "upgd.decay_rate"}


def test_a_section_may_set_numbers_of_the_optimizer(toy):
    """They hold for the methods with that plugin; two may not say different things."""
    config = toy.configured("adam", cbp={"b1": 0.5}, redo={"learning_rate": 0.1})
    config.l2_init.learning_rate = 0.2
    addresses = lambda name: composing.method(config, name).addresses["adam"]
    assert addresses("bp")["b1"] == "adam.b1"
    assert addresses("l2_init+cbp")["b1"] == "cbp.b1"
    assert addresses("l2_init+cbp")["learning_rate"] == "l2_init.learning_rate"
    with pytest.raises(ValueError, match="redo and l2_init both set.*learning_rate"):
        addresses("redo+l2_init")
    config.redo.learning_rate = 0.2
    assert addresses("redo+l2_init")["learning_rate"] == "redo.learning_rate"
    assert addresses("l2_init+redo")["learning_rate"] == "l2_init.learning_rate"
    settings.add_sweep(config)
    config.sweep.redo.learning_rate = (0.1, 0.3)
    with pytest.raises(ValueError, match="redo and l2_init both set.*learning_rate"):
        addresses("redo+l2_init")


def test_whose_own_number_it_is_sets_it(toy):
    """As the weight decay of L2 on top of a method that has one in addition."""
    config = toy.configured("adam", l2={"weight_decay": 0.5})
    config.cbp.weight_decay = 0.25
    for name in ("l2+cbp", "cbp+l2"):
        found = composing.method(config, name)
        assert found.addresses["adam"]["weight_decay"] == "l2.weight_decay"
        assert found.values["l2.weight_decay"] == 0.5
        assert "cbp.weight_decay" not in found.values


def test_the_bound_on_replacements_is_that_of_the_largest_rate(toy):
    config = toy.configured(cbp={"replacement_rate": 0.25})
    config.sweep.cbp.replacement_rate = (0.0, 0.5, 0.125)
    made = composing.method(config, "cbp")
    assert made.highest["cbp.replacement_rate"] == 0.5
    assert made.highest["cbp.decay_rate"] == made.values["cbp.decay_rate"]


def test_what_is_static_about_a_method_is_described(toy):
    config = toy.configured("momentum", cbp={"utility": "weight"})
    assert composing.method(config, "cbp+linear").described == {
        "plugins": ["momentum", "cbp", "linear"],
        "cbp.utility": "weight",
        "cbp.budget": "eligible",
        "cbp.reset_inner": True,
    }


def test_options_are_those_of_all_plugins(toy):
    made = composing.method(toy.configured(), "crelu+cbp+layer_norm")
    assert made.options == {"activation": "crelu", "normalization": "layer"}


# What figures show.


def test_figures_can_tell_plugins_apart():
    for seen in (composing.label, composing.colour):
        assert len({seen(name) for name in PLUGINS}) == len(PLUGINS)
    assert set(settings.ALL) == {n for n, plugin in PLUGINS.items() if plugin.compared}


def test_labels_and_colours_of_products():
    """A colour between those of the plugins, whatever their order."""
    assert composing.label("cbp+layer_norm") == "continual backprop + layer norm"
    assert len({composing.label("+".join(pair)) for pair in PAIRS}) == len(PAIRS)
    channels = lambda c: np.array([int(c[i : i + 2], 16) for i in (1, 3, 5)])
    for pair in PAIRS:
        mixed = composing.colour("+".join(pair))
        assert re.fullmatch("#[0-9a-f]{6}", mixed)
        assert mixed == composing.colour("+".join(pair[::-1]))
        ends = np.sort([channels(composing.colour(name)) for name in pair], axis=0)
        assert (ends[0] <= channels(mixed)).all() and (channels(mixed) <= ends[1]).all()


def test_each_combination_of_swept_choices_is_a_method(toy):
    """Of the methods that have them; numbers are swept within one."""
    sweep = {"er": {"capacity": (5, 7)}, "cbp": {"utility": ("contribution",)}}
    config = toy.configured(sweep=sweep | {"learning_rate": (0.1, 0.2)})
    plugins = {
        name: composing.method(config, name).plugins for name in ("bp", "er", "cbp+er")
    }
    found = settings.variants(config, plugins)
    assert [(variant, name) for variant, name, _ in found] == [
        ("bp", "bp"),
        ("er er.capacity=5", "er"),
        ("er er.capacity=7", "er"),
        ("cbp+er cbp.utility=contribution er.capacity=5", "cbp+er"),
        ("cbp+er cbp.utility=contribution er.capacity=7", "cbp+er"),
    ]
    made = [composing.method(own, name).choices for _, name, own in found]
    assert [one["er"]["capacity"] for one in made[1:]] == [5, 7, 5, 7]
    assert [one["cbp"]["utility"] for one in made[3:]] == ["contribution"] * 2
    assert settings.swept(config) == {"learning_rate": [0.1, 0.2]}
    assert config.er.capacity == toy.configured().er.capacity


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"er": {"capacity": (5.0,)}}, "er.capacity takes such as 2000"),
        ({"der": {"capacity": (5,)}}, r"no method of \['er'\] has it: add one"),
        ({"cbp": {"decay_rate": (0.9,)}}, r"cbp.decay_rate is swept, but no method"),
    ],
)
def test_what_cannot_be_swept_is_refused(toy, sweep, message):
    config = toy.configured(sweep=sweep)
    with pytest.raises(ValueError, match=message):
        plugins = {"er": composing.method(config, "er").plugins}
        settings.variants(config, plugins)
        settings.check_swept(config, plugins)
