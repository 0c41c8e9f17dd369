"""Metaplasticity: what its configurations mean, and small studies."""

import functools
import json

import jax
import numpy as np
import pytest

from experiments.figures import figures
from experiments.launch import running
from experiments.metaplasticity import config as configs
from experiments.metaplasticity import plot, study
from experiments.studies import learning, sessions
from loplax import supervised
from loplax.optim import consolidation
from loplax.units import paths

pytestmark = pytest.mark.usefixtures("quick_compile")
NAME = "metaplasticity"


@pytest.fixture(scope="module")
def tiny(changed):
    """``(a__b=value) -> config`` of the digits, in few steps."""
    return lambda **new: changed(configs.get_config("smoke"), **new)


@pytest.fixture(scope="module")
def found(tiny, launched):
    config = tiny(methods=("bp", "metaplastic"), steps=60, every=60)
    running.change(config, {"sweep.metaplastic.m": (0.0, 20.0)})
    return launched(None, NAME, config)


def test_without_m_it_is_the_optimiser_alone(found):
    bp, none, some = (found["test_accuracy"].isel(arm=i).values for i in range(3))
    np.testing.assert_array_equal(bp, none)
    assert not np.array_equal(bp, some, equal_nan=True)


def test_the_units_are_those_of_the_latent_weights(tiny):
    config = tiny()
    made = study.make(config)
    build = learning.problem(made, config, "metaplastic")
    values = made.method(config, "metaplastic").hparams
    problem = build(values, jax.random.key(0), made.data)
    (group,) = problem.groups
    assert group.name == "hidden_0" and group.size == 8
    axes = (*group.incoming, *group.outgoing)
    assert {axis.through for axis in axes} == {"sign"}
    assert problem.stream.test.subsets == ("0", "1")


def test_tasks_are_tested_with_their_own_norms_or_not(tiny, launched):
    """The present task is the same; only what came before differs."""
    own, shared = (
        launched(None, NAME, tiny(methods=("bp",), task_norms=norms))["test_accuracy"]
        for norms in (True, False)
    )
    last = lambda values, task: values.isel(bin=-1).sel(subset=task).values
    np.testing.assert_array_equal(last(own, "1"), last(shared, "1"))
    assert (last(own, "0") != last(shared, "0")).any()


@pytest.mark.parametrize("method", ["ewc", "random_consolidation", "mas"])
def test_what_is_held_of_a_latent_weight_is_its_sign(tiny, method):
    """Right after a task the penalty pulls nowhere, however strong."""
    config = tiny(methods=(f"running_statistics+{method}",))
    made = study.make(config)
    build = learning.problem(made, config, config.methods[0])
    values = made.method(config, config.methods[0]).hparams
    state = supervised.init(build, jax.random.key(0), values, made.data)
    segment = functools.partial(supervised.segment, build, bins=1, fresh=False)
    state = jax.jit(segment)(state, made.data)[0]
    is_one = lambda part: isinstance(part, consolidation.ConsolidationState)
    (found,) = filter(is_one, jax.tree.leaves(state.opt, is_leaf=is_one))
    anchors = paths.by_path(found.anchor).leaves
    assert sorted(anchors) == ["hidden_0/kernel", "output/kernel"]
    for path, anchor in anchors.items():
        now = np.sign(paths.by_path(state.params).leaves[path])
        held = paths.by_path(found.importance).leaves[path] > 0
        assert held.any()
        np.testing.assert_array_equal(anchor[held], now[held])


@pytest.mark.parametrize("method", ["ewc", "random_consolidation", "si", "mas"])
def test_consolidation_acts_on_the_second_task_only(tiny, launched, method):
    new = {"methods": ("running_statistics", f"running_statistics+{method}")}
    data = launched(None, NAME, tiny(**new, **{f"{method}__strength": 1000.0}))
    plain, held = data["loss"].transpose("arm", "seed", "bin").values
    np.testing.assert_allclose(plain[:, 0], held[:, 0], rtol=1e-5)
    assert (np.abs(plain[:, 1] - held[:, 1]) > 1e-4).all()


