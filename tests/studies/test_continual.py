"""What a report says of results on disk, of tasks and of classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from loplax.studies import continual, results, sweep

NAN = np.nan

# Two tasks of four bins; one update of ten examples in each bin.
TASK = np.repeat([0.0, 1.0], 4)
TASKS = np.array(
    [
        [0.50, 0.00],
        [0.60, 0.10],
        [0.80, 0.10],
        [0.75, 0.20],
        [0.30, 0.40],
        [0.20, 0.60],
        [0.60, 0.80],
        [0.70, 0.80],
    ]
)
STARTS = np.full((8, 2), NAN)
STARTS[0], STARTS[4] = [0.25, 0.0], [0.70, 0.25]


def study(accuracy, starts, subsets, task=TASK, arms=("bp",), bins=None, recorded=None):
    """Results of one seed; ``accuracy [arms, bins, subsets]``."""
    kinds = {
        "loss": (np.dtype("float32"), False),
        "task": (np.dtype("int32"), False),
        "test_accuracy": (np.dtype("float64"), True),
    }
    if starts is not None:
        kinds["test_accuracy_start"] = (np.dtype("float64"), True)
    kinds = {n: (results.kept_as(dtype), apart) for n, (dtype, apart) in kinds.items()}
    steps = 10.0 * np.arange(1, len(task) + 1)
    found = results.empty(arms, {}, [0], steps, kinds, subsets)
    accuracy = np.broadcast_to(accuracy, (len(arms), len(task), len(subsets)))
    each = {
        "task": np.broadcast_to(task, accuracy.shape[:2]),
        "test_accuracy": accuracy,
    }
    each["loss"] = np.ones(accuracy.shape[:2])
    if starts is not None:
        each["test_accuracy_start"] = np.broadcast_to(starts, accuracy.shape)
    where = (np.arange(len(arms)), np.zeros(len(arms), int))
    results.record(found, where, 0, {n: x[:, :recorded] for n, x in each.items()})
    return found


def value(table, name, **at):
    return table[name].isel(arm=0, seed=0).sel(**at).values


def test_a_report_of_tasks_by_hand():
    table = continual.report(study(TASKS, STARTS, ["0", "1"]))
    assert table["subset"].values.tolist() == ["0", "1", "old", "new", "all"]
    expected = {
        "average_accuracy": [0.75, 0.75],
        "average_incremental_accuracy": 0.75,
        "learning_accuracy": (0.75 + 0.8) / 2,
        "forward_transfer": 0.2 - 0.0,
        "forgetting_from_last": [NAN, 0.05],
        "forgetting_from_max": [NAN, 0.05],
        "backward_transfer": [NAN, -0.05],
        "min_accuracy": [NAN, 0.2],
        "worst_case_accuracy": [0.75, 0.5],
        "time_to_own_best": [30, 30],
        "learning_curve_area": [NAN, NAN],  # there are no ten evaluations
        "time_to_target": [NAN, NAN],
        "speed_up": [NAN, NAN],
        "intransigence": [NAN, NAN],
    }
    for name, wanted in expected.items():
        np.testing.assert_allclose(value(table, name), wanted, atol=1e-6, err_msg=name)
    per_subset = {
        "accuracy": [0.7, 0.8, 0.7, 0.8, 0.75],
        # The session before ended at .75 and .2; new and all begin at .25 and .475.
        "drop_depth": [0.55, -0.05, 0.55, 0, 0.475 - 0.35],
        # Medians of (.7 .3 .2), (.3 .2 .6), (.2 .6 .7); of all the first is .4.
        "drop_depth_smoothed": [0.45, -0.2, 0.45, -0.15, 0.475 - 0.4],
        "recovery_time_before": [np.inf, 0, np.inf, 0, 30],
        "recovery_time_joint": [NAN] * 5,
        # The first falls from .75 to .2, the second never; all is their mean.
        "windowed_forgetting_10": [0.6, 0, 0.6, 0, 0.3],
        "windowed_plasticity_10": [0.5, 0.4, 0.5, 0.4, 0.45],
    }
    for name, wanted in per_subset.items():
        found = value(table, name, session=1)
        np.testing.assert_allclose(found, wanted, atol=1e-6, err_msg=name)
    old = np.array([0.7, 0.3, 0.2, 0.6, 0.7]) / 0.75
    gap = value(table, "gap_before", subset="old")
    np.testing.assert_allclose(gap, 1 - old[1:].mean(), rtol=1e-6)
    gap = value(table, "gap_before_with_start", subset="old")
    np.testing.assert_allclose(gap, 1 - old.mean(), rtol=1e-6)
    assert np.isnan(value(table, "gap_joint")).all()


def test_a_report_against_joint_training():
    """The reference is of the same seed; the joint arm itself has no gap at its end."""
    better = np.minimum(TASKS + 0.1, 0.85)
    found = study([TASKS, better], STARTS, ["0", "1"], arms=("bp", "joint"))
    table = continual.report(found, joint="joint", costs={"bp": 2.0, "joint": 6.0})
    joint = np.array([0.7 + 0.1, 0.85])
    new = [np.mean(TASKS[:4, 0] / 0.85), np.mean(TASKS[4:, 1] / joint[1])]
    gap = value(table, "gap_joint", subset="new")
    np.testing.assert_allclose(gap, 1 - np.mean(new), rtol=1e-6)
    gap = value(table, "gap_joint", subset="old")
    np.testing.assert_allclose(gap, 1 - TASKS[4:, 0].mean() / joint[0], rtol=1e-6)
    np.testing.assert_allclose(value(table, "intransigence"), [0.1, 0.05], atol=1e-6)
    assert value(table, "recovery_time_joint", subset="old", session=1) == np.inf
    # 99% of .85, which bp does not reach, and joint after three bins.
    assert value(table, "time_to_target").tolist() == [np.inf, np.inf]
    of_joint = table.sel(arm="joint", seed=0)
    assert of_joint["time_to_target"].values.tolist() == [30, 30]
    assert np.isnan(value(table, "speed_up")).all()
    assert of_joint["speed_up"].values.tolist() == [1, 1]
    table = continual.report(
        found, joint="joint", target=0.6, costs={"bp": 2.0, "joint": 6.0}
    )
    assert value(table, "time_to_target").tolist() == [20, 20]
    assert table.sel(arm="joint", seed=0)["time_to_target"].values.tolist() == [10, 20]
    assert value(table, "speed_up").tolist() == [0.5 * 3, 3]


def test_a_report_of_classes():
    """Old, new and all are as they are; base is one more; nothing is of tasks."""
    names = ["base", "old", "new", "all"]
    accuracy = np.tile(TASKS[:, :1], 4) * [1, 0.5, 0.75, 0.8]
    accuracy[:4, 1] = NAN
    starts = np.full((8, 4), NAN)
    starts[0], starts[4] = [0.8, NAN, 0, 0.5], [0.8, 0.4, 0, 0.5]
    table = continual.report(study(accuracy, starts, names))
    assert table["subset"].values.tolist() == names
    assert "min_accuracy" not in table and "forgetting_from_last" not in table
    drops = value(table, "drop_depth", subset="base")
    np.testing.assert_allclose(drops, [0.3, 0.75 - 0.2], atol=1e-6)
    # What is old was all, at .6, when the session before ended.
    np.testing.assert_allclose(
        value(table, "drop_depth", subset="old"), [NAN, 0.6 - 0.1], atol=1e-6
    )
    base = np.mean([TASKS[:4, 0].mean() / 0.8, TASKS[4:, 0].mean() / 0.75])
    gap = value(table, "gap_before", subset="base")
    np.testing.assert_allclose(gap, 1 - base, rtol=1e-6)
    gap = value(table, "gap_before", subset="old")
    np.testing.assert_allclose(gap, 1 - 0.5 * TASKS[4:, 0].mean() / 0.6, rtol=1e-6)
    assert np.isnan(value(table, "gap_before", subset="new"))
    average = value(table, "average_incremental_accuracy")
    np.testing.assert_allclose(average, 0.8 * (0.75 + 0.7) / 2, rtol=1e-6)


def test_without_starts_nothing_looks_back_to_them():
    full, bare = (
        continual.report(study(TASKS, starts, ["0", "1"]), joint="bp")
        for starts in (STARTS, None)
    )
    of_starts = ("gap_before_with_start", "gap_joint_with_start", "forward_transfer")
    of_both = (
        *("drop_depth", "drop_depth_smoothed", "recovery_time_before", "gap_before"),
        *("recovery_time_joint",),
    )
    for name in full:
        if name in of_starts:
            assert bare[name].isnull().all(), name
        elif name not in of_both:
            np.testing.assert_array_equal(bare[name], full[name], err_msg=name)
    # The first session has nothing before it, the second has the end of the first.
    drops = value(bare, "drop_depth", subset="0")
    np.testing.assert_allclose(drops, [NAN, 0.75 - 0.2])


def test_what_happens_before_the_first_update_is_a_drop():
    """Output weights of new classes may take the old ones' place at once."""
    starts = STARTS.copy()
    starts[4, 0] = 0.1
    table = continual.report(study(TASKS, starts, ["0", "1"]))
    drops = value(table, "drop_depth", subset="old", session=1)
    np.testing.assert_allclose(drops, 0.75 - 0.1)


