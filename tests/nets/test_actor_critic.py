"""Actor and critic: separate, with the published start, their units found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import nets, units

pytestmark = pytest.mark.usefixtures("quick_compile")
X = jax.random.normal(jax.random.key(9), (7, 5))


def made(continuous, hidden=(16, 8), **options):
    net = nets.ActorCritic(hidden, 3, continuous, **options)
    apply = lambda params, x: net.apply({"params": params}, x)
    return apply, net.init(jax.random.key(0), X)["params"]


def test_outputs_have_the_shapes_of_policy_and_value():
    apply, params = made(False)
    logits, value = apply(params, X)
    assert logits.shape == (7, 3) and value.shape == (7,)
    assert "log_std" not in params
    apply, params = made(True)
    (mean, log_std), value = apply(params, X)
    assert mean.shape == log_std.shape == (7, 3) and value.shape == (7,)


def test_the_standard_deviation_starts_at_1_and_does_not_depend_on_the_observation():
    apply, params = made(True)
    assert not apply(params, X)[0][1].any()
    moved = params | {"log_std": jnp.arange(3.0)}
    np.testing.assert_array_equal(
        apply(moved, X)[0][1], np.tile(np.arange(3.0), (7, 1))
    )


def test_policy_and_value_share_nothing():
    apply, params = made(True)
    of_value = jax.grad(lambda p: apply(p, X)[1].sum())(params)
    assert not any(x.any() for x in jax.tree.leaves(of_value["policy"]))
    assert all(x.any() for x in jax.tree.leaves(of_value["value"]["output"]))


def test_kernels_start_at_lecun_uniform_and_biases_at_0():
    _, params = made(False, hidden=(400, 400))
    for part in ("policy", "value"):
        for name, layer in params[part].items():
            bound = np.sqrt(3 / layer["kernel"].shape[0])
            assert not layer["bias"].any()
            assert 0.95 * bound < abs(layer["kernel"]).max() <= bound, name
            if name == "hidden_1":
                assert abs(layer["kernel"].std() - bound / np.sqrt(3)) < 0.01 * bound


@pytest.mark.parametrize("continuous", [False, True])
def test_the_units_of_both_are_found(continuous):
    apply, params = made(continuous)
    groups = units.find(apply, params, X)
    assert [(g.name, g.size) for g in groups] == [
        ("policy/hidden_0", 16),
        ("policy/hidden_1", 8),
        ("value/hidden_0", 16),
        ("value/hidden_1", 8),
    ]


def test_unknown_activations_are_refused():
    with pytest.raises(ValueError, match="activation"):
        made(False, activation="rellu")
