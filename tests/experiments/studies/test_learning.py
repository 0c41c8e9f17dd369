"""From a configuration to learners: what the studies of all experiments share."""

import functools
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend import core

from experiments.methods.table import PLUGINS
from experiments.permuted_mnist import config as images_configs
from experiments.permuted_mnist import study as images
from experiments.slowly_changing_regression import config as configs
from experiments.slowly_changing_regression import study as regression
from experiments.stability_gap import config as gap_configs
from experiments.stability_gap import study as stability_gap
from experiments.studies import defaults, learning
from loplax import nets, supervised
from loplax.optim import paths

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def quick(changed):
    """A configuration of a small study of slowly-changing regression."""
    small = {"examples": 40, "bin": 20, "stream__period": 10}
    return lambda **new: changed(configs.get_config("smoke"), **(small | new))


def test_whole_parts():
    assert learning.whole("tasks", 12, "bin", 4) == 3
    for number, part in ((12, 5), (0, 4), (-12, 4), (12, 0), (12, -4)):
        with pytest.raises(ValueError, match=rf"tasks \({number}\).*bin \({part}\)"):
            learning.whole("tasks", number, "bin", part)


def test_names_in_one_word_are_separated():
    assert learning.words(("bp,cbp", "linear")) == ("bp", "cbp", "linear")
    assert learning.words(()) == ()


def test_widths_of_layers_with_two_outputs_a_unit():
    assert learning.widths((5, 64, 1), "relu") == (5, 64, 1)
    assert learning.widths((5, 64, 1), "crelu") == (2, 32, 1)
    assert learning.widths((0, -1), "crelu") == (0, -1)  # for the network to refuse


def test_to_build_methods_compiles_nothing(quick, caplog):
    """So that a finished study answers at once."""
    jax.clear_caches()  # of what other tests compiled
    jax.random.key(0)
    config = quick(sweep__cbp__replacement_rate=(0.1, 0.2))
    with jax.log_compiles():
        study = regression.make(config)
        for name in ("bp", "cbp+layer_norm", "input_normalization", "upgd+l2_init"):
            study.method(config, name)
    assert any("Finished tracing" in text for text in caplog.messages)
    assert not [text for text in caplog.messages if text.startswith("Compiling")]


@pytest.mark.parametrize("bins", [1, 3, 7, 10, 50, 800])
def test_segments_divide_a_run(quick, bins):
    study = regression.make(quick(examples=20 * bins))
    number, per_segment = study.segments
    assert number * per_segment == study.bins == bins
    assert 1 <= per_segment <= learning.BINS_PER_SEGMENT
    assert study.steps_per_bin == 20


# What a learner is.


def one_chunk(study, build):
    """``(key, hparams) -> (state, state after a chunk, measures)``."""

    def run(key, hparams):
        state = supervised.init(build, key, hparams, study.data)
        problem = build(hparams, state.key_tx, study.data)
        stream, items = problem.stream.draw(state.stream)
        state = state._replace(stream=stream)
        return state, *supervised.learn(problem, state, items)

    return run


def assert_learns_in_shape(study, config, name):
    """A chunk keeps the types of the state, so that it can be looped over."""
    build = learning.problem(study, config, name)
    numbers = study.method(config, name).hparams
    hparams = dict.fromkeys(numbers, jax.ShapeDtypeStruct((), jnp.float32))
    before, after, found = jax.eval_shape(
        one_chunk(study, build), jax.random.key(0), hparams
    )
    types = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    assert types(after) == types(before)
    stream = study.stream(study.data, study.numbers)
    assert found["loss"].shape == (stream.chunk,)


