"""mesu: normal distributions of weights, which learn and forget by Bayes' rule."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from loplax import optim

STEPS = 100


def learn(tx, weights, slopes, steps=STEPS, **extra):
    """The distributions after steps along ``slopes(step, weights)``."""

    def step(weights, i):
        updates, _ = tx.update(slopes(i, weights), (), weights, **extra)
        return optax.apply_updates(weights, updates), weights

    return jax.lax.scan(step, weights, jnp.arange(steps))


def bowl(curvature, centre):
    """Gradients of the expectation of ``h/2 (w - c)^2`` over normal weights, exactly.

    That expectation is ``h/2 ((mean - c)^2 + deviation^2)``.
    """

    def slopes(i, weights):
        distance = jax.tree.map(lambda m, c: m - c, weights.mean, centre)
        times = lambda tree: jax.tree.map(lambda h, x: h * x, curvature, tree)
        return optim.Gaussian(times(distance), times(weights.deviation))

    return slopes


def by_loops(means, deviations, slopes, *, window, prior_mean, prior_deviation, scale):
    """The paper's formulas in NumPy, one weight and one term after the other."""
    means, deviations = np.array(means), np.array(deviations)
    for slope_mean, slope_deviation in zip(*slopes, strict=True):
        for i in np.ndindex(means.shape):
            mu, sigma = means[i], deviations[i]
            down = sigma * sigma * (scale * slope_mean[i])
            back = sigma * sigma / (window * prior_deviation**2) * (prior_mean - mu)
            surer = 0.5 * sigma * sigma * (scale * slope_deviation[i])
            wider = sigma * (prior_deviation**2 - sigma * sigma)
            means[i] = mu - down + back
            deviations[i] = sigma - surer + wider / (2 * window * prior_deviation**2)
    return means, deviations


def test_the_formulas_of_the_paper(net):
    """To 1e-12 over 100 steps, with a sum in place of the mean over 8 examples."""
    numbers = {"window": 50.0, "prior_mean": 0.3, "prior_deviation": 0.7}
    random = np.random.default_rng(0)
    with jax.enable_x64(True):
        means = net.random(0, dtype="float64")
        deviations = jax.tree.map(lambda m: 0.1 + 0.2 * jnp.abs(m), means)
        draw = lambda m: jnp.asarray(0.05 * random.normal(size=(STEPS, *m.shape)))
        grads = optim.Gaussian(jax.tree.map(draw, means), jax.tree.map(draw, means))
        slopes = lambda i, weights: jax.tree.map(lambda g: g[i], grads)
        start = optim.gaussian(means, deviations)
        run = jax.jit(lambda w: learn(optim.mesu(**numbers), w, slopes, examples=8)[0])
        found, start, grads = jax.device_get((run(start), start, grads))
    for name in means:
        expected = by_loops(
            start.mean[name],
            start.deviation[name],
            (grads.mean[name], grads.deviation[name]),
            scale=8,
            **numbers,
        )
        np.testing.assert_allclose(found.mean[name], expected[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            found.deviation[name], expected[1], rtol=0, atol=1e-12
        )
        assert np.abs(found.mean[name] - start.mean[name]).max() > 0.01


def test_a_linear_model_ends_at_its_posterior_of_the_window():
    """Squared error of ``X w``, whose curvature is known and the same at each step.

    Columns of ``X`` are orthogonal, so that the posterior is a product.
    """
    window, prior_mean, prior_deviation = 40.0, -0.5, 2.0
    with jax.enable_x64(True):
        x = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (9, 3)))[0]
        x, y = x * jnp.array([0.3, 1.0, 2.0]), jnp.arange(9.0)

        def loss(weights):
            mean = 0.5 * jnp.sum((x @ weights.mean - y) ** 2)
            return mean + 0.5 * jnp.sum((x * weights.deviation) ** 2)

        tx = optim.mesu(window, prior_mean=prior_mean, prior_deviation=prior_deviation)
        start = optim.gaussian(jnp.zeros(3), 0.3)
        slopes = lambda i, weights: jax.grad(loss)(weights)
        found = jax.jit(lambda: learn(tx, start, slopes, 20_000)[0])()
        precision = window * jnp.sum(x**2, axis=0) + prior_deviation**-2
        evidence = window * x.T @ y + prior_mean * prior_deviation**-2
        np.testing.assert_allclose(found.deviation, precision**-0.5, rtol=1e-8)
        np.testing.assert_allclose(found.mean, evidence / precision, rtol=1e-8)