def test_a_session_counts_when_it_is_over():
    running = study(TASKS, STARTS, ["0", "1"], recorded=6)
    table, full = map(continual.report, (running, study(TASKS, STARTS, ["0", "1"])))
    for name in table:
        here, there = table[name], full[name]
        if "session" in here.dims:
            np.testing.assert_array_equal(here.isel(session=0), there.isel(session=0))
            here = here.isel(session=1)
        assert here.isnull().all(), name


def test_a_run_that_diverges_has_no_numbers_from_then_on():
    """Its accuracy may look sound: classifiers of NaN guess."""
    found = study(TASKS, STARTS, ["0", "1"], arms=("bp", "cbp"))
    where = (np.array([0]), np.array([0]))
    metrics = {n: found[n].values[:1, 0] for n in ("task", "test_accuracy")}
    metrics["test_accuracy_start"] = found["test_accuracy_start"].values[:1, 0]
    results.record(found, where, 0, metrics | {"loss": np.array([[1.0] * 7 + [NAN]])})
    assert found["diverged"].values[0]
    table = continual.report(found)
    for name in table:
        last = (
            table[name].isel(session=-1)
            if "session" in table[name].dims
            else table[name]
        )
        assert last.sel(arm="bp").isnull().all(), name
    assert value(table, "average_accuracy", session=0) == 0.75
    assert not np.isnan(table.sel(arm="cbp")["learning_accuracy"])


