"""Class-incremental CIFAR-100: the published setting, its schedule, a small study."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.incremental_cifar import config as configs
from experiments.incremental_cifar import plot, study
from experiments.launch import outcome
from experiments.studies import learning
from loplax.streams import datasets
from loplax.studies import results

pytestmark = pytest.mark.usefixtures("quick_compile")
NAME = "incremental_cifar"


@pytest.fixture(scope="module")
def tiny(changed):
    """``(a__b=value) -> config`` of two steps with two digits each."""
    sizes = {
        "methods": ("bp",),
        "classes": 4,
        "train_per_class": 4,
        "validation_per_class": 2,
        "batch": 4,
        "seeds": 1,
        "unroll": 1,
        "patches": "no",
        "observe": ("weights",),
    }
    return lambda **new: changed(configs.get_config("smoke"), **(sizes | new))


def test_paper_is_the_published_setting(black_images):
    config = configs.get_config("paper")
    assert (config.dataset, config.classes, config.increment) == ("cifar100", 100, 5)
    assert (config.epochs, config.batch, config.seeds) == (200, 90, 15)
    assert (config.train_per_class, config.validation_per_class) == (450, 50)
    assert config.augment and config.early_stopping
    assert (config.width, config.reading) == (64, "reference")
    assert (config.optimizer, config.learning_rate) == ("momentum", 0.1)
    assert config.momentum.to_dict() == {"momentum": 0.9, "weight_decay": 5e-4}
    assert (config.milestones, config.factor) == ((60, 120, 160), 0.2)
    assert config.cbp.to_dict() == {
        "replacement_rate": 1e-5,
        "maturity_threshold": 1_000,
        "decay_rate": 0.99,
        "utility": "contribution",
        "budget": "all",
        "reset_inner": True,
    }
    assert config.shrink_and_perturb.weight_decay == 5e-4
    assert config.shrink_and_perturb.perturb_scale == 1e-5
    arms = {"bp", "head_reset", "shrink_and_perturb", "full_reset", "cbp"}
    assert set(config.methods) == arms
    made = study.make(config)
    assert made.bins == 20 * 21 // 2
    assert made.steps_per_bin == 200 * 5 * 450
    assert [images.shape[:2] for images in made.data] == [
        (100, 450),
        (100, 50),
        (100, 100),
    ]


def test_images_of_training_validation_and_test(tiny, monkeypatch):
    """Of every class the first images validate; grey ones get three channels."""
    labels = np.arange(40, dtype=np.int32) % 5
    numbered = np.broadcast_to(np.arange(40, dtype=np.uint8), (1, 8, 8, 40)).T
    given = datasets.Dataset(numbered, labels, 100 + numbered, labels, 5)
    monkeypatch.setattr(datasets, "load", lambda name, data_dir: given)
    found = study.make(tiny()).data
    assert [part.shape for part in found] == [(4, n, 8, 8, 3) for n in (4, 2, 8)]
    for part, first, number in zip(found, (10, 0, 100), (4, 2, 8), strict=True):
        expected = first + np.arange(5 * number).reshape(number, 5)[:, :4]
        np.testing.assert_array_equal(
            part.transpose(1, 0, 2, 3, 4)[..., 7, 7, 2], expected
        )


@pytest.mark.parametrize("preset", ["paper", "smoke"])
def test_schedule(preset, black_images):
    """At every count of a run; of many steps, it drops in each and starts again."""
    config = configs.get_config(preset)
    made = study.make(config)
    expected = []
    for step in range(config.classes // config.increment):
        for epoch in range(config.epochs):
            drops = sum(epoch >= milestone for milestone in config.milestones)
            length = (step + 1) * made.stream(made.data).chunk
            expected += [0.1 * config.factor**drops] * length
    assert len(expected) == made.bins * made.steps_per_bin // config.batch
    found = jax.vmap(made.schedule(jnp.float32(0.1)))(jnp.arange(len(expected)))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_steps_end_with_their_best_weights_if_wanted(tiny):
    for early_stopping in (True, False):
        config = tiny(early_stopping=early_stopping)
        made = study.make(config)
        values = made.method(config, "bp").hparams
        build = learning.problem(made, config, "bp")
        problem = build(values, jax.random.key(0), made.data)
        assert len(problem.keepers) == early_stopping


def test_a_small_study_from_end_to_end(tiny, launched, tmp_path):
    """A bin is as much as the first step; the second one has two."""
    found = launched(tmp_path, NAME, tiny())
    assert list(found["step"].values) == [16, 32, 48]
    assert not found["diverged"].any()
    for name in ("accuracy", "test_accuracy", "loss", "test_loss"):
        assert np.isfinite(found[name]).all()
    for path in outcome.Outcome(found, NAME).save(tmp_path):
        assert pathlib.Path(path).stat().st_size


def test_figures_show_the_ends_of_steps():
    """Beside a network that starts anew at each of them."""
    kinds = {"test_accuracy": (np.dtype("float64"), False)}
    methods = ["bp", "full_reset"]
    dataset = results.empty(methods, {}, [0], np.arange(6.0), kinds)
    accuracy = np.arange(12.0).reshape(2, 6)
    results.record(dataset, (np.arange(2), [0, 0]), 0, {"test_accuracy": accuracy})
    config = {"classes": 6, "increment": 2}
    found = plot.step_ends(dataset, config)
    assert found["step"].values.tolist() == [2, 4, 6]
    assert found["test_accuracy"][0, 0].values.tolist() == [0, 2, 5]
    assert found["relative"][:, 0].values.tolist() == [[-6] * 3, [0] * 3]
    assert "relative" not in plot.step_ends(dataset.isel(arm=[0]), config)


BAD = [
    ({"dataset": "cifar"}, "'cifar'.*mean 'cifar10"),
    ({"reading": "exactly"}, "reading.*mean 'exact'"),
    ({"width": 0}, "width"),
    ({"patches": "on"}, "patches.*'on'"),
    ({"classes": 0}, "classes.*0"),
    ({"classes": 11}, "classes must be 1 to 10, got 11"),
    ({"increment": 0}, r"increment \(0\)"),
    ({"increment": 3}, r"classes \(4\).*increment \(3\)"),
    ({"epochs": 0}, "epochs.*0"),
    ({"batch": 0}, "batch.*0"),
    ({"batch": 3}, "batch must divide.*3"),
    ({"train_per_class": 0}, r"train_per_class \(0\)"),
    ({"train_per_class": 144}, r"train_per_class \(144\).*at most 145"),
    ({"validation_per_class": 0}, r"validation_per_class \(0\)"),
    ({"milestones": (0,)}, "milestones.*0"),
    ({"milestones": (1.5,)}, "milestones.*1.5"),
    ({"milestones": ("a",)}, "'a'"),
    ({"factor": -0.2}, "factor.*-0.2"),
    ({"factor": float("nan")}, "factor.*nan"),
    ({"methods": ("linear",)}, "linear needs a network with"),
    ({"methods": ("layer_norm",)}, "layer_norm needs a network with"),
    ({"seeds": 0}, "seeds.*0"),
]


@pytest.mark.parametrize(("changes", "match"), BAD, ids=lambda x: str(x)[:50])
def test_bad_input_is_refused_before_anything_is_written(
    changes, match, tiny, launched, tmp_path
):
    with pytest.raises(ValueError, match=match):
        launched(tmp_path / "study", NAME, tiny(**changes))
    assert not (tmp_path / "study").exists()
