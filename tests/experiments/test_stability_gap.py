"""The stability gap: what its configurations mean, and a small study."""

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from experiments.figures import figures, table
from experiments.launch import running
from experiments.stability_gap import config as configs
from experiments.stability_gap import plot, study
from experiments.studies import pretraining
from loplax import nets
from loplax.streams import datasets
from loplax.supervised import losses, stateless
from tests.nets import timm_weights
from tests.streams import photographs

pytestmark = pytest.mark.usefixtures("quick_compile")
NAME = "stability_gap"


@pytest.fixture(scope="module")
def tiny(changed):
    """``(a__b=value) -> config`` of the digits, in few steps."""
    sizes = {"seeds": 2, "steps": 6, "every": 2, "hidden": (5,), "batch": 8}
    return lambda **new: changed(configs.get_config("smoke"), **(sizes | new))


def sessions(made, seed=0):
    """The session of every training example, by its place in the data."""
    state = made.stream(made.data, {}).init(jax.random.key(seed))
    found = np.empty(state.order.size, int)
    sizes = np.diff(state.starts)
    found[np.asarray(state.order)] = np.repeat(np.arange(sizes.size), sizes)
    return found


def test_rotations_are_sessions_of_the_same_images(tiny):
    made = study.make(tiny(order="rotations", degrees=(0, 90), subsets="sessions"))
    (images, labels), _ = made.data
    own = sessions(made)
    digits = datasets.load("digits")
    np.testing.assert_array_equal(own, np.repeat([0, 1], 1500))
    np.testing.assert_array_equal(labels, np.tile(digits.train_labels, 2))
    turned = np.rot90(digits.train_images[:, :, :, 0], axes=(1, 2)).reshape(1500, -1)
    np.testing.assert_array_equal(images[1500:], turned)
    assert made.stream(made.data, {}).test.subsets == ("0", "1")
    assert (made.bins, made.bins_per_chunk) == (6, 3)


def test_permutations_and_parts_are_sessions(tiny):
    many = study.make(tiny(order="permutations", sessions=3, subsets="recent"))
    np.testing.assert_array_equal(sessions(many), np.repeat([0, 1, 2], 1500))
    parts = study.make(tiny(order="data", sessions=3))
    assert np.bincount(sessions(parts)).tolist() == [500] * 3
    assert (sessions(parts) != sessions(parts, 1)).any()


def test_classes_come_in_an_order_of_each_run(tiny):
    made = study.make(tiny(classes=(4, 3, 3)))
    labels = made.data[0][1]
    orders = set()
    for seed in range(3):
        own = sessions(made, seed)
        of_class = tuple(int(own[labels == c][0]) for c in range(10))
        assert np.bincount(of_class).tolist() == [4, 3, 3]
        np.testing.assert_array_equal(own, np.array(of_class)[labels])
        orders.add(of_class)
    assert len(orders) > 1


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"order": "rotation"}, "did you mean 'rotations'"),
        ({"classes": (6, 3)}, "must sum to 10 classes"),
        ({"train_examples": 2000}, "there are 1500 examples, not 2000"),
        ({"test_examples": -1}, "number of examples"),
        ({"every": 4}, "positive multiple of every"),
        ({"subsets": "olds"}, "subsets must be one of"),
        ({"order": "data", "subsets": "sessions"}, "subsets must be old_new"),
        ({"order": "rotations", "pretrain__steps": 1}, "order must be classes or data"),
        ({"classes": (), "pretrain__steps": 1}, "classes be given"),
        ({"dataset": "digits+digit"}, "did you mean 'digits'"),
    ],
)
def test_what_cannot_be_run_is_refused(tiny, new, message):
    with pytest.raises(ValueError, match=message):
        made = study.make(tiny(**new))
        made.stream(made.data, {})


@pytest.fixture
def kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "loplax" / "pretrained"


NETWORK = stateless(
    lambda key: {"output": {"kernel": jax.random.normal(key, (4, 3))}},
    lambda params, x: x @ params["output"]["kernel"],
)
X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
DATA = X, (X[:, 0] > 0).astype(np.int32)
HOW = {"steps": 150, "batch": 16, "learning_rate": 0.1, "weight_decay": 0.0}


def pretrain(data=DATA, **how):
    how = {**HOW, **how}
    return pretraining.pretrained(NETWORK, losses.cross_entropy, data, **how)


def test_a_network_is_trained_once_for_all(kept, monkeypatch):
    """The same call finds it; other data or settings make another."""
    first = pretrain()
    outputs = DATA[0] @ first[0]["output"]["kernel"]
    assert np.mean(outputs.argmax(1) == DATA[1]) > 0.95
    pretrain(steps=101), pretrain((DATA[0][1:], DATA[1][1:]))
    assert len(list(kept.glob("*.npz"))) == len(list(kept.iterdir())) == 3
    other = NETWORK._replace(apply=lambda p, s, x: (NETWORK.predict(p, s, x) ** 2, s))
    pretraining.pretrained(other, losses.cross_entropy, DATA, **HOW)
    assert len(list(kept.iterdir())) == 4
    monkeypatch.setattr(pretraining, "_train", None)
    jax.tree.map(np.testing.assert_array_equal, pretrain(), first)


