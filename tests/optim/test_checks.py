"""Mistakes are errors in words, before anything is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim, units

NAN, INF = float("nan"), float("inf")


def make(net, name, **settings):
    key = jax.random.key(0)
    defaults = {
        "continual_backprop": {
            "units": net.groups,
            "replacement_rate": 0.1,
            "key": key,
        },
        "redo": {"units": net.groups, "key": key},
        "shrink_and_perturb": {"key": key},
    }[name]
    return getattr(optim, name)(optax.sgd(0.1), **defaults | settings)


NUMBERS = [
    ("continual_backprop", "replacement_rate", (-0.1, 1.1, NAN, INF)),
    ("continual_backprop", "maturity_threshold", (-1, NAN)),
    ("continual_backprop", "decay_rate", (-0.1, 1.0, NAN)),
    ("continual_backprop", "max_replacements", (0, -1)),
    ("redo", "threshold", (-0.1, NAN)),
    ("redo", "period", (0, -5)),
    ("redo", "decay_rate", (-0.1, 1.0)),
    ("shrink_and_perturb", "shrink", (-0.1, 1.1, NAN)),
    ("shrink_and_perturb", "perturb_scale", (-0.1, NAN, INF)),
    ("shrink_and_perturb", "period", (0,)),
]
CASES = [(name, number, value) for name, number, values in NUMBERS for value in values]


@pytest.mark.parametrize(("name", "number", "value"), CASES)
def test_numbers_out_of_range(net, name, number, value):
    """The message names the argument, the range and the value."""
    with pytest.raises(ValueError, match=rf"{number} must be in \[.*, got {value}"):
        make(net, name, **{number: value})


@pytest.mark.parametrize("value", [[0.1, 0.2], np.ones((5, 1, 2)), jnp.ones(1)])
def test_a_number_is_one_number(net, value):
    """An array would change the shape of what it is multiplied with; traced it too."""
    words = r"must be one number, got an array of shape \("
    with pytest.raises(ValueError, match=f"replacement_rate {words}"):
        make(net, "continual_backprop", replacement_rate=value)
    with pytest.raises(ValueError, match=f"weight_decay {words}"):
        jax.eval_shape(lambda each: optim.l2_init(each).init(each), jnp.array(value))
    vmapped = jax.vmap(lambda each: optim.l2_init(each).init(each).initial)
    vmapped(jnp.ravel(jnp.array(value)))


def test_whole_numbers_may_be_written_as_floats(net):
    tx = make(net, "continual_backprop", max_replacements=2.0)
    params = net.random(0)
    update = lambda: tx.update(
        params, tx.init(params), params, features=net.features(2)
    )
    jax.eval_shape(update)


@pytest.mark.parametrize(
    ("field", "value", "hint"),
    [
        ("utility", "contributions", "did you mean 'contribution'"),
        ("utility", "adaptable", "did you mean 'adaptation'|'adaptable_contribution'"),
        ("budget", "eligble", "did you mean 'eligible'"),
    ],
)
def test_unknown_names(net, field, value, hint):
    """The nearest known name is offered."""
    with pytest.raises(ValueError, match=hint) as error:
        make(net, "continual_backprop", **{field: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("name", ["continual_backprop", "redo", "shrink_and_perturb"])
@pytest.mark.parametrize("key", [0, None, "old"])
def test_untyped_keys(net, name, key):
    """Old-style keys and seeds are refused, and the typed key is named."""
    key = jax.random.PRNGKey(0) if key == "old" else key
    with pytest.raises(ValueError, match=r"jax\.random\.key\(seed\)"):
        make(net, name, key=key)


@pytest.mark.parametrize("name", ["continual_backprop", "redo"])
def test_units(net, name):
    """No units, two groups of one name, or parameters that are not there."""
    with pytest.raises(ValueError, match="no hidden layer"):
        make(net, name, units=())
    with pytest.raises(ValueError, match="names must differ, got \\['a', 'a'\\]"):
        make(net, name, units=net.groups[:1] * 2)
    tx = make(net, name)
    params = net.random(0)
    renamed = {k.replace("w1", "w1x"): v for k, v in params.items()}
    with pytest.raises(ValueError, match="no parameter 'w1'; nearest known: 'w1x'"):
        tx.init(renamed)
    wide = params | {"w0": jnp.zeros((3, 5))}
    with pytest.raises(ValueError, match="axis 1 of 'w0' has length 5; .* the 4 units"):
        tx.init(wide)
    with pytest.raises(ValueError, match="axis 1 of 'w0'"):
        tx.init(params | {"w0": jnp.zeros(4)})
    with pytest.raises(ValueError, match="axis 0 of 'b1'"):
        tx.init(params | {"b1": jnp.zeros(3)})
    with pytest.raises(ValueError, match="axis 0 of 'w1' has length 3"):
        tx.init(params | {"w1": jnp.zeros((3, 4))})


@pytest.mark.parametrize("name", ["continual_backprop", "redo"])
def test_features(net, name):
    """Features of a layer that are missing, of another size, or a scalar."""
    tx, params, features = make(net, name), net.random(0), net.features(0)
    state = jax.eval_shape(tx.init, params)

    def update(features):
        run = lambda state: tx.update(params, state, params, features=features)
        return jax.eval_shape(run, state)

    update(features | {"unknown layers": jnp.ones(3)})
    with pytest.raises(ValueError, match="nothing for layer 'b', only for \\['a'\\]"):
        update({"a": features["a"]})
    with pytest.raises(ValueError, match="did you mean 'b_'"):
        update({"a": features["a"], "b_": features["b"]})
    with pytest.raises(ValueError, match=r"features\['a'\] must have shape \[..., 4\]"):
        update(features | {"a": jnp.ones((5, 3))})
    with pytest.raises(ValueError, match=r"must have shape \[..., 4\], got \(\)"):
        update(features | {"a": jnp.ones(())})


def test_l2_init_strength():
    """Negative and non-finite strengths."""
    for value in (-1e-3, NAN, INF):
        with pytest.raises(ValueError, match="weight_decay must be in"):
            optim.l2_init(value)


NO_NUMBERS = {
    "schedule": (optax.constant_schedule(0.1), "a number, .* optax.inject_hyperparams"),
    "text": ("1e-4", "a number, got '1e-4'"),
    "none": (None, "a number, got None"),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_what_is_no_number(name):
    value, words = NO_NUMBERS[name]
    with pytest.raises(ValueError, match=f"weight_decay must be {words}"):
        optim.l2_init(value)


@pytest.mark.parametrize(
    ("size", "reasons"), [(1, r"\."), (4, "; left out: .*'in': 'reduce_sum")]
)
def test_no_units_because_all_were_left_out(size, reasons):
    def apply(params, x):
        hidden = jnp.tanh(x @ params["in"])
        return hidden @ params["out"] if size == 1 else jnp.sum(hidden, 1)

    params = {"in": jnp.ones((3, size)), "out": jnp.ones((size, 2))}
    found = units.find(apply, params, jnp.ones((4, 3)))
    words = "no hidden layer given; one of a single unit is none"
    with pytest.raises(ValueError, match=words + reasons):
        optim.redo(optax.sgd(0.1), found, key=jax.random.key(0))


@pytest.mark.parametrize("units", [{"w": jnp.ones(2)}, None], ids=["params", "None"])
def test_units_are_those_that_are_found(units):
    with pytest.raises(ValueError, match="units must be what loplax.units.find"):
        optim.continual_backprop(
            optax.sgd(0.1), units, replacement_rate=0.1, key=jax.random.key(0)
        )


def test_features_are_a_dict_of_activations(net):
    params = net.random(0)
    tx = make(net, "redo")
    with pytest.raises(ValueError, match="features must be the dict .* got list"):
        tx.update(params, tx.init(params), params, features=[jnp.ones((3, 1))])


def test_a_layer_of_one_unit():
    """The smallest layer works like any other."""
    w = units.WeightAxis
    group = units.UnitGroup("a", 1, (w("w", 1),), (), (), (w("v", 0),))
    tx = optim.continual_backprop(
        optax.sgd(0.1),
        [group],
        replacement_rate=1.0,
        maturity_threshold=0,
        key=jax.random.key(0),
    )
    params = {"w": jnp.ones((2, 1)), "v": jnp.ones((1, 1))}
    step = jax.jit(
        lambda: tx.update(params, tx.init(params), params, features=features)
    )
    features = {"a": jnp.ones((3, 1))}
    updates, state = step()
    assert state.replaced["a"].tolist() == [True]
    assert updates["v"].item() == -1.0
