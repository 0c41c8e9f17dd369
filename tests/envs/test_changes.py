"""What the changes draw."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax import envs

pytestmark = pytest.mark.usefixtures("quick_compile")

KEYS = jax.random.split(jax.random.key(0), 2000)


def draws(change, params, task=1):
    return jax.vmap(change, (0, None, None))(KEYS, task, params)


def test_factors_are_log_uniform_and_independent():
    params = gymnax.make("Pendulum-v1")[1]
    new = draws(envs.scaled(g=(0.02, 2.0), m=(0.5, 0.5), l=(0.1, 10.0)), params)
    places = np.log(np.stack([new.g / 10 / 0.02, new.l / 0.1])) / np.log(100)
    quantiles = np.quantile(places, np.linspace(0, 1, 11), axis=1)
    np.testing.assert_allclose(quantiles.T, [np.linspace(0, 1, 11)] * 2, atol=0.04)
    assert abs(np.corrcoef(places)[0, 1]) < 0.1
    np.testing.assert_allclose(new.m, 0.5, rtol=1e-6)
    assert (new.dt == params.dt).all()


def test_the_first_task_has_the_parameters_as_they_are():
    _, params = gymnax.make("CartPole-v1")
    new = envs.scaled(gravity=(2.0, 3.0), masspole=(2.0, 3.0))(KEYS[0], 0, params)
    for name, value in vars(params).items():
        assert getattr(new, name) == np.float32(value), name


def test_what_follows_from_other_fields_of_cartpole_follows():
    _, params = gymnax.make("CartPole-v1")
    change = envs.scaled(masscart=(0.1, 10.0), masspole=(0.1, 10.0), length=(0.5, 2.0))
    new = draws(change, params)
    np.testing.assert_allclose(new.total_mass, new.masscart + new.masspole, rtol=1e-6)
    np.testing.assert_allclose(new.polemass_length, new.masspole * new.length, 1e-6)
    with pytest.raises(ValueError, match="field must be one of"):
        envs.scaled(total_mass=(0.5, 2.0))(KEYS[0], 1, params)


@pytest.mark.parametrize(
    ("name", "fields", "action"),
    [
        ("CartPole-v1", ("gravity", "length", "masspole", "force_mag"), 1),
        ("Acrobot-v1", ("link_length_1", "link_mass_2", "available_torque"), 2),
        ("MountainCar-v0", ("gravity", "force"), 2),
        ("Pendulum-v1", ("g", "m", "l", "max_torque"), 1.5),
        ("Reacher-misc", ("torque_scale", "dt"), 1.0),
    ],
)
def test_each_field_changes_the_motion(name, fields, action):
    env, params = gymnax.make(name)
    _, state = env.reset_env(KEYS[0], params)
    step = jax.jit(lambda params: env.step_env(KEYS[0], state, action, params)[1])
    own = step(params)
    for field in fields:
        new = step(envs.scaled(**{field: (0.5, 0.5)})(KEYS[0], 1, params))
        pairs = zip(jax.tree.leaves(new), jax.tree.leaves(own), strict=True)
        assert any((new != old).any() for new, old in pairs), field


def test_a_list_is_repeated_and_keeps_the_type_of_the_field():
    _, params = gymnax.make("CartPole-v1")
    change = envs.listed(gravity=(9.8, 5.0, 20.0), max_steps_in_episode=(500, 20))
    new = jax.vmap(change, (None, 0, None))(KEYS[0], jnp.arange(5), params)
    np.testing.assert_allclose(new.gravity, [9.8, 5.0, 20.0, 9.8, 5.0])
    assert new.max_steps_in_episode.tolist() == [500, 20, 500, 20, 500]
    assert new.max_steps_in_episode.dtype == jnp.int32


def test_permutations_are_drawn_uniformly():
    params = envs.Perturbed(gymnax.make("Pendulum-v1")[0]).default_params
    new = draws(envs.permuted(), params).permutation
    kinds, counts = np.unique(new, axis=0, return_counts=True)
    assert len(kinds) == 6
    assert (np.sort(kinds) == np.arange(3)).all()
    assert (abs(counts - 2000 / 6) < 80).all()
    assert draws(envs.permuted(), params, 0).permutation[7].tolist() == [0, 1, 2]


def test_offsets_are_normal_with_a_scale_for_each_element():
    params = envs.Perturbed(gymnax.make("Pendulum-v1")[0]).default_params
    scale = np.array([0.0, 1.0, 5.0])
    new = draws(envs.shifted(scale), params).offset
    np.testing.assert_allclose(new.std(0), scale, rtol=0.06)
    np.testing.assert_allclose(new.mean(0), 0, atol=0.4)
    assert not draws(envs.shifted(scale), params, 0).offset.any()


def test_settings_may_be_traced():
    _, params = gymnax.make("Pendulum-v1")

    def new(low, value):
        drawn = envs.scaled(g=(low, 2.0))(KEYS[0], 1, params).g
        return drawn, envs.listed(g=value[None])(KEYS[0], 1, params).g

    drawn, taken = jax.vmap(new)(jnp.array([0.1, 2.0]), jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(drawn[1], 20.0, rtol=1e-5)
    assert drawn[0] < 20
    assert taken.tolist() == [3, 4]


@pytest.mark.parametrize("bounds", [(0, 1), (2, 1), (-1, 1), (1, np.inf), (np.nan, 1)])
def test_ranges_are_checked(bounds):
    with pytest.raises(ValueError, match="gravity must have 0 < low <= high"):
        envs.scaled(gravity=bounds)


def test_scales_and_lists_are_checked():
    for scale in (-1.0, np.nan, np.array([1.0, np.inf])):
        with pytest.raises(ValueError, match=r"scale must be in \[0, inf\)"):
            envs.shifted(scale)
    with pytest.raises(ValueError, match="gravity needs at least one value"):
        envs.listed(gravity=[])
