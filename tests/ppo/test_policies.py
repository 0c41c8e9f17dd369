"""Policies: densities, entropies and samples against SciPy and known values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces
from scipy import stats

from loplax.ppo import policies

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_a_gaussian_has_the_density_and_entropy_of_independent_normals():
    rng = np.random.default_rng(0)
    mean, log_std, action = rng.normal(size=(3, 5, 2)).astype(np.float32)
    policy = policies.gaussian(2)
    normal = stats.norm(mean, np.exp(log_std))
    outputs = (mean, log_std)
    np.testing.assert_allclose(
        policy.log_prob(outputs, action), normal.logpdf(action).sum(1), rtol=1e-5
    )
    np.testing.assert_allclose(
        policy.entropy(outputs), normal.entropy().sum(1), rtol=1e-5
    )


def test_a_categorical_has_the_probabilities_of_the_softmax():
    logits = jnp.log(jnp.array([[0.2, 0.3, 0.5], [1.0, 1.0, 1.0]])) + 7.0
    policy = policies.categorical(3)
    found = jnp.exp(policy.log_prob(logits, jnp.array([2, 0])))
    np.testing.assert_allclose(found, [0.5, 1 / 3], rtol=1e-5)
    known = [stats.entropy([0.2, 0.3, 0.5]), np.log(3)]
    np.testing.assert_allclose(policy.entropy(logits), known, rtol=1e-5)


def test_slopes_are_finite_where_an_action_is_certain():
    """Its probability is 1, and that of the other is below what float32 holds."""
    policy, logits = policies.categorical(2), jnp.array([0.0, 200.0])
    np.testing.assert_array_equal(jax.grad(policy.entropy)(logits), 0)
    slope = jax.grad(policy.log_prob)(logits, jnp.array(1))
    np.testing.assert_array_equal(slope, 0)


def test_samples_have_the_moments_of_the_distribution():
    key = jax.random.key(0)
    outputs = (jnp.full((100_000, 1), 2.0), jnp.full((100_000, 1), jnp.log(0.5)))
    drawn = policies.gaussian(1).sample(key, outputs)
    assert abs(drawn.mean() - 2) < 0.01 and abs(drawn.std() - 0.5) < 0.01
    logits = jnp.tile(jnp.log(jnp.array([0.25, 0.75])), (100_000, 1))
    drawn = policies.categorical(2).sample(key, logits)
    assert abs(drawn.mean() - 0.75) < 0.01


def test_the_policy_follows_from_the_action_space():
    found = policies.over(spaces.Discrete(4))
    assert (found.actions, found.continuous) == (4, False)
    found = policies.over(spaces.Box(-1.0, 1.0, (3,)))
    assert (found.actions, found.continuous) == (3, True)


@pytest.mark.parametrize("space", [spaces.Box(0, 1, (2, 2)), spaces.Tuple(())])
def test_other_action_spaces_are_refused(space):
    with pytest.raises(ValueError, match="actions must be Discrete or a Box"):
        policies.over(space)