def test_drawn_weights_give_the_gradients_of_the_expectation():
    """With the draws of `sample`, the same fixed point up to their noise."""
    curvature = jnp.array([0.1, 1.0, 4.0])

    def loss(weights, key):
        return 0.5 * jnp.sum(curvature * optim.sample(weights, key) ** 2)

    def slopes(i, weights):
        draws = jax.random.split(jax.random.fold_in(jax.random.key(1), i), 64)
        mean = lambda w: jnp.mean(jax.vmap(loss, (None, 0))(w, draws))
        return jax.grad(mean)(weights)

    start = optim.gaussian(jnp.zeros(3), 0.2)
    _, path = jax.jit(lambda: learn(optim.mesu(50.0), start, slopes, 4000))()
    expected = (50 * curvature + 1) ** -0.5
    found = jnp.mean(path.deviation[2000:], axis=0)
    np.testing.assert_allclose(found, expected, rtol=0.02)


def test_without_forgetting_weights_only_become_surer():
    """For a window without end each step adds its curvature to the precision."""
    curvature = jnp.array([0.0, 0.01, 0.1])
    start = optim.gaussian(jnp.zeros(3), 0.1)
    last, path = learn(optim.mesu(1e30), start, bowl(curvature, jnp.ones(3)))
    moved = np.diff(path.deviation, axis=0)
    assert np.all(moved[:, 0] == 0) and np.all(moved[:, 1:] < 0)
    expected = (100 + STEPS * curvature) ** -0.5
    np.testing.assert_allclose(last.deviation, expected, rtol=1e-3)


def test_without_gradients_weights_go_back_to_the_prior():
    """At a rate of 1 / window: means exactly so, deviations when they are near."""
    window, prior = 20.0, 0.5
    tx = optim.mesu(window, prior_mean=2.0, prior_deviation=prior)
    nothing = lambda i, weights: jax.tree.map(jnp.zeros_like, weights)
    with jax.enable_x64(True):
        sure = optim.gaussian(jnp.array([5.0, -1.0]), prior)
        last = learn(tx, sure, nothing)[0]
        np.testing.assert_allclose(
            last.mean, 2 + (sure.mean - 2) * (1 - 1 / window) ** STEPS, rtol=1e-12
        )
        np.testing.assert_array_equal(last.deviation, sure.deviation)
        away = optim.gaussian(jnp.zeros(2), jnp.array([0.1, 0.9]))
        path = learn(tx, away, nothing, 300)[1].deviation
        apart = np.abs(np.asarray(path) - prior)
        assert np.all(np.diff(apart, axis=0) < 0)
        near = apart[-1] / apart[-2]
        np.testing.assert_allclose(near, 1 - 1 / window, rtol=1e-3)


def test_a_sure_weight_moves_less(net):
    """By the square of its deviation, for the same gradient."""
    params, grads = net.random(0), net.random(1)
    tx = optim.mesu(1e30)
    pairs = optim.Gaussian(grads, jax.tree.map(jnp.zeros_like, grads))
    of = lambda s: tx.update(pairs, (), optim.gaussian(params, s))[0].mean
    wide, narrow = of(0.4), of(0.1)
    for name in params:
        np.testing.assert_allclose(wide[name], 16 * narrow[name], rtol=1e-5)


