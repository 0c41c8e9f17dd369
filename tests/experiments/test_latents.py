"""Latent weights of a finished study: what is loaded is what had learned."""

import functools

import jax
import numpy as np
import pytest

from experiments.launch import kept, running
from experiments.metaplasticity import config as configs
from experiments.metaplasticity import latents
from experiments.studies import learning
from loplax import supervised
from loplax.streams import datasets
from loplax.studies import results

pytestmark = pytest.mark.usefixtures("quick_compile")
NAME = "metaplasticity"
OPTIONS = latents.Options(examples=300, switched=0.02, runs=3)


@pytest.fixture(scope="module")
def workdir(changed, launched, tmp_path_factory):
    """A study of three arms, one of which has other options and numbers."""
    folder = tmp_path_factory.mktemp("kept") / "study"
    methods = ("metaplastic", "running_statistics+ewc")
    config = changed(configs.get_config("smoke"), methods=methods, keep_states=True)
    running.change(config, {"sweep.metaplastic.m": (0.0, 20.0), "ewc.examples": 100})
    launched(folder, NAME, config)
    return folder


@pytest.fixture(scope="module")
def arms(workdir):
    return kept.load(NAME, workdir)


def test_all_runs_come_back_in_the_order_of_the_results(workdir, arms):
    dataset = results.load(workdir)
    assert [arm.arm for arm in arms] == dataset["arm"].values.tolist()
    for arm in arms:
        assert arm.seeds.tolist() == [0, 1]
        assert arm.config.hidden == (8,)
    assert arms[1].state.hparams["metaplastic.m"].tolist() == [20, 20]
    assert arms[2].config.ewc.examples == 100


def test_what_comes_back_tests_as_it_did_at_the_end(workdir, arms):
    """Each task with its own norms, and the options of each method."""
    dataset = results.load(workdir)
    for arm in arms:
        build = learning.problem(arm.study, arm.config, arm.method)

        def test(state, data, build=build):
            problem = build(state.hparams, state.key_tx, data)
            return supervised.test(problem, state)["test_accuracy"]

        found = jax.jit(jax.vmap(test, (0, None)))(arm.state, arm.study.data)
        expected = dataset["test_accuracy"].sel(arm=arm.arm).isel(bin=-1)
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_run_alone_has_the_weights_that_were_kept(arms):
    arm = arms[1]
    learner, *_ = arm.study.method(arm.config, arm.method)
    numbers = {name: values[1] for name, values in arm.state.hparams.items()}
    state = jax.jit(learner.init)(
        jax.random.fold_in(jax.random.key(0), 1), numbers, arm.study.data
    )
    segment = jax.jit(learner.segment)
    for _ in range(arm.study.segments[0]):
        state, _ = segment(state, arm.study.data)
    same = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda one, all_: same(one, all_[1]), state.params, arm.state.params)
    assert set(latents.weights(arm)) == {"hidden_0/kernel", "output/kernel"}


def test_costs_are_those_of_the_loss_on_the_last_task(arms):
    """All of a bin are switched in the small output layer, in NumPy."""
    arm = arms[0]
    found = latents.costs(arm, OPTIONS)
    assert found["hidden_0/kernel"].mean.shape == (2, latents.BINS)
    kernel = np.asarray(arm.state.params["output"]["kernel"][0], float)
    relative = np.abs(kernel) / np.abs(kernel).max()
    group = np.minimum((relative * latents.BINS).astype(int), latents.BINS - 1)
    number = round(0.02 * kernel.size)
    counts = np.bincount(group.ravel(), minlength=latents.BINS)
    exact = np.flatnonzero(counts == number)
    assert exact.size
    state = jax.tree.map(lambda x: x[0], arm.state)
    problem = learning.problem(arm.study, arm.config, arm.method)(
        state.hparams, state.key_tx, arm.study.data
    )
    index = np.asarray(state.stream.order)[1500:][:594]
    images = np.asarray(arm.study.data[0][0])[index] / 255
    truth = np.asarray(arm.study.data[0][1])[index]

    def loss(output):
        params = state.params | {"output": {**state.params["output"], "kernel": output}}
        each = [
            problem.loss(
                problem.network.predict(params, state.stats, images[some]), truth[some]
            )
            for some in (slice(297), slice(297, None))
        ]
        return np.mean(each)

    for i in exact:
        switched = np.where(group == i, -kernel, kernel).astype(np.float32)
        cost = (loss(switched) - loss(kernel.astype(np.float32))) / number
        np.testing.assert_allclose(found["output/kernel"].mean[0, i], cost, rtol=1e-2)


def test_the_program_draws_and_tells(workdir, capsys):
    latents.main([str(workdir), "--runs=2", "--examples=300"])
    said = capsys.readouterr().out
    assert "metaplastic m=20" in said and "hidden_0/kernel" in said
    for name in ("latents", "switching"):
        assert (workdir / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--switched=2", "switched must be in"),
        ("--runs=0", "runs must be in"),
        ("--examples=-1", "examples must be in"),
    ],
)
def test_bad_flags_end_the_program(workdir, flag, reason):
    with pytest.raises(SystemExit, match=reason):
        latents.main([str(workdir), flag])


def test_a_study_without_states_or_of_something_else_is_refused(
    workdir, finished, monkeypatch, tmp_path, changed, launched
):
    with pytest.raises(FileNotFoundError, match="keep_states"):
        kept.load(NAME, finished[0])
    with pytest.raises(ValueError, match="problem must be one of"):
        kept.load("quadratic", workdir)
    load = datasets.load

    def other(name, *args, **how):
        found = load(name, *args, **how)
        return found._replace(train_images=found.train_images[::-1])

    monkeypatch.setattr(datasets, "load", other)
    with pytest.raises(ValueError, match="not the data"):
        kept.load(NAME, workdir)