def test_the_path_of_signs_holds_other_weights(tiny, launched):
    """From the second task on; a choice is swept as an arm of its own."""
    config = tiny(methods=("running_statistics+si",), si__strength=1000.0)
    running.change(config, {"sweep.si.path": ("weight", "sign")})
    data = launched(None, NAME, config)["loss"].transpose("arm", "seed", "bin").values
    np.testing.assert_array_equal(data[0, :, 0], data[1, :, 0])
    assert (data[0, :, 1] != data[1, :, 1]).all()


def test_units_are_released_while_it_learns(tiny, launched):
    """Every magnitude, in one program, learns other weights than none."""
    methods = ("metaplastic", "metaplastic+release", "release")
    release = {"replacement_rate": 0.1, "maturity_threshold": 5}
    config = tiny(methods=methods, metaplastic__m=10.0)
    running.change(config, {f"release.{name}": x for name, x in release.items()})
    running.change(config, {"sweep.release.magnitude": (0.001, 0.1)})
    losses = launched(None, NAME, config)["loss"].transpose("arm", "seed", "bin").values
    assert np.isfinite(losses).all() and len(losses) == 5
    assert len(np.unique(losses[:, 0, -1])) == 5


def test_units_of_real_weights_are_not_released(tiny, launched, small):
    with pytest.raises(ValueError, match="real_weights and release both claim binary"):
        launched(None, NAME, tiny(methods=("real_weights+release",)))
    config = small(methods=("release",))
    with pytest.raises(ValueError, match="release needs a network with .* binary"):
        launched(None, "slowly_changing_regression", config)


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ({"methods": ("release",), "release__magnitude": 0.0}, "release must be in"),
        ({"methods": ("ewc",)}, "statistics of a batch"),
        ({"methods": ("crelu",)}, "crelu needs a network with"),
        ({"methods": ("ewc+mas+running_statistics",)}, "ewc.*mas"),
        ({"normalization": "none"}, "normalization"),
        ({"order": "tasks"}, "order"),
        ({"subsets": "recent"}, "subsets are its tasks"),
    ],
)
def test_what_cannot_be_is_refused(tiny, launched, new, words):
    with pytest.raises(ValueError, match=words):
        launched(None, NAME, tiny(**new))


def test_data_sets_follow_each_other_with_the_same_outputs(tiny):
    config = tiny(dataset="digits+digits", order="datasets", batch=10)
    made = study.make(config)
    (images, labels), (_, wanted) = made.data
    assert images.shape == (3000, 64) and wanted.size == 594
    np.testing.assert_array_equal(labels[:1500], labels[1500:])
    state = made.stream(made.data, {}).init(jax.random.key(0))
    assert np.diff(state.starts).tolist() == [1500, 1500]


def test_figures_say_of_every_order_what_it_is(tiny):
    config = json.loads(tiny().to_json())
    told = {
        order: sessions.about(config | {"order": order}) for order in sessions.ORDERS
    }
    assert len(set(told.values())) == len(told)
    assert told["permutations"] == "digits, 2 permutations of the pixels"


def test_table_and_figures_tell_learning_from_remembering(found):
    """By hand: the diagonal of the accuracy matrix, and its last row."""
    drawn = figures.draw(found, plot.FIGURE)
    assert {"figure", "tasks", "sweep"} <= drawn.keys() and "over_tasks" not in drawn
    ends = found["test_accuracy"].transpose("arm", "seed", "bin", "subset").values
    given = {name: each.values for name, each in plot.columns(found).items()}
    last = ends[:, :, 1]
    learned = (ends[:, :, 0, 0] + last[..., 1]) / 2
    expected = {"when learned": learned, "oldest task": last[..., 0]}
    assert given.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(given[name], values, rtol=1e-6)
    # Over m: the mean of all tasks, and both of these; a line beside it is backprop.
    shown = [last.mean(-1), *expected.values()]
    for axes, values in zip(drawn["sweep"].axes, shown, strict=True):
        bp, *metaplastic = values.mean(1)
        (container,) = axes.containers
        assert container.lines[0].get_xdata().tolist() == [0.0, 20.0]
        np.testing.assert_allclose(container.lines[0].get_ydata(), metaplastic)
        assert any(np.allclose(line.get_ydata(), bp) for line in axes.lines)


