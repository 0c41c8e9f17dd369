"""As ``test_types``, for what the extras ``nets`` and ``studies`` bring."""

import pathlib
from collections.abc import Sequence
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray

from loplax import nets, units
from loplax.studies import continual, merging, results, statistics, sweep, watching

State = dict[str, jax.Array]
X, KEY = jnp.ones((8, 3)), jax.random.key(0)


def test_nets() -> None:
    net = nets.MLP(hidden=(4,), outputs=2, kernel_init=nets.pytorch_uniform())
    assert_type(net.hidden, Sequence[int])
    assert_type(net.kernel_init, jax.nn.initializers.Initializer | None)
    params: dict[str, Any] = net.init(KEY, X)["params"]
    bound = net.bind({"params": params})
    assert_type(bound, nets.MLP)
    assert_type(bound(X), jax.Array)
    assert_type(bound.embed(X), jax.Array)
    apply = lambda params, x: net.apply({"params": params}, x)
    assert_type(units.find(apply, params, X), units.Units)
    binary = nets.BinaryMLP(hidden=(4,), outputs=2, normalization="layer", dropout=0.5)
    assert_type(binary.bind(binary.init(KEY, X))(X, train=False), jax.Array)
    policy = nets.ActorCritic(hidden=(4,), actions=2, continuous=False)
    _, value = policy.bind(policy.init(KEY, X))(X)
    assert_type(value, jax.Array)
    assert_type(nets.resnet18_reference_units(width=4), units.Units)
    plain = lambda key: (net.init(key, X)["params"], ())
    start, wrap = nets.low_rank(plain, rank=2, scale=0.5)
    assert wrap(apply)(start(KEY)[0], X).shape == value.shape + (2,)


def init(key: jax.Array, hparams: State, data: Any) -> State:
    return {"x": hparams["size"] * jax.random.normal(key)}


def segment(state: State, data: Any) -> tuple[State, dict[str, jax.Array]]:
    return state, {"loss": state["x"][None]}


WALK = sweep.Method(sweep.Learner(init, segment), {"size": 1.0})


def test_a_study(tmp_path: pathlib.Path) -> None:
    told: list[watching.Progress] = []
    found = sweep.run(
        tmp_path / "study",
        {"walk": WALK},
        key=KEY,
        num_seeds=2,
        num_segments=1,
        steps_per_segment=1,
        settings={"size": [0.5, 1.0]},
        progress=False,
        on_segment=[told.append],
    )
    assert_type(found, xarray.Dataset)
    assert_type(told[0].metrics, dict[str, float])
    merging.merge(tmp_path / "merged", [tmp_path / "study"])
    assert_type(results.load(tmp_path / "merged"), xarray.Dataset)
    assert_type(results.counting(found, "loss"), xarray.DataArray)
    assert_type(statistics.summary(found, "loss", bins=[-1]), xarray.Dataset)
    best = statistics.best(found, "loss")
    assert_type(best, statistics.Best)
    assert_type(best.dataset, xarray.Dataset)
    assert best.dataset.sizes["arm"] == 1


def test_results_of_ones_own() -> None:
    kinds = {"task": (np.dtype("float32"), False), "acc": (np.dtype("float32"), True)}
    found = results.empty(["bp"], {}, [0], np.arange(1.0, 3), kinds, ["0", "1"])
    where = (np.array([0]), np.array([0]))
    values = {"task": np.array([[0.0, 1.0]]), "acc": np.ones((1, 2, 2))}
    results.record(found, where, 0, values)
    assert_type(continual.report(found, "acc"), xarray.Dataset)


def test_mistakes() -> None:
    """What is ignored here is an error, or mypy says that it need not be ignored."""
    with pytest.raises(ValueError, match="hidden must be integers"):
        nets.MLP(hidden=(0.5,), outputs=2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="outputs"):
        nets.BinaryMLP(hidden=(4,))  # type: ignore[call-arg]
    length: dict[str, Any] = {"num_segments": 1, "steps_per_segment": 1}
    with pytest.raises(ValueError, match="num_seeds is 0.5"):
        sweep.run(None, {"walk": WALK}, key=KEY, num_seeds=0.5, **length)  # type: ignore[arg-type]