def test_no_step_is_longer_than_the_clip(net):
    """Times the deviation; what is shorter is as without it."""
    params = net.random(0)
    grads = optim.Gaussian(net.random(1), net.random(2))
    weights = optim.gaussian(params, 0.5)
    free, _ = optim.mesu(10.0).update(grads, (), weights)
    bound, _ = optim.mesu(10.0, clip=0.4).update(grads, (), weights)
    both = zip(*map(jax.tree.leaves, (free, bound)), strict=True)
    for one, other in both:
        np.testing.assert_allclose(np.clip(one, -0.2, 0.2), other, rtol=1e-6)
    assert max(np.abs(x).max() for x in jax.tree.leaves(free)) > 0.2


def test_seeds_and_windows_side_by_side():
    """A vmap over keys and traced numbers is each run alone."""
    curvature = jnp.array([0.1, 1.0])

    def run(seed, window, prior):
        key_start, key_draws = jax.random.split(jax.random.key(seed))
        means = jax.random.normal(key_start, (2,))
        tx = optim.mesu(window, prior_deviation=prior, clip=0.5)

        def slopes(i, weights):
            draw = functools.partial(optim.sample, key=jax.random.fold_in(key_draws, i))
            return jax.grad(lambda w: 0.5 * jnp.sum(curvature * draw(w) ** 2))(weights)

        return learn(tx, optim.gaussian(means, prior / 4), slopes)[0]

    seeds = jnp.arange(3)
    windows, priors = jnp.array([5.0, 50.0]), jnp.array([0.5, 2.0])
    table = jax.vmap(jax.vmap(run, (None, 0, 0)), (0, None, None))
    found = jax.jit(table)(seeds, windows, priors)
    alone = jax.jit(run)
    for i in range(3):
        for j in range(2):
            expected = alone(seeds[i], windows[j], priors[j])
            pick = jax.tree.map(lambda x, i=i, j=j: x[i, j], found)
            same = functools.partial(np.testing.assert_allclose, rtol=1e-5)
            jax.tree.map(same, pick, expected)
    assert len(np.unique(found.mean)) == found.mean.size


def test_every_weight_is_drawn_by_itself(net):
    """Gradients of a draw are 1 to the mean, and the draw itself to the deviation."""
    weights = optim.gaussian(net.random(0), 0.5)
    drawn = optim.sample(weights, jax.random.key(0))
    noise = jax.tree.map(lambda w, m: np.asarray((w - m) / 0.5), drawn, weights.mean)
    values = np.concatenate([x.ravel() for x in noise.values()])
    assert len(np.unique(values)) == values.size
    total = lambda w: sum(
        jnp.sum(x) for x in optim.sample(w, jax.random.key(0)).values()
    )
    slopes = jax.grad(total)(weights)
    for name in noise:
        np.testing.assert_array_equal(slopes.mean[name], 1)
        np.testing.assert_allclose(slopes.deviation[name], noise[name], rtol=1e-4)


def test_deviations_have_the_types_of_their_weights():
    params = {"w": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.zeros(3)}
    weights = optim.gaussian(params, {"w": 0.1, "b": jnp.arange(1.0, 4.0)})
    of = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert of(weights.deviation) == of(weights.mean) == of(params)
    np.testing.assert_array_equal(weights.deviation["b"], [1, 2, 3])
    assert of(optim.sample(weights, jax.random.key(0))) == of(params)


def test_distributions_have_arrays_of_their_own():
    """Those who hand theirs over, to a program that may reuse them, keep the others."""
    params, deviations = {"w": jnp.ones(3)}, {"w": jnp.full(3, 0.1)}
    step = jax.jit(
        lambda weights: jax.tree.map(lambda x: x + 1, weights), donate_argnums=0
    )
    step(optim.gaussian(params, deviations))
    np.testing.assert_array_equal(params["w"], 1)
    np.testing.assert_array_equal(deviations["w"], np.float32(0.1))


