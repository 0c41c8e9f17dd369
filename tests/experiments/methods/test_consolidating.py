"""What is frozen, merged and started anew in sessions, in whole runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.methods import composing
from experiments.methods.table import NAMED, PLUGINS
from experiments.stability_gap import config as configs
from experiments.stability_gap import study as stability_gap
from experiments.studies import learning
from loplax import optim, supervised
from loplax.units import paths

pytestmark = pytest.mark.usefixtures("quick_compile")

STEPS = 6
SMALL = {
    "hidden": (8,),
    "steps": STEPS,
    "every": 2,
    "train_examples": 200,
    "optimizer": "adamw",
    "adamw__learning_rate": 0.05,
    "adamw__weight_decay": 0.5,
    "lora__rank": 2,
    "cbp__replacement_rate": 0.0,
}
HEAD = {"output/bias", "output/kernel"}
ADAPTERS = {"low_rank/hidden_0/a", "low_rank/hidden_0/b"}
HIDDEN = {"hidden_0/bias", "hidden_0/kernel"}


@pytest.fixture(scope="module")
def runs(changed, tmp_path_factory):
    """``(method, known) -> (states, measures, problem)``, session by session.

    With ``known`` the network is trained before on the classes of the first session.
    """

    @functools.cache
    def run(name, known=False):
        pretrain = {"pretrain__steps": 3 * known}
        config = changed(configs.get_config("smoke"), **SMALL, **pretrain)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
            study = stability_gap.make(config)
            build = learning.problem(study, config, name)
            values = study.method(config, name).hparams
        hparams = {at: jnp.float32(value) for at, value in values.items()}
        parts = STEPS // config.every
        options = {"bins": parts, "bins_per_chunk": parts, "fresh": False}
        state = supervised.init(build, jax.random.key(0), hparams, study.data)
        one = jax.jit(functools.partial(supervised.segment, build, **options))
        states, found = [state], []
        for _ in range(study.bins // parts):
            state, measured = one(state, study.data)
            states.append(state)
            found.append(measured)
        return states, found, build(hparams, jax.random.key(1), study.data)

    return run


def moved(before, after):
    """The parameters, by path, of which some weight is another one."""
    pairs = (paths.by_path(state.params).leaves for state in (before, after))
    old, new = pairs
    return {name for name in new if not np.array_equal(old[name], new[name])}


# In the first session the whole network learns; in the second adapters may.
MOVING = {
    "er": (HIDDEN | HEAD, HIDDEN | HEAD),
    "er+head_only": (HIDDEN | HEAD, HEAD),
    "er+lora": (HIDDEN | HEAD, HEAD | ADAPTERS),
    "er+lora+cbp": (HIDDEN | HEAD, HEAD | ADAPTERS),
}


@pytest.mark.parametrize("name", MOVING)
def test_what_learns_in_which_session(runs, name):
    """All else stays bit by bit, though weights decay. (A is drawn anew once.)"""
    states, _, _ = runs(name)
    for expected, before, after in zip(
        MOVING[name], states[:-1], states[1:], strict=True
    ):
        assert moved(before, after) == expected
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states[-1].params))


def test_a_network_that_is_known_adapts_at_once(runs):
    (before, after), _, _ = runs("er+lora", known=True)
    assert moved(before, after) == MOVING["er+lora"][1]


def test_adapters_are_nothing_until_they_learn(runs):
    """Runs with and without are the same to the end of the first session."""
    states, found, _ = runs("er+lora")
    plain, expected, _ = runs("er")
    bare = {k: v for k, v in states[1].params.items() if k != "low_rank"}
    jax.tree.map(np.testing.assert_array_equal, bare, plain[1].params)
    assert not states[1].params["low_rank"]["hidden_0"]["b"].any()
    assert states[2].params["low_rank"]["hidden_0"]["b"].any()
    for name in ("loss", "test_accuracy", "test_loss"):
        np.testing.assert_array_equal(found[0][name], expected[0][name])
    assert (found[1]["test_loss"][1] != expected[1]["test_loss"][1]).any()


def test_merging_at_a_session_leaves_outputs_and_starts_the_optimiser_anew(runs):
    states, _, problem = runs("er+lora")
    state = states[2]
    (on_task,) = problem.on_task
    merged = jax.jit(on_task)(state, jax.random.key(5))
    x, _ = problem.stream.probe(state.stream)
    before, after = (
        problem.network.predict(s.params, s.stats, x) for s in (state, merged)
    )
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    own = merged.params["low_rank"]["hidden_0"]
    assert not own["b"].any()
    assert not np.isin(own["a"], state.params["low_rank"]["hidden_0"]["a"]).any()
    assert isinstance(merged.opt, optim.FrozenState)
    assert not any(leaf.any() for leaf in jax.tree.leaves(merged.opt))
    assert optax.tree.get(state.opt, "count") == STEPS


def test_merging_leaves_what_replaces_units_as_it_is(runs):
    """It stands around the optimiser, and its units have no bottleneck among them."""
    states, _, problem = runs("er+lora+cbp")
    state = states[2]
    merged = jax.jit(problem.on_task[0])(state, jax.random.key(5))
    assert isinstance(merged.opt.inner, optim.FrozenState)
    assert not any(leaf.any() for leaf in jax.tree.leaves(merged.opt.inner))
    same = lambda opt: (opt.units, opt.count)
    jax.tree.map(np.testing.assert_array_equal, same(merged.opt), same(state.opt))
    assert set(state.opt.units) == {"hidden_0"} == set(problem.groups.names)
    (group,) = problem.groups
    assert {axis.path for axis in group.incoming} == {
        "hidden_0/kernel",
        "low_rank/hidden_0/b",
    }


@pytest.mark.parametrize(
    ("name", "known"), [("er+freeze_old_outputs", False), ("sgm", True)]
)
def test_outputs_of_old_classes_stay_bit_by_bit(runs, name, known):
    states, _, problem = runs(name, known)
    before, after = states[-2:]
    old = np.asarray(problem.stream.old_classes(after.stream))
    assert old.sum() == 6
    kernels = [np.asarray(s.params["output"]["kernel"]) for s in (before, after)]
    biases = [np.asarray(s.params["output"]["bias"]) for s in (before, after)]
    np.testing.assert_array_equal(kernels[0][:, old], kernels[1][:, old])
    np.testing.assert_array_equal(biases[0][old], biases[1][old])
    assert (kernels[0][:, ~old] != kernels[1][:, ~old]).any(axis=0).all()
    assert (biases[0][~old] != biases[1][~old]).all()


def test_a_session_begins_tested_after_the_start_of_new_outputs(runs):
    """And before the first step."""
    _, found, _ = runs("sgm", known=True)
    _, plain, _ = runs("er", known=True)
    new, old = 2, 1  # of base, old, new, all
    assert found[0]["test_loss_start"][0][new] < plain[0]["test_loss_start"][0][new]
    assert np.isfinite(found[0]["test_loss_start"][0][old])


def test_the_one_cycle_begins_anew_in_every_session(runs):
    """The first step of a session is as long as the first of its schedule."""
    states, _, problem = runs("er+one_cycle")
    schedule = optax.cosine_onecycle_schedule(1000, 1.0)
    for state in states[:2]:
        stream, items = problem.stream.draw(state.stream)
        state = state._replace(stream=stream)
        for number in (0, 3):
            item = jax.tree.map(lambda x, n=number: x[n], items)
            seen = supervised.Seen(item, (), (), (), ())
            progress = problem.extra_args["progress"](state, seen)
            assert float(progress) == number / STEPS
        none = jax.tree.map(jnp.zeros_like, state.params)
        opt = problem.tx.init(state.params)
        update = lambda progress, none=none, opt=opt, state=state: problem.tx.update(
            none, opt, state.params, progress=progress
        )[0]["output"]["kernel"]
        ratio = np.asarray(update(0.5) / update(0.3))
        np.testing.assert_allclose(ratio, schedule(500), rtol=1e-2)


# Names of lists of plugins.


def test_a_name_stands_for_its_plugins(toy):
    config = toy.configured()
    for name, listed in NAMED.items():
        found = composing.method(config, name)
        assert found == composing.method(config, listed.plugins)._replace(name=name)
        assert set(found.plugins) <= set(PLUGINS)
    sgm = composing.method(config, "sgm+cbp")
    assert list(sgm.plugins)[1:] == [*NAMED["sgm"].plugins.split("+"), "cbp"]
    assert sgm.described["plugins"] == list(sgm.plugins)
    assert composing.label("sgm+cbp") == "SGM + continual backprop"
    assert composing.colour("sgm") == NAMED["sgm"].colour


def test_names_are_told_apart():
    assert not set(NAMED) & set(PLUGINS)
    shown = [*PLUGINS.values(), *NAMED.values()]
    for field in ("label", "colour"):
        assert len({getattr(each, field) for each in shown}) == len(shown)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("smg", "'smg'; did you mean 'sgm'"),
        ("sgm+er", "names a plugin twice"),
        ("sgm+sgm", "names a plugin twice"),
        ("sgm+least_squares", "class_mean and least_squares both claim"),
        ("lora+sgm+head_only", "lora and head_only both|names a plugin twice"),
        ("sgm+der", "both claim"),
    ],
)
def test_what_does_not_go_with_a_name_is_refused(toy, name, match):
    with pytest.raises(ValueError, match=match):
        composing.method(toy.configured(), name)
