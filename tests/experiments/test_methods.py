"""The methods by name are the transformations that they are said to be."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.methods import making, specs
from experiments.permuted_mnist import config as configs
from loplax import nets, optim, supervised, units
from loplax.nets import input_normalization

pytestmark = pytest.mark.usefixtures("quick_compile")

# Of each setting a value that a few steps show, and another one.
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
}
# With which a method does nothing.
IDLE = {
    "l2": {"weight_decay": 0.0},
    "cbp": {"replacement_rate": 0.0},
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
}
KEY = jax.random.key(1)
INITIALIZER = nets.kaiming_uniform("relu")
STATIC = {
    "cbp": {
        "utility": "contribution",
        "budget": "all",
        "reset_inner": True,
        "max_replacements": 3,
    },
    "weight_resets": {"utility": "magnitude", "pruning": "proportional"},
}


def init(key=None):
    """The same weights for all keys, so that all methods start alike."""
    random = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)
    return {"w": draw(3, 8), "b": jnp.zeros(8), "v": draw(8, 2)}


def apply(params, x):
    return jax.nn.leaky_relu(x @ params["w"] + params["b"], 0.1) @ params["v"]


NETWORK = supervised.stateless(init, apply)
GROUPS = units.find(apply, jax.eval_shape(init), jnp.zeros(3))


def numbers(name, optimizer="sgd"):
    """Both values of each setting that a method uses."""
    spec = specs.SPECS[name]
    used = ({} if spec.optimizer else specs.OPTIMIZERS[optimizer]) | spec.settings
    both = OPTIMIZER | OWN.get(name, {})
    return {setting: both[setting] for setting in ("learning_rate", *used)}


def first(name, optimizer="sgd", **changes):
    values = {setting: both[0] for setting, both in numbers(name, optimizer).items()}
    return values | changes


def made(values, name, optimizer="sgd", **changes):
    options = {
        "groups": GROUPS,
        "initializer": INITIALIZER,
        "static": STATIC.get(name, {}),
    }
    options |= changes
    return making.make(values, KEY, name=name, optimizer=optimizer, **options)


def learn(name, values, optimizer="sgd", **static):
    """The weights after some steps."""
    network = making.around(NETWORK, name, values, (3,))
    tx = made(values, name, optimizer, static=static or STATIC.get(name, {}))
    tapped = units.tap(network.apply, has_aux=True)

    def loss(params, stats, x):
        (outputs, stats), features = tapped(params, stats, x)
        return jnp.sum(jnp.square(outputs - x[:2])), (stats, features)

    def step(carry, x):
        params, stats, state = carry
        grads, (stats, features) = jax.grad(loss, has_aux=True)(params, stats, x)
        updates, state = tx.update(grads, state, params, features=features)
        return (optax.apply_updates(params, updates), stats, state), None

    params, stats = network.init(jax.random.key(0))
    xs = np.random.default_rng(5).normal(size=(10, 3)).astype(np.float32)
    return jax.lax.scan(step, (params, stats, tx.init(params)), xs)[0][0]


@functools.cache
def learned(name, optimizer="sgd"):
    """Weights by what was changed: a setting, or ``"idle"``, or nothing (``""``).

    All are learned side by side, so every setting is a traced number.
    """
    rows = {"": first(name, optimizer)}
    for setting, (_, other) in numbers(name, optimizer).items():
        rows[setting] = rows[""] | {setting: other}
    rows["idle"] = rows[""] | IDLE.get(name, {})
    stacked = {s: jnp.float32([row[s] for row in rows.values()]) for s in rows[""]}
    many = jax.jit(jax.vmap(lambda values: learn(name, values, optimizer)))(stacked)
    return {
        changed: jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), many)
        for i, changed in enumerate(rows)
    }


def assert_close(found, expected):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, found, expected)


def differ(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any(not np.allclose(a, b, rtol=1e-3) for a, b in pairs)


NUMBERED = [name for name, spec in specs.SPECS.items() if spec.settings]


@pytest.mark.parametrize("name", ["bp", *NUMBERED])
def test_every_setting_is_used_and_may_be_traced(name):
    found = learned(name)
    for setting in numbers(name):
        assert jax.tree.all(
            jax.tree.map(lambda x: np.isfinite(x).all(), found[setting])
        )
        assert differ(found[""], found[setting]), setting


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_every_setting_of_an_optimizer_is_used(optimizer):
    found = learned("bp", optimizer)
    for setting in numbers("bp", optimizer):
        assert differ(found[""], found[setting]), setting


@pytest.mark.parametrize("name", IDLE)
def test_what_does_nothing_is_plain_backprop(name):
    found, plain = learned(name)["idle"], learned("bp")[""]
    assert_close(found["base"] if name == "plasticity_injection" else found, plain)
    assert differ(learned(name)[""], learned(name)["idle"])


def test_without_replacements_units_count_alike():
    """Then Adam with counts per unit is plain Adam."""
    assert_close(learned("cbp", "adam")["idle"], learned("bp", "adam")[""])


RESETS = {
    "cbp": optim.continual_backprop,
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
}
AROUND = {
    "shrink_and_perturb": functools.partial(optim.shrink_and_perturb, key=KEY),
    "weight_clipping": optim.weight_clipping,
    "nap": optim.normalize_and_project,
    "weight_resets": functools.partial(
        optim.selective_weight_reinitialization, initializer=INITIALIZER, key=KEY
    ),
    "hare_tortoise": lambda inner, decay_rate, period: optim.hare_tortoise(
        inner, momentum=decay_rate, period=period, reset_inner=False
    ),
}


def inner_by_hand(name, n, optimizer):
    """The optimiser of a method."""
    rate = n["learning_rate"]
    if name == "adamw":
        return optax.adamw(rate, n["b1"], n["b2"], weight_decay=n["weight_decay"])
    if name == "upgd":
        own = {s: n[s] for s in ("weight_decay", "noise_scale", "decay_rate")}
        return optim.upgd(rate, **own, key=KEY)
    optimizer = "adam" if name == "tuned_adam" else optimizer
    if optimizer == "adam" and name in RESETS:
        inner = optim.adam(rate, GROUPS, n["b1"], n["b2"])
    elif optimizer == "adam":
        inner = optax.adam(rate, n["b1"], n["b2"])
    else:
        inner = optax.sgd(rate, n.get("momentum"))
    decayed = ("l2", "shrink_and_perturb", "input_normalization")
    if optimizer in ("momentum", "adam") or name in decayed:
        return optax.chain(optax.add_decayed_weights(n["weight_decay"]), inner)
    return inner


def by_hand(name, values, optimizer):
    """What a method is, in terms of optax and of loplax.optim."""
    inner = inner_by_hand(name, values, optimizer)
    own = {setting: values[setting] for setting in OWN.get(name, {})}
    own |= STATIC.get(name, {})
    if name == "plasticity_injection":
        rate = optax.scale_by_learning_rate(values["learning_rate"], flip_sign=False)
        inner = inner_by_hand(name, values | {"learning_rate": 1.0}, optimizer)
        return optax.chain(nets.learn_in_turn(inner, own["injection_step"]), rate)
    if name in RESETS:
        return RESETS[name](inner, GROUPS, **own, initializer=INITIALIZER, key=KEY)
    if name in ADDED:
        return optax.chain(ADDED[name](**own), inner)
    return AROUND[name](inner, **own) if name in AROUND else inner


def program(tx, name):
    """The operations of a step and the arrays that they close over."""
    params = init()
    if name == "plasticity_injection":
        params = {"base": params, "new": params}
    features = {GROUPS[0].name: jnp.zeros(8)}
    tx = optax.with_extra_args_support(tx)

    def step(params, grads, features):
        return tx.update(grads, tx.init(params), params, features=features)

    closed = jax.make_jaxpr(step)(params, params, features)
    consts = [jax.random.key_data(c) if _is_key(c) else c for c in closed.consts]
    return re.sub("0x[0-9a-f]+", "", str(closed)), consts


def _is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


@pytest.mark.parametrize("optimizer", specs.OPTIMIZERS)
@pytest.mark.parametrize("name", specs.SPECS)
def test_a_method_is_what_it_says(name, optimizer):
    """Operation for operation, with each number in its place."""
    values = first(name, optimizer)
    found, numbers = program(made(values, name, optimizer), name)
    expected, others = program(by_hand(name, values, optimizer), name)
    assert found == expected
    jax.tree.map(np.testing.assert_array_equal, numbers, others)


def test_momentum_is_that_of_torch():
    """Weight decay enters the momentum, and the step size is outside of it."""
    tx = made(first("bp", "momentum"), "bp", "momentum")
    params = {"w": jnp.array([2.0, -1.0])}
    state, w, velocity = tx.init(params), np.array([2.0, -1.0]), 0.0
    for seed in range(3):
        grad = np.random.default_rng(seed).normal(size=2)
        updates, state = tx.update({"w": jnp.float32(grad)}, state, params)
        params = optax.apply_updates(params, updates)
        velocity = 0.8 * velocity + grad + 0.3 * w
        w = w - 0.02 * velocity
        np.testing.assert_allclose(params["w"], w, rtol=1e-5)


@pytest.mark.parametrize("name", ["bp", "l2", "tuned_adam"])
def test_adam_is_that_of_torch(name):
    """Weight decay enters both moments."""
    tx = made(first(name, "adam"), name, "adam")
    params = {"w": jnp.array([2.0, -1.0])}
    state, w, mean, square = tx.init(params), np.array([2.0, -1.0]), 0.0, 0.0
    for count in range(1, 4):
        grad = np.random.default_rng(count).normal(size=2)
        updates, state = tx.update({"w": jnp.float32(grad)}, state, params)
        params = optax.apply_updates(params, updates)
        slope = grad + 0.3 * w
        mean = 0.8 * mean + 0.2 * slope
        square = 0.9 * square + 0.1 * slope**2
        root = np.sqrt(square / (1 - 0.9**count)) + 1e-8
        w = w - 0.02 * mean / (1 - 0.8**count) / root
        np.testing.assert_allclose(params["w"], w, rtol=1e-5)


@pytest.mark.parametrize("reset", [True, False])
def test_moments_of_replaced_units_start_anew_or_not(reset):
    """Two units are replaced in the third step; the fourth gradient is 0."""
    values = first("cbp", "adam", weight_decay=0.0)
    static = STATIC["cbp"] | {"reset_inner": reset}
    tx = made(values, "cbp", "adam", static=static)
    params = init()
    step, state = jax.jit(tx.update), tx.init(params)
    features = {GROUPS[0].name: jnp.arange(8.0)}
    for slope in (1.0, 1.0, 1.0, 0.0):
        replaced = np.asarray(state.replaced[GROUPS[0].name])
        grads = jax.tree.map(lambda x, slope=slope: jnp.full_like(x, slope), params)
        updates, state = step(grads, state, params, features=features)
        params = optax.apply_updates(params, updates)
    assert replaced.sum() == 2
    for path in ("w", "b", "v"):
        moment = np.asarray(optax.tree.get(state.inner, "mu")[path])
        by_unit = np.moveaxis(np.atleast_2d(moment), 0 if path == "v" else -1, 0)
        kept = 0.8 * (1 - 0.8**3)
        np.testing.assert_allclose(by_unit[~replaced], kept, rtol=1e-5)
        np.testing.assert_allclose(by_unit[replaced], 0 if reset else kept, rtol=1e-5)


@pytest.mark.parametrize("name", ["bp", "hare_tortoise", "plasticity_injection"])
def test_a_schedule_counts_all_steps(name):
    """Also where a method starts the weights again, or half of them later."""
    idle = {"weight_decay": 0.0, "momentum": 0.0, "decay_rate": 0.0}
    values = {s: idle.get(s, value) for s, value in first(name, "momentum").items()}
    schedule = lambda rate: lambda count: rate * count
    tx = made(values, name, "momentum", schedule=schedule)
    params = {"base": jnp.zeros(2), "new": jnp.zeros(2)}
    state = tx.init(params)
    for count in range(8):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        learns = "new" if name == "plasticity_injection" and count >= 3 else "base"
        np.testing.assert_allclose(updates[learns], -0.02 * count, atol=1e-6)
        params = optax.apply_updates(params, updates)


@pytest.mark.parametrize("optimizer", specs.OPTIMIZERS)
def test_defaults_are_in_range(optimizer):
    config = configs.get_config("paper")
    config.optimizer = optimizer
    for name in specs.SPECS:
        static = making.static(config, name, 8)
        values = making.values(config, name)
        options = {"groups": GROUPS, "initializer": INITIALIZER, "static": static}
        making.make(values, KEY, name=name, optimizer=optimizer, **options)
        making.around(NETWORK, name, values, (3,))


TOO_HIGH = {
    "b1": 1.0,
    "b2": 1.0,
    "momentum": 1.0,
    "replacement_rate": 1.5,
    "decay_rate": 1.5,
    "rejection_threshold": 1.5,
    "factor": 1.0,
    "shrink": 1.5,
}
ALSO = {
    "period": (0, 1.5),
    "injection_step": (1.5,),
    "initial_threshold": (0.5,),
    "exponent": (0.5,),
}


@pytest.mark.parametrize("name", specs.SPECS)
def test_bad_numbers_are_refused_by_name(name):
    optimizers = specs.OPTIMIZERS if name == "bp" else ("sgd",)
    for optimizer in optimizers:
        for setting, value in first(name, optimizer).items():
            bad = [-1.0, float("nan"), float("inf"), TOO_HIGH.get(setting, -2.0)]
            for value in (*bad, *ALSO.get(setting, ())):
                with pytest.raises(ValueError, match=rf"\b{setting}\b"):
                    values = first(name, optimizer, **{setting: value})
                    made(values, name, optimizer)


def test_bad_numbers_of_networks_are_refused_by_name():
    for name in ("input_normalization", "plasticity_injection"):
        (setting,) = OWN[name]
        with pytest.raises(ValueError, match=rf"\b{setting}\b"):
            making.around(NETWORK, name, {setting: -1.0}, (3,))


def test_unknown_names_are_refused():
    for given in ({"name": "cpb"}, {"optimizer": "sdg"}, {"optimizer": "upgd"}):
        with pytest.raises(ValueError, match=next(iter(given.values()))):
            made(first("bp"), **({"name": "bp"} | given))


def test_values_are_those_of_the_optimizer_and_the_method():
    config = configs.get_config("paper")
    config.learning_rate, config.optimizer = 0.5, "momentum"
    config.momentum.weight_decay, config.l2.weight_decay = 0.25, 0.125
    plain = {"learning_rate": 0.5, "momentum": 0.9, "weight_decay": 0.25}
    assert making.values(config, "bp") == plain
    assert making.values(config, "l2") == plain | {"weight_decay": 0.125}
    assert making.values(config, "cbp") == plain | specs.SPECS["cbp"].settings | {
        "replacement_rate": 1e-5
    }
    for name in ("adamw", "upgd"):  # optimisers of their own
        assert making.values(config, name) == specs.SPECS[name].settings


@pytest.mark.parametrize(
    ("choice", "other"),
    [
        ("utility", "random"),
        ("utility", "gradient"),
        ("pruning", "threshold"),
        ("decay_rate", 0.9),
    ],
)
def test_every_choice_of_weight_resets_is_used(choice, other):
    """The weights that it learns are others."""
    values = first("weight_resets")
    before = STATIC["weight_resets"]
    found = jax.jit(lambda: learn("weight_resets", values, **before))()
    changed = jax.jit(
        lambda: learn("weight_resets", values, **before | {choice: other})
    )()
    assert differ(found, changed)


def test_settings_that_are_no_numbers():
    """The bound on replacements is that of the largest rate in the sweep."""
    config = configs.get_config("paper")
    config.cbp.utility = "weight"
    config.cbp.replacement_rate = 1e-5
    found = making.static(config, "cbp", 2000)
    assert found == {
        "utility": "weight",
        "budget": "eligible",
        "reset_inner": True,
        "max_replacements": 1,
    }
    config.sweep.replacement_rate = (0.0, 0.25)
    assert making.static(config, "cbp", 10)["max_replacements"] == 3
    config.weight_resets.utility = "magnitude"
    config.weight_resets.decay_rate = 0.5
    choices = {"utility": "magnitude", "pruning": "proportional", "decay_rate": 0.5}
    assert making.static(config, "weight_resets", 10) == choices
    assert making.static(config, "redo", 10) == {"reset_inner": True}
    assert making.static(config, "regrama", 10) == {}


def test_inputs_are_normalised_before_the_network():
    """Statistics grow while it learns and rest while it is evaluated."""
    around = making.around(NETWORK, "input_normalization", {"decay_rate": 0.9}, (3,))
    params, stats = around.init(jax.random.key(0))
    seen = input_normalization.init((3,))
    for seed in range(3):
        x = 5 + 2 * jax.random.normal(jax.random.key(seed), (4, 3))
        seen = input_normalization.update(seen, x, 0.9)
        outputs, stats = around.apply(params, stats, x)
        normal = input_normalization.normalize(seen, x)
        np.testing.assert_allclose(outputs, apply(params, normal), rtol=1e-5)
    assert_close(stats, (seen, ()))
    found = around.predict(params, stats, 7 * x)
    normal = input_normalization.normalize(seen, 7 * x)
    np.testing.assert_allclose(found, apply(params, normal), rtol=1e-5)


def test_statistics_of_units_restart_behind_the_normalised_inputs():
    restart = lambda stats, replaced: stats + replaced
    network = NETWORK._replace(init=lambda key: (init(), 1.0), restart=restart)
    around = making.around(network, "input_normalization", {"decay_rate": 0.9}, (3,))
    _, (seen, stats) = around.init(jax.random.key(0))
    assert around.restart((seen, stats), 2.0) == (seen, 3.0)


def test_most_methods_leave_the_network_alone():
    for name in specs.SPECS.keys() - {"input_normalization", "plasticity_injection"}:
        assert making.around(NETWORK, name, first(name), (3,)) is NETWORK