def test_deviations_may_be_traced():
    found = jax.vmap(lambda s: optim.gaussian(jnp.ones(2), s))(jnp.array([0.1, 0.2]))
    np.testing.assert_array_equal(found.deviation[:, 0], np.float32([0.1, 0.2]))


@pytest.mark.parametrize("half", ["mean", "deviation"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_refused(net, dtype, half):
    """There the steps of a window of 999 are rounded away, far from where they lead."""
    weights = optim.gaussian(net.random(0), 0.5)
    part = getattr(weights, half)
    part |= {"w1": part["w1"].astype(dtype)}
    tx, words = optim.mesu(999.0), f"got {dtype} for '{half}/w1': .*rounds away"
    with pytest.raises(ValueError, match=words):
        tx.update(weights, (), weights)


def update(p, grads=None, **extra):
    weights = optim.gaussian(p, 0.5)
    return optim.mesu(1.0).update(grads or weights, (), weights, **extra)


MISTAKES = {
    r"window must be in \(0, inf\), got 0": lambda p: optim.mesu(0.0),
    "window must be in .* got -5": lambda p: optim.mesu(-5),
    "window must be in .* got nan": lambda p: optim.mesu(float("nan")),
    "window must be a number": lambda p: optim.mesu(lambda step: 1.0),
    "prior_mean must be in .* got inf": lambda p: optim.mesu(
        1.0, prior_mean=float("inf")
    ),
    r"prior_deviation must be in \(0": lambda p: optim.mesu(1.0, prior_deviation=0.0),
    r"clip must be in \(0, 1\), got -1": lambda p: optim.mesu(1.0, clip=-1.0),
    r"clip must be in \(0, 1\), got 1\.": lambda p: optim.mesu(1.0, clip=1.0),
    r"deviation must be in \(0, inf\), got 0": lambda p: optim.gaussian(p, 0.0),
    r"deviation must be in \[6.*e-05, inf\), got 0": lambda p: optim.gaussian(
        p["w0"].astype(jnp.float16), 1e-9
    ),
    "deviation must be in .*, got inf": lambda p: optim.gaussian(
        p["w0"].astype(jnp.float16), 1e9
    ),
    "of floating-point parameters, got int32": lambda p: optim.gaussian(
        {"n": jnp.arange(3)}, 0.5
    ),
    "deviation must be a tree like params": lambda p: optim.gaussian(p, {"w0": 0.5}),
    "deviation must be a tree like .* got .*None": lambda p: optim.gaussian(p, None),
    "weights must have an uncertainty, .*got dict": lambda p: optim.sample(
        p, jax.random.key(0)
    ),
    "grads must have an uncertainty, .*got dict": lambda p: update(p, p),
    "grads must be a tree like params": lambda p: update(
        p, optim.gaussian(p | {"n": p["w0"]}, 0.5)
    ),
    r"grads must have 'mean/w1', .*got \(2, 4\)": lambda p: update(
        p, optim.gaussian(p | {"w1": p["w1"][:2]}, 0.5)
    ),
    r"examples must be in \(0, inf\), got 0": lambda p: update(p, examples=0),
    "examples must be in .*got -3": lambda p: update(p, examples=-3),
    "examples must be in .*got nan": lambda p: update(p, examples=np.nan),
    "examples must be a number, got None": lambda p: update(p, examples=None),
    "deviation must be in .* got -1": lambda p: optim.gaussian(
        p, jax.tree.map(lambda x: -jnp.ones(()), p)
    ),
    "key must be a typed key": lambda p: optim.sample(optim.gaussian(p, 1.0), 0),
    "needs params, got None": lambda p: optim.mesu(1.0).update(p, ()),
    "params must have an uncertainty.*got dict": lambda p: optim.mesu(1.0).update(
        p, (), p
    ),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes(net, words):
    """Are errors in words, before anything is computed."""
    with pytest.raises(ValueError, match=words):
        MISTAKES[words](net.random(0))
