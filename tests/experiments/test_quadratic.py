"""The quadratic binary task: its dynamics in NumPy, and what theory says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.figures import figures, table
from experiments.launch import running
from experiments.quadratic import config as configs
from experiments.quadratic import plot, study, task
from loplax.studies import checkpoints

pytestmark = pytest.mark.usefixtures("quick_compile")
NAME = "quadratic"


@pytest.fixture(scope="module")
def small(changed):
    return lambda **new: changed(configs.get_config("smoke"), **new)


@pytest.fixture(scope="module")
def found(small, launched):
    """Results as published, with fewer weights and seeds."""
    config = small(dimensions=200, steps=1000, bin=100, seeds=3)
    return launched(None, NAME, config)


def drawn(weights=6):
    return task.draw(jax.random.key(3), weights, (10.5, 29.5), 4.0)


def test_tasks_are_drawn_as_they_say():
    many = jax.vmap(lambda key: task.draw(key, 20, (10.5, 29.5), 4.0))
    hessian, optimum = many(jax.random.split(jax.random.key(0), 50))
    np.testing.assert_allclose(hessian, np.swapaxes(hessian, 1, 2), atol=1e-4)
    values = np.linalg.eigvalsh(np.asarray(hessian, float))
    assert 10.5 - 1e-3 < values.min() < 11 and 29 < values.max() < 29.5 + 1e-3
    assert 3.9 < np.abs(optimum).max() <= 4 and abs(np.mean(optimum)) < 0.3
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    assert diagonal.std() < values.std()  # the axes are turned


def test_an_increase_is_what_the_loss_does_when_a_sign_is_switched():
    given = drawn()
    signs = np.array([1, -1, -1, 1, 1, -1.0])
    hessian, optimum = (np.asarray(each, float) for each in given)
    plain = lambda w: (w - optimum) @ hessian @ (w - optimum) / 2
    switched = [plain(np.where(np.arange(6) == i, -signs, signs)) for i in range(6)]
    np.testing.assert_allclose(task.loss(given, jnp.array(signs)), plain(signs), 1e-5)
    expected = np.array(switched) - plain(signs)
    increase = task.increase(given, jnp.array(signs))
    np.testing.assert_allclose(increase, expected, rtol=1e-4, atol=1e-3)


def test_a_run_is_gradient_descent_of_the_latent_weights(small):
    """Replayed in NumPy, with all that is measured of it."""
    config = small(dimensions=6, steps=12, bin=3)
    method = study.make(config).method(config, "bp")
    numbers = {name: jnp.float32(x) for name, x in method.hparams.items()}
    state = jax.jit(method.learner.init)(jax.random.key(1), numbers, ())
    _, metrics = jax.jit(method.learner.segment)(state, ())
    hessian, optimum = (np.asarray(each, float) for each in state.task)
    latent = np.asarray(state.params["latent"][:, 0], float)
    assert 0.001 < latent.std() < 0.03
    for at_end, switches, loss in zip(
        *(np.asarray(metrics[n]) for n in ("latent", "switches", "loss")), strict=True
    ):
        losses, switched = [], np.zeros(6)
        for _ in range(3):
            signs = np.sign(latent)
            slope = hessian @ (signs - optimum)
            losses.append((signs - optimum) @ slope / 2)
            latent = latent - 0.01 * slope
            switched += np.sign(latent) != signs
        np.testing.assert_allclose(at_end, latent, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(switches, switched)
        np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-4)
    expected = np.corrcoef(np.abs(latent), metrics["increase"][-1])[0, 1]
    np.testing.assert_allclose(metrics["correlation"][-1], expected, rtol=1e-3)


def test_the_size_of_latent_weights_tells_what_their_signs_are_worth(found):
    """If the optimum is out of reach; else nothing freezes, and nothing grows."""
    shown = plot.apart(found)
    assert shown["method"].values.tolist() == ["bp reach=4", "bp reach=0.9"]
    outside, inside = shown["correlation"].isel(bin=-1).values
    assert (outside > 0.92).all() and (inside < 0.6).all()
    columns = plot.columns(shown)
    outside, inside = columns["never switched"].values
    assert ((outside > 0.25) & (outside < 0.45)).all() and (inside == 0).all()
    outside, inside = columns["their growth"].values
    np.testing.assert_allclose(outside, 2, atol=2e-3)
    assert np.isnan(inside).all()
    outside, inside = columns["greatest growth"].values
    np.testing.assert_allclose(outside, 2, atol=0.02)
    np.testing.assert_allclose(inside, 1, atol=0.3)


def test_what_never_switches_reads_out_its_increase(found):
    """Its increase is 2 H_ii + 2 |w_i| / (0.01 T), where H_ii is near its mean, 20."""
    shown = plot.apart(found).isel(arm=0)
    sure = plot.never(shown).values
    size = np.abs(shown["latent"].isel(bin=-1).values[sure])
    curvature = shown["increase"].isel(bin=-1).values[sure] - 2 * size / 10
    assert abs(curvature.mean() - 40) < 1 and curvature.std() < 6


def test_two_weights_do_what_is_published():
    """One grows without bound; the mean of the signs is the nearest in the box."""
    path = plot.plane()
    np.testing.assert_allclose(path[-1, 0], 205, atol=1)
    assert path[:, 1].min() > -0.11 and path[:, 1].max() < 0.45
    (_, coupled), (_, own) = plot.PLANE.hessian
    nearest = plot.PLANE.optimum[1] + coupled / own * (plot.PLANE.optimum[0] - 1)
    mean = np.sign(path[1:]).mean(0)
    np.testing.assert_allclose(mean, [1, nearest], atol=0.01)


def test_metaplasticity_is_for_these_weights(small, launched):
    config = small(methods=("bp", "metaplastic"), seeds=2, sweep__reach=(0.9,))
    running.change(config, {"sweep.metaplastic.m": (0.0, 10.0)})
    found = launched(None, NAME, config)
    bp, none, some = (found["latent"].isel(arm=i).values for i in range(3))
    np.testing.assert_array_equal(bp, none)
    assert np.abs(some[:, -1]).mean() > 2 * np.abs(bp[:, -1]).mean()


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("cbp", "cbp in the quadratic task: units: no hidden layer"),
        ("ewc", "ewc has no place in the quadratic task"),
        ("er", "er has no place in the quadratic task"),
        ("layer_norm", "needs a network with an option normalization"),
    ],
)
def test_plugins_that_cannot_be_are_refused(method, reason, small):
    config = small()
    with pytest.raises(ValueError, match=reason):
        study.make(config).method(config, method)


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("dimensions", 1, "dimensions must be in"),
        ("curvature", (0.0, 1.0), "0 < low <= high"),
        ("steps", 150, "twice bin"),
        ("start", -1.0, "start must be in"),
        ("sweep__reach", (-1.0,), "reach must be in"),
    ],
)
def test_bad_settings_are_refused(setting, value, reason, small):
    config = small(**{setting: value})
    with pytest.raises(ValueError, match=reason):
        study.make(config).method(config, "bp")


def test_a_crashed_study_goes_on(small, launched, crashed, tmp_path):
    config = small(dimensions=10, seeds=2, steps=80, bin=10, keep_states=True)
    whole = launched(tmp_path / "whole", NAME, config)
    crashed(tmp_path / "part", NAME, config, 1)
    assert checkpoints.of_units(tmp_path / "part")
    after = launched(tmp_path / "part", NAME, config)
    np.testing.assert_array_equal(whole["latent"], after["latent"])


def test_figures_and_table(found):
    found.attrs["preset"] = "smoke"
    drawn = figures.draw(found, plot.FIGURE)
    assert list(drawn) == ["figure", "comparison", "importance", "plane"]
    (axes,) = drawn["importance"].axes
    lines = [line for line in axes.get_lines() if line.get_label()[0] != "_"]
    outside, inside = (line.get_ydata() for line in lines)
    assert (np.diff(outside[:10]) > 0).all() and outside[-1] > 3 * inside.max()
    frame = table.frame(found, plot.FIGURE)
    assert frame["never switched"][1].startswith("0.0000")
    assert frame["their growth"].tolist()[1] == "-"


def test_what_an_unfinished_run_does_not_tell_is_left_open(found):
    for name in ("latent", "increase", "switches", "rank_correlation"):
        assert found[name].isel(bin=-1).notnull().all()
    shown = plot.apart(found.where(found["bin"] < 5))
    assert all(values.isnull().all() for values in plot.columns(shown).values())
