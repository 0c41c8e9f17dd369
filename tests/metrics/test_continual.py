"""Forgetting, transfer, gaps and recovery: by hand, by brute force, and their laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loplax import metrics

pytestmark = pytest.mark.usefixtures("quick_compile")

NAN = np.nan
same = np.testing.assert_array_equal
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
seeds = st.integers(0, 2**32 - 1)

# Three tasks; two, three and two evaluations.
TASK = np.array([0, 0, 1, 1, 1, 2, 2])
ACCURACY = np.array(
    [
        [0.5, 0.0, NAN],
        [0.8, 0.1, NAN],
        [0.2, 0.4, NAN],  # the first task falls by 0.6
        [0.6, 0.6, NAN],
        [0.7, 0.9, 0.1],
        [0.5, 0.3, 0.2],
        [0.6, 0.7, 0.8],
    ]
)
MATRIX = np.array([[0.8, 0.1, NAN], [0.7, 0.9, 0.1], [0.6, 0.7, 0.8]])


def drawn(seed, evaluations=12, tasks=3, missing=0.0):
    """Accuracies in eighths, with ties, some of them missing, and tasks that follow."""
    rng = np.random.default_rng(seed)
    accuracy = rng.integers(0, 9, (evaluations, tasks)) / 8
    accuracy[rng.uniform(size=accuracy.shape) < missing] = NAN
    return accuracy, np.sort(rng.integers(0, tasks, evaluations))


def test_the_matrix_has_the_last_evaluation_of_every_session():
    same(metrics.accuracy_matrix(ACCURACY, TASK), MATRIX)


def test_the_matrix_of_sessions_without_evaluations_is_nan():
    """Not yet, or in no bin of their own; what is no task belongs to none."""
    task = np.array([0, 0, 0, 2, 2, NAN, NAN])
    found = metrics.accuracy_matrix(ACCURACY, task, 4)
    same(found, [ACCURACY[2], [NAN] * 3, ACCURACY[4], [NAN] * 3])


def test_sessions_apart():
    found = metrics.by_session(ACCURACY, TASK, 3, 3)
    same(found[0], [*ACCURACY[:2], [NAN] * 3])
    same(found[1], ACCURACY[2:5])
    same(found[2], [*ACCURACY[5:], [NAN] * 3])
    every = metrics.by_session(ACCURACY, TASK, 3)
    assert every.shape == (3, 7, 3)
    same(every[:, :3], found)
    same(metrics.by_session(ACCURACY, TASK, 3, 1)[:, 0], ACCURACY[[0, 2, 5]])
    start = np.arange(9.0).reshape(3, 3)
    with_start = metrics.by_session(ACCURACY, TASK, 3, 3, start)
    same(with_start[:, 0], start)
    same(with_start[:, 1:], found)


def test_old_new_all():
    found = metrics.old_new_all(ACCURACY, TASK)
    close(found[1], [NAN, 0.8, 0.8])
    close(found[2], [0.2, 0.4, 0.3])
    close(found[6], [0.65, 0.8, 0.7])
    # What no formula needs is of no account; what one needs is not passed over.
    close(found[3], [0.6, 0.6, 0.6])
    same(metrics.old_new_all([[NAN, 0.5]], [1]), [[NAN, 0.5, NAN]])
    same(metrics.old_new_all([[0.5, 0.5]], [NAN]), [[NAN] * 3])


def test_averages_by_hand():
    close(metrics.average_accuracy(MATRIX), [0.8, 0.8, 0.7])
    close(metrics.average_incremental_accuracy(MATRIX), (0.8 + 0.8 + 0.7) / 3)
    close(metrics.learning_accuracy(MATRIX), (0.8 + 0.9 + 0.8) / 3)
    close(metrics.intransigence(MATRIX, [0.9, 0.9, 0.7]), [0.1, 0, -0.1])


def test_transfer_by_hand():
    last = [NAN, 0.8 - 0.7, ((0.8 - 0.6) + (0.9 - 0.7)) / 2]
    close(metrics.forgetting_from_last(MATRIX), last)
    close(metrics.backward_transfer(MATRIX), -np.array(last))
    close(metrics.forward_transfer(MATRIX, [0.3, 0.2, 0.0]), ((0.1 - 0.2) + 0.1) / 2)
    assert np.isnan(metrics.forward_transfer([[0.5]], [0.1]))


def test_the_two_forgettings_differ_where_a_task_became_better_later():
    matrix = np.array([[0.5, 0.9, 0.0], [0.7, 0.6, 0.0], [0.4, 0.5, 0.0]])
    close(metrics.forgetting_from_last(matrix)[2], ((0.5 - 0.4) + (0.6 - 0.5)) / 2)
    # The maximum is over all earlier sessions, also those before the task's own.
    close(metrics.forgetting_from_max(matrix)[2], ((0.7 - 0.4) + (0.9 - 0.5)) / 2)
    close(metrics.forgetting_from_max(matrix)[1], 0.5 - 0.7)


def test_the_maximum_passes_over_sessions_in_which_a_task_had_no_examples():
    matrix = np.array([[0.8, NAN, NAN], [0.7, 0.9, NAN], [0.6, 0.7, 0.8]])
    close(metrics.forgetting_from_max(matrix), [NAN, 0.1, (0.2 + 0.2) / 2])
    matrix[:2, 1] = NAN
    assert np.isnan(metrics.forgetting_from_max(matrix)[2])


def test_a_missing_session_is_not_passed_over():
    matrix = MATRIX.copy()
    matrix[2] = NAN
    assert np.isnan(metrics.average_incremental_accuracy(matrix))
    assert np.isnan(metrics.learning_accuracy(matrix))
    assert np.isnan(metrics.forgetting_from_last(matrix)[2])
    close(metrics.forgetting_from_last(matrix)[1], 0.1)


def test_minima_by_hand():
    found = metrics.min_accuracy(ACCURACY, TASK)
    close(found, [NAN, NAN, 0.2, 0.2, 0.2, (0.2 + 0.3) / 2, (0.2 + 0.3) / 2])
    found = metrics.worst_case_accuracy(ACCURACY, TASK)
    close(found[2], (0.4 + 0.2) / 2)
    close(found[6], (0.8 + 0.2 + 0.3) / 3)


def test_the_worst_case_of_a_single_task_is_its_accuracy():
    same(metrics.worst_case_accuracy(ACCURACY, TASK)[:2], ACCURACY[:2, 0])


@settings(max_examples=30)
@given(seed=seeds)
def test_minima_by_brute_force(seed):
    accuracy, task = drawn(seed)
    found = metrics.min_accuracy(accuracy, task)
    worst = metrics.worst_case_accuracy(accuracy, task)
    for t, k in enumerate(task):
        lowest = []
        for i in range(k):
            after = [n for n in range(t + 1) if task[n] > i]
            lowest.append(min(accuracy[n, i] for n in after))
        close(found[t], np.mean(lowest) if k else NAN)
        close(worst[t], np.mean([accuracy[t, k], *lowest]))


def fall_by_brute_force(series, window):
    """The largest fall of a series between two of the last evaluations, up to each."""
    most, found = NAN, []
    for t in range(len(series)):
        for n in range(max(0, t - window + 1), t + 1):
            for m in range(max(0, t - window + 1), n + 1):
                most = np.fmax(most, series[m] - series[n])
        found.append(most)
    return found


@settings(max_examples=60)
@given(seed=seeds, window=st.integers(2, 20), missing=st.sampled_from([0.0, 0.4]))
def test_windows_by_brute_force(seed, window, missing):
    accuracy, _ = drawn(seed, missing=missing)
    forgetting = metrics.windowed_forgetting(accuracy, window)
    plasticity = metrics.windowed_plasticity(accuracy, window)
    for i in range(accuracy.shape[1]):
        same(forgetting[:, i], fall_by_brute_force(accuracy[:, i], window))
        same(plasticity[:, i], fall_by_brute_force(-accuracy[:, i], window))


@pytest.mark.parametrize("window", [2, 10, 100])
def test_what_only_rises_is_never_forgotten(window):
    rising = np.linspace(0, 1, 30)[:, None] ** 2
    assert np.all(metrics.windowed_forgetting(rising, window) == 0)
    assert np.all(metrics.windowed_plasticity(-rising, window) == 0)
    whole = metrics.windowed_plasticity(rising, 30)
    close(whole, rising)


def test_only_tasks_that_have_begun_are_seen():
    found = metrics.seen(ACCURACY, TASK)
    same(np.isnan(found), np.arange(3) > TASK[:, None])
    assert metrics.windowed_forgetting(found, 2)[-1, 1] == pytest.approx(0.9 - 0.3)


def test_learning_curve_area_by_hand():
    curves = np.array([[0.0, 0.5, 0.7, 1.0], [0.1, 0.1, NAN, NAN]])
    close(metrics.learning_curve_area(curves, 2), [0.25, 0.1])
    close(metrics.learning_curve_area(curves, 3), [0.4, NAN])


reference = np.array([[0.5], [0.8]])


def test_the_gap_to_itself_is_none():
    assert metrics.gap(np.broadcast_to(reference, (2, 5)), reference) == 0


@settings(max_examples=30)
@given(seed=seeds, factor=st.floats(0, 3))
def test_the_gap_of_a_multiple(seed, factor):
    """Nothing at all is a gap of 1, and what is better has a negative one."""
    accuracy = np.random.default_rng(seed).uniform(0.1, 1, (2, 5))
    close(metrics.gap(factor * accuracy, accuracy), 1 - factor)


def test_every_session_weighs_the_same_in_the_gap():
    accuracy = np.array([[0.5, 0.5, 0.5, 0.5], [0.4, NAN, NAN, NAN], [NAN] * 4])
    close(metrics.gap(accuracy, [[0.5], [0.8], [NAN]]), 1 - (1 + 0.5) / 2)


@pytest.mark.parametrize("bad", [0.0, -1.0, NAN])
def test_a_gap_needs_a_reference(bad):
    assert np.isnan(metrics.gap(np.ones((2, 3)), [[1.0], [bad]]))


def test_gaps_by_hand():
    """The first session has no old classes; the start counts where it is given."""
    accuracy = np.array([[NAN, 0.6, 0.6], [0.8, 0.4, 0.6]])
    start = np.array([[NAN, 0.2, 0.2], [1.0, 0.0, 0.4]])
    joint = np.array([[NAN, 0.8, 0.8], [1.0, 0.8, 0.8]])
    curves = metrics.by_session(accuracy, [0, 1], 2, 1)
    found = metrics.gaps(curves, joint)
    close(found.stability, 1 - 0.8)
    close(found.plasticity, 1 - (0.75 + 0.5) / 2)
    close(found.continual_knowledge, 1 - (0.75 + 0.75) / 2)
    curves = metrics.by_session(accuracy, [0, 1], 2, 1, start)
    found = metrics.gaps(curves, joint)
    close(found.stability, 1 - (1.0 + 0.8) / 2)
    close(found.plasticity, 1 - ((0.25 + 0.75) / 2 + (0.0 + 0.5) / 2) / 2)
    before = metrics.gaps(curves, start)
    close(before.stability, 1 - (1.0 + 0.8) / 2)
    assert np.isnan(before.plasticity)  # nothing was known of the new classes


def test_drop_depth_by_hand():
    curves = np.array([[0.6, 0.1, 0.5, 0.7, NAN], [0.9, 0.9, 0.8, 0.9, 1.0]])
    close(metrics.drop_depth(curves, [0.8, 0.7]), [0.7, -0.1])
    # Medians: of (.6 .1 .5) .5, of (.1 .5 .7) .5; of the second run .9 all the time.
    close(metrics.drop_depth(curves, [0.8, 0.7], smoothed=True), [0.3, -0.2])
    assert np.isnan(metrics.drop_depth([NAN, NAN], 0.5))
    assert np.isnan(metrics.drop_depth([0.1, 0.2], 0.5, smoothed=True))


@settings(max_examples=30)
@given(seed=seeds)
def test_smoothed_drops_by_brute_force(seed):
    curve = drawn(seed)[0][:, 0]
    medians = [np.median(curve[i : i + 3]) for i in range(len(curve) - 2)]
    same(metrics.drop_depth(curve, 1.0, smoothed=True), 1 - min(medians))


@pytest.mark.parametrize(
    ("curve", "updates", "reached"),
    [
        ([0.6, 0.5, 0.9, 0.9], 0.0, True),  # never below
        ([0.4, 0.5, 0.3, 0.4, 0.6], 50.0, True),  # the first return was none
        ([0.4, 0.3, NAN, 0.5, NAN], 40.0, True),
        ([0.4, 0.3, 0.4, 0.4], np.inf, False),
        ([0.6, 0.7, 0.1], np.inf, False),
        ([NAN, NAN], NAN, False),
    ],
)
def test_recovery_by_hand(curve, updates, reached):
    count = 10 * np.arange(1, len(curve) + 1)
    found = metrics.recovery_time(curve, 0.5, count)
    same(found.updates, updates)
    assert found.reached == reached


def test_recovery_to_nothing_does_not_exist():
    found = metrics.recovery_time([0.1, 0.2], NAN)
    assert np.isnan(found.updates) and not found.reached


def test_time_to_a_fraction_by_hand():
    curves = np.array([[0.1, 0.5, 1.0, 0.9], [0.1, 0.2, 0.396, 0.4], [NAN] * 4])
    same(metrics.time_to_fraction(curves).updates, [3, 3, NAN])
    found = metrics.time_to_fraction(curves, 0.5)
    same(found.updates, [2, np.inf, NAN])
    same(found.reached, [True, False, False])
    same(metrics.time_to_fraction(curves, [0.1, NAN, 0.1]).updates, [1, NAN, NAN])
    same(metrics.time_to_fraction(curves, updates=np.arange(4)).updates, [2, 2, NAN])


def test_speed_up_counts_updates_or_costs():
    """16.7 times fewer updates, each 1.91 times cheaper, are 31.9 times fewer FLOPs."""
    close(metrics.speed_up(600, 16.7 * 600), 16.7)
    close(metrics.speed_up(600, 16.7 * 600, 1.0, 1.91), 16.7 * 1.91)
    assert np.all(np.isnan(metrics.speed_up([np.inf, 3, 0], [5, np.inf, 5])))


def test_calibration_by_hand():
    """Two bins: 3 of 4 right at 0.9, and 1 of 2 at 0.6."""
    p = np.array([0.9, 0.9, 0.9, 0.9, 0.6, 0.6])
    logits = np.log(np.stack([p, 1 - p], axis=-1))
    labels = [0, 0, 0, 1, 0, 1]
    expected = 4 / 6 * abs(0.75 - 0.9) + 2 / 6 * abs(0.5 - 0.6)
    close(metrics.expected_calibration_error(logits, labels), expected)
    one_bin = abs(4 / 6 - (4 * 0.9 + 2 * 0.6) / 6)
    close(metrics.expected_calibration_error(logits, labels, 1), one_bin)
    shifted = metrics.expected_calibration_error(logits + 100.0, labels)
    close(shifted, expected)


def test_a_bin_of_confidences_has_its_upper_end():
    """0.5, wrong, in (0, 0.5]; 0.9, right, in (0.5, 1]."""
    logits = np.array([[0.0, 0.0], [np.log(9), 0.0]])
    found = metrics.expected_calibration_error(logits, [1, 0], 2)
    close(found, (0.5 + 0.1) / 2)


def test_calibration_at_its_ends():
    sure = np.array([[np.inf, 0.0], [0.0, 0.0]])
    with np.errstate(invalid="ignore"):
        assert np.isnan(metrics.expected_calibration_error(sure, [0, 0]))
    certain = np.array([[0.0, -np.inf], [-np.inf, 0.0]])
    assert metrics.expected_calibration_error(certain, [0, 1]) == 0
    assert metrics.expected_calibration_error(certain, [1, 0]) == 1
    assert np.isnan(metrics.expected_calibration_error(np.ones((0, 2)), []))


@settings(max_examples=20)
@given(seed=seeds, bins=st.integers(1, 20))
def test_calibration_by_brute_force(seed, bins):
    rng = np.random.default_rng(seed)
    logits, labels = 2 * rng.normal(size=(40, 4)), rng.integers(0, 4, 40)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    confidence, right = p.max(-1), p.argmax(-1) == labels
    expected = 0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            apart = right[inside].mean() - confidence[inside].mean()
            expected += inside.mean() * abs(apart)
    close(metrics.expected_calibration_error(logits, labels, bins), expected)


def every_metric(accuracy, task, start):
    """All functions, of one run or of many."""
    matrix = metrics.accuracy_matrix(accuracy, task)
    curves = metrics.by_session(accuracy, task, 3, 6, start)
    subsets = metrics.old_new_all(accuracy, task)
    joint = start + 0.5
    own = curves[..., 0]
    found = {
        "matrix": matrix,
        "curves": curves,
        "subsets": subsets,
        "min": metrics.min_accuracy(accuracy, task),
        "worst": metrics.worst_case_accuracy(accuracy, task),
        "forgetting": metrics.windowed_forgetting(metrics.seen(accuracy, task), 5),
        "plasticity": metrics.windowed_plasticity(accuracy, 100),
        "lca": metrics.learning_curve_area(own, 3),
        "gaps": metrics.gaps(metrics.by_session(subsets, task, 3), joint),
        "drop": metrics.drop_depth(own, start[..., 0]),
        "smooth": metrics.drop_depth(own, start[..., 0], smoothed=True),
        "recovery": metrics.recovery_time(own, start[..., 0]),
        "best": metrics.time_to_fraction(own),
        "speed": metrics.speed_up(start, joint),
        "forward": metrics.forward_transfer(matrix, start[..., 0, :]),
        "intransigence": metrics.intransigence(matrix, joint[..., 0, :]),
        "calibration": metrics.expected_calibration_error(accuracy, task),
    }
    of_matrix = (
        metrics.average_accuracy,
        metrics.average_incremental_accuracy,
        metrics.forgetting_from_last,
        metrics.forgetting_from_max,
        metrics.backward_transfer,
        metrics.learning_accuracy,
    )
    return found | {metric.__name__: metric(matrix) for metric in of_matrix}


@pytest.fixture(scope="module")
def runs():
    """Four runs, with values missing in two of them."""
    drawings = [drawn(i, missing=0.1 * (i > 1)) for i in range(4)]
    accuracy, task = map(np.stack, zip(*drawings, strict=True))
    start = np.random.default_rng(0).integers(0, 5, (4, 3, 3)) / 8
    return accuracy, task, start


def one_by_one(runs):
    each = [every_metric(*(x[i] for x in runs)) for i in range(len(runs[0]))]
    return jax.tree.map(lambda *x: np.stack(x), *each)


@pytest.mark.filterwarnings("error")
def test_many_runs_are_runs_one_by_one(runs):
    found = every_metric(*runs)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(found))
    jax.tree.map(close, found, one_by_one(runs))


def test_numpy_and_jax_agree(runs):
    """Jitted, of many runs at once or vmapped over them."""
    expected = one_by_one(runs)
    values = [jnp.asarray(x, jnp.float32) for x in runs]
    jax.tree.map(close, jax.jit(every_metric)(*values), expected)
    jax.tree.map(close, jax.jit(jax.vmap(every_metric))(*values), expected)


def test_jax_in_jax_out():
    """Also outside of jit, and of numpy's arrays together with JAX's."""
    found = metrics.drop_depth(jnp.ones(3), np.float32(2))
    assert isinstance(found, jax.Array) and found == 1


@pytest.mark.parametrize("of", [np.float32, jnp.float32])
def test_a_level_is_reached_by_what_equals_it(of):
    """As Python has 0.9 in double precision, and the curve not."""
    curve = of([0.5, 0.9])
    time, reached = metrics.recovery_time(curve, 0.9)
    assert (float(time), bool(reached)) == (2.0, True)
    time, reached = metrics.time_to_fraction(curve, 0.9, 1.0)
    assert (float(time), bool(reached)) == (2.0, True)


def test_the_precision_is_kept():
    for dtype in (np.float32, np.float64):
        accuracy = ACCURACY.astype(dtype)
        assert metrics.windowed_forgetting(accuracy, 3).dtype == dtype
        assert metrics.accuracy_matrix(accuracy, TASK).dtype == dtype
    assert metrics.accuracy_matrix(jnp.ones((7, 3), jnp.bfloat16), TASK).dtype == "f4"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.accuracy_matrix(ACCURACY, TASK[1:]), r"\(7, 3\) and \(6,\)"),
        (lambda: metrics.min_accuracy(TASK, TASK), r"got \(7,\) and \(7,\)"),
        (lambda: metrics.average_accuracy(ACCURACY), r"tasks, tasks\], got \(7, 3\)"),
        (lambda: metrics.forward_transfer(ACCURACY, TASK), r"got \(7, 3\)"),
        (
            lambda: metrics.windowed_forgetting(ACCURACY, 1),
            "window .* 2 or more, got 1",
        ),
        (lambda: metrics.windowed_plasticity(ACCURACY, 2.5), "got 2.5"),
        (lambda: metrics.learning_curve_area(ACCURACY[:, 0], 8), r"\[1, 7\], got 8"),
        (lambda: metrics.gaps(np.ones((2, 2, 4)), np.ones((2, 3))), r"\(2, 2, 4\)"),
        (lambda: metrics.time_to_fraction([1.0], fraction=99), r"\(0, 1\], got 99"),
        (lambda: metrics.expected_calibration_error([[1.0]], [0], 0), "got 0"),
        (lambda: metrics.expected_calibration_error([[1.0]], [0, 1]), r"\(1, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
