"""Plugins that change the network, or what becomes of it at a new task."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.methods.plugin import Plugin, Stage
from loplax import checks, nets
from loplax.supervised import Keeper, Network, tasks


def _injected(network, shape, *, injection_step):
    checks.whole("injection_step", injection_step, 0)
    new = nets.plasticity_injection(*network[:3], step=injection_step)
    return Network(*new, per_example=network.per_example)


def _in_turn(inner, setting, *, injection_step):
    checks.whole("injection_step", injection_step, 0)
    return nets.learn_in_turn(inner, injection_step)


def _normalized(network: Network, shape, *, decay_rate) -> Network:
    checks.in_range("decay_rate", decay_rate, 0, 1)
    normalization = nets.input_normalization

    def init(key):
        params, stats = network.init(key)
        return params, (normalization.init(shape), stats)

    def apply(params, both, x):
        seen = normalization.update(both[0], x, decay_rate)
        outputs, stats = network.apply(
            params, both[1], normalization.normalize(seen, x)
        )
        return outputs, (seen, stats)

    def predict(params, both, x):
        return network.predict(params, both[1], normalization.normalize(both[0], x))

    def restart(both, replaced):
        return both[0], network.restart(both[1], replaced)

    def embed(params, both, x):
        return network.embed(params, both[1], normalization.normalize(both[0], x))

    return network._replace(
        init=init,
        apply=apply,
        predict=predict,
        restart=restart,
        embed=network.embed and embed,
    )


class _Mean(NamedTuple):
    """A mean of weights: ``params`` and ``stats``."""

    params: Any
    stats: Any


def _ema(problem, *, decay_rate) -> Keeper:
    """Keeps the moving mean of the weights, which begins as the first of them."""
    checks.in_range("decay_rate", decay_rate, 0, 1)
    move = lambda old, new: decay_rate * old + (1 - decay_rate) * new

    def on_step(state, seen):
        params = jax.tree.map(move, state.memory["ema"].params, state.params)
        memory = {**state.memory, "ema": _Mean(params, state.stats)}
        return state._replace(memory=memory)

    copy = lambda state: jax.tree.map(jnp.copy, _Mean(state.params, state.stats))
    return Keeper("ema", copy, on_step=on_step)


NETWORKS = {
    "bp": Plugin(
        "backprop",
        "#D55E00",
        does="plain backprop",
    ),
    "real_weights": Plugin(
        "real weights",
        "#3f3f46",
        options={"binary": False},
        compared=False,
        does="real weights and ReLU in a network that can be binarised",
        made_by="loplax.nets.BinaryMLP",
    ),
    "running_statistics": Plugin(
        "running statistics",
        "#bdbdbd",
        does="tests a network with batch norm with its running statistics",
        made_by="loplax.nets.BinaryMLP",
        note="Not with the statistics of the batch that is tested.",
        options={"running": True},
        tints=False,
        compared=False,
    ),
    "linear": Plugin(
        "linear model",
        "#999999",
        options={"linear": True},
        does="the network without its hidden layers",
    ),
    "layer_norm": Plugin(
        "layer norm",
        "#6a51a3",
        options={"normalization": "layer"},
        does="a layer norm before each activation",
        paper="Ba et al. 2016",
        made_by="loplax.nets.MLP",
    ),
    "crelu": Plugin(
        "CReLU",
        "#9e9ac8",
        options={"activation": "crelu"},
        does="activations relu(x) and relu(-x) of half the units",
        paper="Abbas et al. 2023",
        made_by="loplax.nets.crelu",
    ),
    "input_normalization": Plugin(
        "input normalisation",
        "#17becf",
        {"decay_rate": 0.999, "weight_decay": 0.0},
        does="moving mean and variance of the inputs",
        made_by="loplax.nets.input_normalization",
        note=(
            "Longer inputs make larger steps, and so need the decay added to the "
            "gradient."
        ),
        sets=("weight_decay",),
        around=_normalized,
    ),
    "plasticity_injection": Plugin(
        "plasticity injection",
        "#d6616b",
        {"injection_step": 0},
        does="freezes the network, and adds a new one that starts at 0",
        paper="Nikishin et al. 2023",
        made_by="loplax.nets.plasticity_injection",
        note="The step is in items of the stream.",
        halfway=("injection_step",),
        claims=("replacement", "learning_weights"),
        wrap=_in_turn,
        stage=Stage.RATE,
        around=_injected,
        draws_output=True,
    ),
    "ema": Plugin(
        "mean of weights",
        "#bcbd22",
        {"decay_rate": 0.999},
        does="tests a moving mean of the weights too",
        paper="Polyak & Juditsky 1992",
        note="The mean is tested beside the weights that learn, as `ema_`.",
        compared=False,  # it needs something to be tested on
        claims=("mean_of_weights",),  # of adapters, a mean would be of their factors
        keeper=_ema,
        evaluated=lambda problem, decay_rate: {
            "ema": lambda state: tuple(state.memory["ema"])
        },
    ),
    "head_reset": Plugin(
        "head reset",
        "#ad494a",
        does="the output layer starts anew at each task",
        paper="Nikishin et al. 2022",
        made_by="loplax.supervised.tasks.reset_head",
        claims=("restart",),
        on_task=lambda problem: tasks.reset_head(problem, zero=False),
    ),
    "full_reset": Plugin(
        "retrained",
        "#222222",
        does="everything starts anew at each task",
        paper="Nikishin et al. 2022",
        made_by="loplax.supervised.tasks.reset_all",
        claims=("restart",),
        on_task=tasks.reset_all,
    ),
}