def test_features_are_computed_once(kept, monkeypatch):
    """In any batches, and other ones of other weights or inputs."""
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 3, 1), np.uint8)
    mean = lambda weight, x: weight * x.mean((1, 2))
    find = lambda weight, x, batch: pretraining.features(mean, weight, x, batch=batch)
    found = find(np.float32(2), images, 3)
    np.testing.assert_allclose(found, 2 * images.mean((1, 2)) / 255, rtol=1e-6)
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "scaled", None)
        np.testing.assert_array_equal(find(np.float32(2), images, 2), found)
        with pytest.raises(TypeError):
            find(np.float32(3), images, 3)
    assert find(np.float32(2), images[1:], 3).shape == (6, 1)


CONVNEXT = {
    "network": "convnext",
    "classes": (5, 5),
    "convnext__dims": (2, 3, 4),
    "convnext__depths": (1, 1, 1),
    "convnext__frozen": 1,
    "pretrain__steps": 2,
}


def test_a_frozen_trunk_is_what_the_whole_network_begins_with(tiny, kept):
    """The rest of the network, given the features, computes what the whole one does."""
    made, whole = (
        study.make(tiny(**CONVNEXT | new)) for new in ({}, {"convnext__frozen": 0})
    )
    (features, labels), _ = made.data
    (images, same), _ = whole.data
    np.testing.assert_array_equal(labels, same)
    assert features.shape == (1500, 2, 2, 3) and features.dtype == np.float32
    networks = made.network({}), whole.network({})
    key = jax.random.key(0)
    (part, _), (params, _) = (network.init(key) for network in networks)
    assert part.keys() < params.keys() and "stem" not in part
    known = lambda network, params, x: network.predict(params, (), x)[:, :5]
    rest = known(networks[0], part, features[:20])
    np.testing.assert_allclose(
        rest, known(networks[1], params, images[:20] / 255.0), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ({"pretrain__steps": 0}, "first 1 stages know nothing"),
        ({"convnext__frozen": 3}, "one of 3 stages"),
        ({"network": "convnet"}, "did you mean 'convnext'"),
        ({"network": "mlp", "pretrain__weights": "w.safetensors"}, "not of an mlp"),
        ({"methods": ("crelu",)}, "crelu needs a network with"),
    ],
)
def test_networks_that_cannot_be_are_refused(tiny, kept, launched, new, words):
    with pytest.raises(ValueError, match=words):
        launched(None, NAME, tiny(**CONVNEXT | new))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The files of the preset ``paper``, tiny: two data sets, lists, and weights."""
    folder = tmp_path_factory.mktemp("published")
    for name in photographs.CLASSES:
        train, test = (photographs.photographs(name, n, n) for n in (60, 20))
        photographs.prepare(name, folder, {"train": train, "validation": test})
    for part, records in (("train", train[:25]), ("test", test[:12])):
        lines = [f"{record['filename']} {record['label']}\n" for record in records]
        (folder / f"Places_LT_{part}.txt").write_text("".join(lines))
    net = nets.ConvNeXt(4, (4, 6, 8), (1, 1, 1), side=3, patch=4)
    weights = timm_weights.invented(net)
    safetensors_numpy.save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("listed", [True, False])
def test_the_papers_path_runs_on_files_of_its_formats(
    published, launched, changed, kept, tmp_path, listed
):
    sizes = {
        "classes": (4, 1, 2),
        "train_per_class": (10, 0),
        "test_per_class": (0, 3),
        "long_tail": (3, 9, 16),
        "lists": str(published) if listed else "",
        "sides": (20, 16),
        "convnext__dims": (4, 6, 8),
        "convnext__depths": (1, 1, 1),
        "convnext__side": 3,
        "pretrain__weights": str(published / "model.safetensors"),
        "lora__rank": 2,
        "steps": 4,
        "every": 2,
        "batch": 8,
        "er__later": (3, 2, 3),
        "seeds": 2,
        "methods": ("sgm+one_cycle",),
    }
    config = changed(configs.get_config("paper"), **sizes)
    made = study.make(config, published)
    (features, labels), (_, wanted) = made.data
    assert features.shape[1:] == (1, 1, 8)
    assert np.bincount(labels)[:4].max() <= 10
    sizes = np.bincount(labels)[4:]
    assert sizes.sum() == (25 if listed else 16)
    assert (wanted >= 4).sum() == 12 if listed else np.bincount(wanted)[4:].max() <= 3
    found = launched(None, NAME, config, data_dir=published)
    assert np.isfinite(found["loss"].values).all()
    assert set(found["task"].values.ravel()) == {1.0, 2.0}


def test_rate_buffer_and_rank_are_swept_together(tiny, launched):
    """Numbers in one program; sizes make methods of their own."""
    sweep = {"learning_rate": (0.1, 0.01), "er__capacity": (100, 50)}
    sweep |= {"lora__rank": (1, 2)}
    new = {f"sweep__{name.replace('__', '.')}": v for name, v in sweep.items()}
    config = tiny(methods=("er+lora",), seeds=1)
    running.change(config, {n.replace("__", "."): v for n, v in new.items()})
    found = launched(None, NAME, config)
    assert found.sizes["arm"] == 8
    ends = found["loss"].isel(bin=-1, seed=0).values
    assert np.isfinite(ends).all() and len(set(ends.tolist())) == 8


def test_outputs_of_new_classes_are_not_known(kept):
    known = pretrain(steps=1)
    begun = pretraining.begun(NETWORK, known, "output", 2)
    for seed in range(2):
        key = jax.random.key(seed)
        kernel = begun.init(key)[0]["output"]["kernel"]
        np.testing.assert_array_equal(
            kernel[:, :2], known[0]["output"]["kernel"][:, :2]
        )
        drawn = NETWORK.init(key)[0]["output"]["kernel"]
        np.testing.assert_array_equal(kernel[:, 2], drawn[:, 2])


@pytest.fixture(scope="module")
def found(tiny, launched):
    methods = ("bp", "joint", "er+ema")
    return launched(None, NAME, tiny(methods=methods))


def test_a_pretrained_study_begins_after_its_base(tiny, launched, kept):
    new = {"methods": ("bp",), "classes": (5, 5), "hidden": (32,), "seeds": 1}
    new |= {"pretrain__steps": 200, "pretrain__learning_rate": 0.01}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "CHUNK", 200)
        found = launched(None, NAME, tiny(**new)).isel(arm=0, seed=0)
    assert found["task"].values.tolist() == [1.0] * 3
    start = found["test_accuracy_start"].isel(bin=0).to_series()
    assert start["base"] > 0.7 and start["base"] == start["old"]
    assert start["new"] < 0.5 and kept.exists()


def test_the_table_says_what_a_switch_costs(found):
    shown = table.frame(found, plot.FIGURE)
    assert shown["arm"].tolist() == ["bp", "joint", "er+ema", "er+ema (ema)"]
    columns = ["stability gap", "plasticity gap", "knowledge gap", "drop on old"]
    assert {*columns, "accuracy at the end"} <= {*shown.columns}
    # By hand: the mean of 1 - a / a* over the second session, a* of joint training.
    old = found["test_accuracy"].sel(subset="old").values[:, :, 3:]
    gap = np.mean(1 - old / old[1, :, -1:], axis=(1, 2))
    cells = shown["stability gap"][:3].astype(float)
    np.testing.assert_allclose(cells, gap, atol=2e-3)


def test_all_figures_are_drawn(found):
    drawn = figures.draw(found, plot.FIGURE)
    assert {"figure", "gap", "cost"} <= drawn.keys() and "switches" not in drawn
    labels = [text.get_text() for text in drawn["gap"].legends[0].get_texts()]
    assert len(labels) == 4 and "joint" in labels
    titles = [axes.get_title() for axes in drawn["gap"].axes]
    assert "of the first session" in titles and "of all so far" in titles


def test_uncertain_weights_learn_in_a_study(tiny, launched):
    """Seeds side by side, with diagnostics of the means; what works on weights not."""
    new = {"methods": ("mesu", "er+mesu"), "observe": ("weights", "features")}
    dataset = launched(None, NAME, tiny(**new))
    for measure in ("loss", "dead", "weight_magnitude"):
        assert np.isfinite(dataset[measure]).all()
    assert np.isfinite(dataset["test_accuracy"].sel(subset="all")).all()
    for loss in dataset["loss"].values:
        assert len(np.unique(loss)) == loss.size
    for method, slot in {
        "cbp": "wrap",
        "l2_init": "gradient",
        "lora": "around",
    }.items():
        with pytest.raises(ValueError, match=rf"mesu and {method} both claim {slot}"):
            launched(None, NAME, tiny(methods=(f"mesu+{method}",)))


def test_many_sessions_have_a_figure_of_their_own(tiny, launched):
    new = {"order": "permutations", "sessions": 10, "subsets": "recent"}
    sizes = {"steps": 2, "methods": ("bp",), "observe": ("features",)}
    dataset = launched(None, NAME, tiny(**new, **sizes))
    figure = figures.draw(dataset, plot.FIGURE, only="switches")["switches"]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["drop on old", "accuracy on new at the end"]
    assert "dead units" in titles
