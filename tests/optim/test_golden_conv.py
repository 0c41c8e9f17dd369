"""One recorded step of the authors' convolutional network is reproduced.

The network has three convolutions with pools, and reads the last map flattened. There a
unit has one row of outgoing weights per position, and its utility is the mean over the
positions of |weight| times the |activation| at that position.
"""

import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import nets, optim, units
from loplax.optim import paths
from loplax.optim.continual_backprop import Budget, UnitStatistics

FILE = pathlib.Path(__file__).parents[1] / "golden" / "conv_sgd_contribution.npz"
LAYERS = 6


def load():
    with np.load(FILE) as file:
        data = {key.removeprefix("01/"): file[key] for key in file.files}
    return ast.literal_eval(str(data.pop("meta"))), data


META, DATA = load()


class Nchw:
    """The network as a plain function, in the layout of the record."""

    images = staticmethod(lambda x: x)

    def apply(self, params, x):
        for i in range(3):
            w, b = params[f"w{i}"], params[f"b{i}"]
            x = jax.lax.conv_general_dilated(x, w, (1, 1), "VALID")
            x = jax.nn.relu(x + b[:, None, None])
            window = (1, 1, 2, 2)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        x = x.reshape(len(x), -1)
        for i in range(3, LAYERS):
            x = x @ params[f"w{i}"].T + params[f"b{i}"]
            x = jax.nn.relu(x) if i + 1 < LAYERS else x
        return x

    def params(self, prefix):
        return {
            f"{k}{i}": DATA[f"{prefix}/{k}{i}"] for i in range(LAYERS) for k in "wb"
        }


class Linen:
    """The network of Continual ImageNet: channels last, kernels transposed."""

    names = ("conv_0", "conv_1", "conv_2", "hidden_0", "hidden_1", "output")
    images = staticmethod(lambda x: np.moveaxis(x, 1, -1))

    def apply(self, params, x):
        return nets.ConvNet(outputs=2).apply({"params": params}, x)

    def params(self, prefix):
        layers = {}
        for i, name in enumerate(self.names):
            kernel = DATA[f"{prefix}/w{i}"]
            if i == 3:  # channel, row, column -> row, column, channel
                kernel = kernel.reshape(-1, 128, 2, 2).transpose(0, 2, 3, 1)
                kernel = kernel.reshape(len(kernel), -1)
            kernel = kernel.transpose(2, 3, 1, 0) if i < 3 else kernel.T
            layers[name] = {"kernel": kernel, "bias": DATA[f"{prefix}/b{i}"]}
        dense = {name: layers.pop(name) for name in self.names[3:]}
        return layers | {"dense": dense}


def statistics(prefix, name, i, positions):
    age = DATA[f"{prefix}/age{i}"].astype(np.int32)
    mean = np.broadcast_to(DATA[f"{prefix}/act{i}"], (*positions, len(age)))
    return UnitStatistics(
        age=jnp.asarray(age),
        discount=jnp.float32(META["decay_rate"]) ** age,
        mean_activation={name: jnp.asarray(mean, jnp.float32)},
        utility=jnp.asarray(DATA[f"{prefix}/util{i}"], jnp.float32),
        budget=Budget(jnp.float32(DATA[f"{prefix}/acc{i}"]), jnp.float32(0)),
    )


def step(net, rate):
    """The recorded step; returns groups, state and parameters."""
    params = jax.tree.map(jnp.asarray, net.params("before"))
    x, y = jnp.asarray(net.images(DATA["x"])), jnp.asarray(DATA["y"])
    groups = units.find(net.apply, params, x)
    tx = optim.continual_backprop(
        optax.sgd(META["lr"]),
        groups,
        replacement_rate=rate,
        maturity_threshold=META["maturity_threshold"],
        decay_rate=META["decay_rate"],
        utility=META["util"],
        budget="all",
        initializer=jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        key=jax.random.key(0),
    )

    @jax.jit
    def run(params, state):
        def loss(params):
            logits, features = units.tap(net.apply)(params, x)
            losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)
            return losses.mean(), features

        grads, features = jax.grad(loss, has_aux=True)(params)
        updates, state = tx.update(grads, state, params, features=features)
        return optax.apply_updates(params, updates), state

    known = {
        group.name: statistics("before", group.name, i, group.features[group.name])
        for i, group in enumerate(groups)
    }
    params, state = run(params, tx.init(params)._replace(units=known))
    return groups, state, params


@pytest.fixture(scope="module", params=[Nchw, Linen], ids=["NCHW", "ConvNet"])
def net(request):
    return request.param()


def test_the_ranking_of_all_units(net):
    """``ucorr``, what units are ranked by, in a step that replaces nothing."""
    groups, state, _ = step(net, 0.0)
    assert [group.size for group in groups] == [32, 64, 128, 128, 128]
    assert groups[2].features == {groups[2].name: (4,)}
    for i, group in enumerate(groups):
        known, expected = state.units[group.name], DATA[f"after/ucorr{i}"]
        ranking = known.utility / (1 - known.discount)
        np.testing.assert_allclose(
            ranking, expected, rtol=1e-4, atol=1e-4 * expected.max()
        )


def test_the_step(net):
    """The units replaced, their statistics, the budget, and every weight."""
    groups, state, params = step(net, META["replacement_rate"])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6)
    drawn = jax.tree.map(lambda x: np.zeros(x.shape, bool), params)
    for i, group in enumerate(groups):
        known = state.units[group.name]
        replaced = np.flatnonzero(state.replaced[group.name])
        np.testing.assert_array_equal(replaced, DATA[f"replaced{i}"])
        np.testing.assert_array_equal(known.age, DATA[f"after/age{i}"])
        close(known.utility, DATA[f"after/util{i}"])
        mean = known.mean_activation[group.name].reshape(-1, group.size).mean(axis=0)
        close(mean, DATA[f"after/act{i}"])
        close(sum(known.budget), DATA[f"after/acc{i}"])
        (axis,) = group.incoming
        leaves, weight = (paths.by_path(x).leaves[axis.path] for x in (drawn, params))
        np.copyto(leaves, axis.spread(state.replaced[group.name], weight.shape))
        bound = np.sqrt(group.size / weight.size)
        assert np.all(np.abs(weight[leaves]) <= bound * 1.001)
    expected = net.params("after")
    jax.tree.map(
        lambda new, old, random: close(new[~random], old[~random]),
        jax.tree.map(np.asarray, params),
        expected,
        drawn,
    )