# Of the problems, this one tests nothing, and has no sessions.
FOREIGN = [n for n, p in PLUGINS.items() if p.options.keys() - defaults.OPTIONS]
METHODS = [
    name
    for name, plugin in PLUGINS.items()
    if not (plugin.evaluated or plugin.sessions or name in FOREIGN)
]
NAMES = tuple(PLUGINS)
# Each plugin with the one before it in the table, and with the seventh before it.
PAIRS = [f"{one}+{NAMES[i - k]}" for k in (1, 7) for i, one in enumerate(NAMES)]


def test_every_method_learns_with_adam(quick):
    """With SGD, see below."""
    config = quick(optimizer="adam")
    study = regression.make(config)
    for name in METHODS:
        assert_learns_in_shape(study, config, name)


def clash(text, one, other):
    """Whether it says that both claim something."""
    return f"{one} and {other} both" in text or f"{other} and {one} both" in text


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_learn_or_are_refused_by_name(quick, name):
    config = quick()
    study = regression.make(config)
    one, other = name.split("+")
    try:
        assert_learns_in_shape(study, config, name)
    except ValueError as error:
        both = clash(str(error), one, other)
        layerless = "linear" in name and "no hidden layer" in str(error)
        elsewhere = re.match(
            r"(\w+) (needs .* in sessions|needs a network with|is tested)", str(error)
        )
        assert both or layerless or elsewhere[1] in (one, other)


IN_SESSIONS = [name for name, plugin in PLUGINS.items() if plugin.sessions]
BESIDE = ("cbp", "ema", "plasticity_injection", "input_normalization", "full_reset")


@pytest.fixture(scope="module")
def gap(changed):
    """A configuration and study of images that are learned in sessions."""
    small = {"hidden": (4,), "steps": 4, "train_examples": 100, "observe": ()}
    small["plasticity_injection__injection_step"] = 4
    config = changed(gap_configs.get_config("smoke"), **small)
    return stability_gap.make(config), config


@pytest.mark.parametrize("name", IN_SESSIONS)
def test_what_needs_sessions_learns_in_them(gap, name):
    """Alone, and beside what it does not clash with: some, and two of the table."""
    assert_learns_in_shape(*gap, name)
    at = IN_SESSIONS.index(name)
    for other in (*BESIDE, IN_SESSIONS[at - 1], IN_SESSIONS[at - 7]):
        try:
            assert_learns_in_shape(*gap, f"{name}+{other}")
        except ValueError as error:
            assert clash(str(error), name, other) or "has no embed" in str(error)


@pytest.mark.parametrize("name", IN_SESSIONS)
def test_what_needs_sessions_is_refused_without_any(quick, name):
    study, config = regression.make(quick()), quick()
    with pytest.raises(ValueError, match=f"^{name} needs a problem that is learned in"):
        study.method(config, f"bp+{name}")


def test_methods_of_the_injected_network_know_its_units(quick):
    """Else parsevals would be of no weight at all."""
    config = quick(parseval__strength=0.5)
    study = regression.make(config)
    build = learning.problem(study, config, "plasticity_injection+parseval")
    method = study.method(config, "plasticity_injection+parseval")
    key = jax.random.key(0)
    at_once = method.hparams | {"plasticity_injection.injection_step": 0}
    problem = build(at_once, key, study.data)
    params, _ = problem.network.init(key)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = problem.tx.update(zero, problem.tx.init(params), params)
    assert np.abs(updates["new"]["hidden_0"]["kernel"]).max() > 0
    assert np.abs(updates["new"]["output"]["kernel"]).max() == 0


def test_what_is_evaluated_needs_a_test(quick):
    config = quick(methods=("ema",))
    with pytest.raises(ValueError, match="ema is tested, and this problem tests noth"):
        regression.make(config).method(config, "ema")


@pytest.mark.parametrize("activation", nets.ACTIVATIONS)
def test_every_activation_learns(quick, activation):
    config = quick(activation=activation, hidden=(4, 3))
    study = regression.make(config)
    for name in ("bp", "cbp"):
        assert_learns_in_shape(study, config, name)