@pytest.fixture(scope="module")
def many(tiny, launched):
    """``subsets -> results`` of more tasks than are shown one by one."""

    @functools.cache
    def run(subsets):
        new = {"sessions": 13, "subsets": subsets, "task_norms": False, "steps": 5}
        new |= {"train_examples": 100, "test_examples": 20, "methods": ("bp",)}
        return launched(None, NAME, tiny(**new, every=5, running=True))

    return run


@pytest.mark.parametrize("subsets", ["recent", "last_five", "sessions"])
def test_many_tasks_are_shown_as_a_course(many, subsets):
    """Accuracy on the new one, and on what came before, from the matrix of tasks."""
    matrix = many("sessions")["test_accuracy"].isel(arm=0).values
    task = np.arange(13)
    before = np.array([matrix[:, k, k - 1] for k in task[1:]])
    five = [matrix[:, k, max(k - 4, 0) : k + 1].mean(-1) for k in task]
    earlier = [matrix[:, k, :k].mean(-1) for k in task[1:]]
    nothing = np.full((1, 2), np.nan)
    kinds = {
        "new task": matrix[:, task, task].T,
        "task before": np.concatenate([nothing, before]),
        "last five tasks": np.array(five),
        "earlier tasks": np.concatenate([nothing, earlier]),
    }
    dataset = many(subsets)
    figure = figures.draw(dataset, plot.FIGURE)["over_tasks"]
    expected = {axes.get_title(): kinds[axes.get_title()] for axes in figure.axes}
    wanted = {"recent": "task before", "sessions": "earlier tasks"}
    assert len(expected) == 3 if subsets == "last_five" else wanted[subsets] in expected
    for axes in figure.axes:
        of_five = np.nanmean(expected[axes.get_title()][5:10])
        np.testing.assert_allclose(axes.lines[0].get_ydata()[1], of_five, rtol=1e-5)
    given = plot.columns(dataset)
    if subsets == "sessions":
        np.testing.assert_allclose(given["oldest task"][0], matrix[:, -1, 0])
        return
    for name, values in expected.items():
        np.testing.assert_allclose(given[name][0], values[3:].mean(0), rtol=1e-5)


@pytest.fixture
def features(tmp_path):
    """A file of two features and eight more, all above 0, that tell four classes."""
    rng = np.random.default_rng(0)
    numbers = {"train": 400, "test": 80}
    labels = {part: np.arange(number) % 4 for part, number in numbers.items()}
    centres = rng.uniform(1.0, 3.0, size=(4, 10))
    made = {f"{part}_y": y for part, y in labels.items()}
    for part, y in labels.items():
        made[f"{part}_x"] = centres[y] + rng.uniform(0.0, 0.5, size=(y.size, 10))
    np.savez(tmp_path / "own.npz", **made)
    return tmp_path


def from_file(changed, **new):
    sizes = {"dataset": "own.npz", "classes": (2, 2), "hidden": (16,), "seeds": 2}
    sizes |= {"steps": 100, "every": 100, "batch": 20}
    return changed(configs.get_config("features"), **sizes | new)


def test_features_of_ones_own_are_learned(changed, launched, features):
    """Classes in two sessions, of four."""
    config = from_file(changed)
    data = launched(None, NAME, config, data_dir=str(features))
    learned = plot.columns(data)["when learned"].values
    assert data.sizes["subset"] == 2 and (learned > 0.8).all()
    about = sessions.about(json.loads(config.to_json()) | {"dataset": "a/own.npz"})
    assert about == "own.npz, classes in sessions of 2, 2"


def test_signs_of_features_are_taken_around_their_mean(changed, features):
    """So that neither a shift nor a factor of an example counts."""
    config = from_file(changed)
    made = study.make(config, str(features))
    network = made.network({})
    params, stats = network.init(jax.random.key(0))
    x = np.asarray(made.data[0][0][:8])
    shown = lambda x: network.predict(params, stats, x)
    np.testing.assert_array_equal(shown(x), shown(np.sign(x - x.mean(1)[:, None])))
    np.testing.assert_array_equal(shown(x), shown(2 * x + 8))
    assert np.unique(shown(x)).size > 10


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"dataset": "features.npz"}, "features.npz is not there"),
        ({"classes": (2, 3)}, "must sum to 4 classes"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(changed, features, new, message):
    with pytest.raises(ValueError, match=message):
        study.make(from_file(changed, **new), str(features))
