"""Continual ImageNet: the published setting, its data, and a small study."""

import pathlib

import jax
import numpy as np
import pytest

from experiments.continual_imagenet import config as configs
from experiments.continual_imagenet import study
from experiments.launch import outcome
from loplax.streams import datasets

pytestmark = pytest.mark.usefixtures("quick_compile")
NAME = "continual_imagenet"


@pytest.fixture(scope="module")
def tiny(changed):
    """``(a__b=value) -> config`` of two tasks with 40 digits each."""
    sizes = {
        "methods": ("shrink_and_perturb",),
        "train_per_class": 20,
        "test_per_class": 5,
        "seeds": 1,
        "unroll": 1,
        "patches": "no",
        "observe": ("weights",),
    }
    return lambda **new: changed(configs.get_config("smoke"), **(sizes | new))


def test_paper_is_the_published_setting(black_images):
    config = configs.get_config("paper")
    assert (config.dataset, config.tasks, config.epochs) == ("imagenet32", 2_000, 250)
    assert (config.batch, config.seeds) == (100, 30)
    assert (config.train_per_class, config.test_per_class) == (600, 100)
    assert (config.filters, config.hidden) == ((32, 64, 128), (128, 128))
    assert (config.activation, config.initialization) == ("relu", "pytorch")
    assert (config.optimizer, config.learning_rate) == ("momentum", 0.01)
    assert config.momentum.to_dict() == {"momentum": 0.9, "weight_decay": 0.0}
    assert config.cbp.to_dict() == {
        "replacement_rate": 3e-4,
        "maturity_threshold": 100,
        "decay_rate": 0.99,
        "utility": "adaptable_contribution",
        "budget": "all",
        "reset_inner": True,
    }
    assert config.l2.to_dict() == {"learning_rate": 0.03, "weight_decay": 3e-6}
    assert config.shrink_and_perturb.to_dict() == {
        "shrink": 1.0,
        "weight_decay": 1e-5,
        "perturb_scale": 1e-5,
        "period": 1,
    }
    made = study.make(config)
    assert (made.bins, made.steps_per_bin) == (2_000, 250 * 1_200)
    assert (made.batch, made.at_task, made.head) == (100, ("zero_head",), "output")
    params, _ = made.network({}).init(jax.random.key(0))
    for layer in (*(params[f"conv_{i}"] for i in range(3)), *params["dense"].values()):
        bound = 1 / np.sqrt(layer["kernel"][..., 0].size)  # PyTorch's default
        assert 0.9 * bound < abs(layer["kernel"]).max() <= bound


@pytest.mark.parametrize("name", ["imagenet32", "cifar100"])
def test_images_of_training_and_test(changed, monkeypatch, name):
    """Of ImageNet both are training images, since its test set has no labels."""
    labels = np.arange(30, dtype=np.int32) % 3
    numbered = np.broadcast_to(np.arange(30, dtype=np.uint8), (1, 1, 16, 30)).T
    given = datasets.Dataset(numbered, labels, 100 + numbered, labels, 3)
    monkeypatch.setattr(datasets, "load", lambda name, data_dir: given)
    sizes = {"train_per_class": 6, "test_per_class": 2, "batch": 4, "dataset": name}
    train, test = study.make(changed(configs.get_config("paper"), **sizes)).data
    assert train.shape == (3, 6, 32, 32, 1) and test.shape == (3, 2, 32, 32, 1)
    np.testing.assert_array_equal(train[:, :, 16, 16, 0].T, np.arange(18).reshape(6, 3))
    first = 18 if name == "imagenet32" else 100
    expected = first + np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(test[:, :, 16, 16, 0].T, expected)


def test_a_small_study_from_end_to_end(tiny, launched, tmp_path):
    found = launched(tmp_path, NAME, tiny())
    assert list(found["step"].values) == [40, 80]
    assert not found["diverged"].any()
    for name in ("accuracy", "test_accuracy", "loss", "test_loss"):
        assert np.isfinite(found[name]).all()
    # Of ten test images.
    tenths = 10 * found["test_accuracy"].values
    np.testing.assert_allclose(tenths, np.round(tenths), atol=1e-4)
    made = outcome.Outcome(found, NAME)
    assert "first 40 examples" in made.table()
    for path in made.save(tmp_path):
        assert pathlib.Path(path).stat().st_size


BAD = [
    ({"dataset": "imagenet"}, "'imagenet'.*mean 'imagenet32'"),
    ({"activation": "rely"}, "activation.*'rely'"),
    ({"filters": (4, 4)}, "kernels.*filters"),
    ({"filters": (4, 4, 0)}, "filters"),
    ({"hidden": (0,)}, "hidden"),
    ({"patches": "on"}, "patches.*'on'"),
    ({"tasks": 0}, "tasks.*0"),
    ({"tasks": -1}, "tasks.*-1"),
    ({"epochs": 0}, "epochs.*0"),
    ({"batch": 0}, "batch.*0"),
    ({"batch": 17}, "batch must divide.*17"),
    ({"train_per_class": 0}, "train_per_class is 0; digits has 145"),
    ({"train_per_class": -1}, "train_per_class is -1; digits has 145"),
    ({"train_per_class": 146}, "train_per_class is 146; digits has 145"),
    ({"test_per_class": 0}, "test_per_class is 0; digits has 29"),
    ({"test_per_class": 30}, "test_per_class is 30; digits has 29"),
    ({"methods": ("nap",)}, "nap cannot start with an output layer.* 0"),
    ({"methods": ("plasticity_injection",)}, "plasticity_injection cannot.* 0"),
    ({"seeds": 0}, "seeds.*0"),
]


@pytest.mark.parametrize(("changes", "match"), BAD, ids=lambda x: str(x)[:50])
def test_bad_input_is_refused_before_anything_is_written(
    changes, match, tiny, launched, tmp_path
):
    with pytest.raises(ValueError, match=match):
        launched(tmp_path / "study", NAME, tiny(**changes))
    assert not (tmp_path / "study").exists()