def test_a_joint_run_that_diverges_is_no_reference_from_then_on():
    found = study(TASKS, STARTS, ["0", "1"], arms=("bp", "joint"))
    found["bins_sound"].values[1], found["diverged"].values[1] = 7, True
    table = continual.report(found, joint="joint")
    assert value(table, "intransigence")[0] == 0
    assert np.isnan(value(table, "intransigence")[1])
    assert np.isnan(value(table, "gap_joint", subset="all"))
    assert np.isnan(value(table, "time_to_target")[1])
    assert value(table, "average_accuracy")[1] == 0.75


def test_nothing_of_a_study_that_has_not_begun():
    found = study(TASKS, STARTS, ["0", "1"], recorded=0)
    assert all(x.isnull().all() for x in continual.report(found).values())


def test_a_report_of_a_study_on_disk(tmp_path):
    """From the files alone; three seeds with two settings."""

    def init(key, hparams, data=()):
        return {"bin": 0, "gain": hparams["gain"]}

    def step(state, _):
        i = state["bin"]
        found = {
            "loss": 1.0,
            "task": i // 4,
            "test_accuracy": state["gain"] * jnp.asarray(TASKS, jnp.float32)[i],
            "test_accuracy_start": state["gain"] * jnp.asarray(STARTS, jnp.float32)[i],
        }
        return {**state, "bin": i + 1}, found

    segment = lambda state, data=(): jax.lax.scan(step, state, None, 2)
    sweep.run(
        tmp_path / "study",
        {
            "bp": sweep.Method(
                sweep.Learner(init, segment, subsets=("0", "1")), {"gain": 1.0}
            )
        },
        key=jax.random.key(0),
        num_seeds=3,
        num_segments=4,
        steps_per_segment=20,
        settings={"gain": [0.5, 1.0]},
        progress=False,
    )
    table = continual.report(results.load(tmp_path / "study"))
    assert dict(table.sizes) == {"arm": 2, "seed": 3, "session": 2, "subset": 5}
    assert table["gain"].values.tolist() == [0.5, 1.0]
    drops = table["drop_depth"].sel(session=1, subset="old")
    np.testing.assert_allclose(drops, [[0.275] * 3, [0.55] * 3], atol=1e-6)
    assert "drop_depth" in table.to_dataframe()


@pytest.mark.parametrize(
    ("names", "task", "arguments", "message"),
    [
        (["0", "1"], TASK, {"joint": "jont"}, "no arm 'jont'; the arms are bp"),
        (["0", "1"], TASK, {"costs": {"x": 1.0}}, "no arm 'x'"),
        (["0", "1"], TASK, {"metric": "accuracy"}, "no metric 'accuracy'"),
        (["0", "1"], TASK, {"metric": "loss"}, r"subsets of 'loss' .* got \[\]"),
        (["0", "1"], TASK + 1, {}, "3 tasks, but the subsets are 0, 1"),
        (["old", "new"], TASK, {}, r"old, new and all .*\['old', 'new'\]"),
    ],
)
def test_what_cannot_be_reported_is_refused(names, task, arguments, message):
    with pytest.raises(ValueError, match=message):
        continual.report(study(TASKS, STARTS, names, task), **arguments)