def primitives(jaxpr):
    """Names of all operations, at whatever depth."""
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for value in jax.tree.leaves(eqn.params, is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                yield from primitives(getattr(value, "jaxpr", value))


def _is_jaxpr(value):
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def assert_no_host(jaxpr):
    words = ("callback", "infeed", "outfeed", "host", "print", "device_put", "io_")
    found = set(primitives(jaxpr))
    assert not [name for name in found if any(word in name for word in words)]


def test_the_host_would_be_seen():
    def body(i, x):
        return jax.lax.cond(x > 0, lambda: (jax.debug.print("{}", x), x)[1], lambda: x)

    loop = jax.jit(jax.vmap(lambda x: jax.lax.fori_loop(0, 3, body, x)))
    with pytest.raises(AssertionError):
        assert_no_host(jax.make_jaxpr(loop)(jnp.ones(2)).jaxpr)


@pytest.mark.parametrize("name", METHODS)
def test_no_segment_waits_for_the_host(quick, name):
    """No callback and no transfer; for backprop, with all diagnostics."""
    config = quick(observe=tuple(supervised.FAMILIES) if name == "bp" else ())
    study = regression.make(config)
    learner = study.method(config, name).learner
    numbers = study.method(config, name).hparams
    hparams = {name: jnp.float32(value) for name, value in numbers.items()}
    state = jax.eval_shape(learner.init, jax.random.key(0), hparams, study.data)
    closed = jax.make_jaxpr(learner.segment)(state, study.data)
    assert "scan" in set(primitives(closed.jaxpr))
    assert_no_host(closed.jaxpr)


def test_steps_are_unrolled_as_configured(quick):
    for unroll in (1, 4):
        config = quick(unroll=unroll)
        method = regression.make(config).method(config, "bp")
        state = jax.eval_shape(method.learner.init, jax.random.key(0), method.hparams)
        text = str(jax.make_jaxpr(method.learner.segment)(state))
        assert f"unroll={unroll}" in text


@pytest.mark.parametrize("fresh", [True, False])
def test_a_fresh_network_learns_where_wanted(quick, fresh):
    config = quick()
    study = regression.make(config)._replace(fresh=fresh)
    method = study.method(config, "bp")
    state = jax.eval_shape(method.learner.init, jax.random.key(0), method.hparams)
    _, found = jax.eval_shape(method.learner.segment, state)
    assert ("loss_fresh" in found) == fresh
    assert {values.shape for values in found.values()} == {(study.segments[1],)}


def test_a_rate_of_zero_is_allowed(quick):
    """A sweep of rates may begin at none."""
    for config in (
        quick(cbp__replacement_rate=0.0),
        quick(sweep__cbp__replacement_rate=(0.0, 1e-3)),
    ):
        method = regression.make(config).method(config, "cbp")
        assert method.hparams["cbp.replacement_rate"] == config.cbp.replacement_rate


# What a method does beside its transformation.


@pytest.fixture(scope="module")
def digits(changed):
    """A configuration and study of permuted images."""
    small = {"hidden": (4,), "tasks": 2, "period": 10, "observe": ()}
    config = changed(images_configs.get_config("smoke"), **small)
    return config, images.make(config)


def started(build, study, config, name):
    hparams = study.method(config, name).hparams
    numbers = dict.fromkeys(hparams, jnp.float32(1))
    state = supervised.init(build, jax.random.key(0), numbers, study.data)
    return state, build(numbers, state.key_tx, study.data)


NETWORKS = {
    "continual_imagenet": {"hidden": (64,)},
    "incremental_cifar": {"width": 8},
    "permuted_mnist": {"hidden": (64,), "dataset": "digits"},
    "slowly_changing_regression": {"hidden": (200,)},
}


@pytest.mark.parametrize("experiment", NETWORKS)
def test_output_weights_start_again_as_they_started(changed, experiment):
    """They are drawn from another distribution than the hidden layers'."""
    package = importlib.import_module(f"experiments.{experiment}.study")
    preset = importlib.import_module(f"experiments.{experiment}.config")
    sizes = {"weight_resets__factor": 0.999, "weight_resets__period": 1}
    config = changed(preset.get_config("smoke"), **sizes, **NETWORKS[experiment])
    study = package.make(config)
    build = learning.problem(study, config, "weight_resets")
    method = study.method(config, "weight_resets")

    def restart(key):
        hparams = method.hparams
        problem = build(hparams, key, study.data)
        params, _ = problem.network.init(key)
        grads = jax.tree.map(jnp.zeros_like, params)
        updates, _ = problem.tx.update(grads, problem.tx.init(params), params)
        after = optax.apply_updates(params, updates)
        leaves = (paths.by_path(tree).leaves for tree in (params, after))
        head = "/output/kernel"  # what is not returned is not compiled
        return [x for named in leaves for p, x in named.items() if head in f"/{p}"]

    before, after = jax.jit(restart)(jax.random.key(0))
    assert np.mean(before != after) > 0.99
    # The largest of some hundred normal numbers would vary too much.
    for size in (np.std, lambda x: np.quantile(np.abs(x), 0.9)):
        np.testing.assert_allclose(size(after), size(before), rtol=0.2)


def after_task(digits, at_task, name):
    """Parameters before a new task, after it, and those drawn with its key."""
    config, study = digits
    study = study._replace(at_task=at_task)
    build = learning.problem(study, config, name)
    state, problem = started(build, study, config, name)
    if not problem.on_task:
        return None
    (on_task,) = problem.on_task
    key = jax.random.key(5)
    changed = jax.tree.map(lambda x: x + 1, state.params)
    after = on_task(state._replace(params=changed), key).params
    return changed, after, problem.network.init(key)[0]


@pytest.mark.parametrize(
    ("at_task", "name", "what"),
    [
        ((), "bp", "nothing"),
        (("zero_head",), "bp", "zero"),
        (("new_head",), "bp", "draw"),
        ((), "head_reset", "draw"),
        (("zero_head",), "head_reset", "draw"),
        (("zero_head",), "full_reset", "all"),
        (("zero_head",), "linear", "zero"),
    ],
)
def test_new_tasks(digits, at_task, name, what):
    """Of the study's and the method's wishes, the method's counts."""
    found = after_task(digits, at_task, name)
    if what == "nothing":
        assert found is None
        return
    before, after, drawn = found
    for layer in before:
        head = layer == "output"
        expected = drawn if what == "all" or head else before
        for path, leaf in after[layer].items():
            value = 0 if what == "zero" and head else expected[layer][path]
            np.testing.assert_array_equal(leaf, value)


def test_a_schedule_goes_on_when_all_else_starts_again(digits):
    config, study = digits
    study = study._replace(schedule=lambda rate: lambda count: rate * count)
    build = learning.problem(study, config, "full_reset")
    state, problem = started(build, study, config, "full_reset")
    ones = jax.tree.map(jnp.ones_like, state.params)
    for count in range(3):
        updates, opt = problem.tx.update(ones, state.opt, state.params, features={})
        np.testing.assert_allclose(updates["output"]["bias"], -count)
        state = state._replace(opt=opt)
        state = problem.on_task[0](state, jax.random.key(count))


@pytest.mark.parametrize("name", ["bp", "input_normalization", "plasticity_injection"])
def test_features_of_the_study_are_those_of_the_plain_network(digits, name):
    """What a method puts around the network has other parameters and statistics."""
    config, study = digits
    forward, features = (lambda *args: None), (lambda *args: None)
    study = study._replace(forward=forward, features=features)
    build = learning.problem(study, config, name)
    _, problem = started(build, study, config, name)
    assert problem.forward is (forward if name == "bp" else None)
    assert problem.features is (features if name == "bp" else None)
