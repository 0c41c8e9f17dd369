"""Continual backpropagation: keep replacing the least useful hidden units."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from loplax import checks
from loplax.optim import initializers, replacement, utilities, wrapper
from loplax.units.groups import UnitGroup

Array = jax.Array


class Budget(NamedTuple):
    """Replacements that a layer may make, as a sum of tiny amounts.

    Attributes:
      due: replacements due but not yet made, float32 scalar.
      missing: what rounding has kept out of ``due`` so far, float32 scalar.
    """

    due: Array
    missing: Array

    def add(self, amount: Array) -> "Budget":
        """Kahan summation: millions of tiny amounts add up to what they should."""
        amount = amount + self.missing
        due = self.due + amount
        return Budget(due, amount - (due - self.due))


class UnitStatistics(NamedTuple):
    """What continual backprop knows of the units of one layer.

    Attributes:
      age: steps since the unit was last replaced, int32 ``[size]``.
      discount: ``decay_rate`` to the power of the steps in the means, float32
        ``[size]``.
      mean_activation: running means of what the outgoing weights multiply, float32
        ``[*positions, size]`` per key of ``features``.
      utility: running mean of the instantaneous utility, float32 ``[size]``.
      budget: the layer's replacements.
    """

    age: Array
    discount: Array
    mean_activation: dict[str, Array]
    utility: Array
    budget: Budget


def continual_backprop(
    inner: optax.GradientTransformation,
    units: Iterable[UnitGroup],
    *,
    replacement_rate: float | Array,
    maturity_threshold: int | Array = 100,
    decay_rate: float | Array = 0.99,
    utility: str = "adaptable_contribution",
    initializer: initializers.Initializers = None,
    budget: str = "eligible",
    bias_transfer: bool = False,
    release: float | Array | None = None,
    max_replacements: int | None = None,
    reset_inner: bool = True,
    key: Array,
) -> optax.GradientTransformationExtraArgs:
    r"""Wraps an optimiser so that the least useful hidden units are replaced.

    After the inner optimiser's step, for every unit with age :math:`a`, activations
    :math:`h` of the forward pass and instantaneous utility :math:`y` (see
    `loplax.optim.utilities`):

    .. math::
      a &\leftarrow a + 1 \\
      f &\leftarrow \eta f + (1 - \eta) \operatorname{mean}(h) \\
      u &\leftarrow \eta u + (1 - \eta) y \\
      c &\leftarrow c + \rho \, |\{a > m\}|, \quad
      k = \lfloor c \rfloor, \quad c \leftarrow c - k

    and the :math:`k` units of lowest :math:`u / (1 - \eta^a)` among those with
    :math:`a > m` start again: incoming weights drawn from ``initializer``, biases and
    scales at their initial values, outgoing weights 0, :math:`u = f = a = 0`, and the
    inner optimiser's state of all these weights back at its initial value. A unit whose
    activation or utility is not finite at a step keeps its means, and is not chosen
    then.

    It must be the last link of a chain, since what comes after would change the new
    weights. The statistics are of the batch that ``features`` hold: under data
    parallelism by ``shard_map`` gather the features first.

    Args:
      inner: the optimiser of all parameters; any optax transformation.
      units: the ``UnitGroup`` records of the layers to maintain, from
        ``loplax.units.find`` or written by hand.
      replacement_rate: :math:`\rho`, fraction of a layer's eligible units replaced per
        step, in [0, 1]. May be traced.
      maturity_threshold: :math:`m`, age in steps a unit must exceed to be eligible. May
        be traced.
      decay_rate: :math:`\eta`, decay of the running means, in [0, 1). May be traced.
      utility: a name in the table of `loplax.optim.utilities`. The default is the
        authors' for their supervised problems; in incremental CIFAR-100 and in
        reinforcement learning they use ``"contribution"``, as in Algorithm 1.
      initializer: distribution of the incoming weights, as in ``jax.nn.initializers``
        ``(key, shape, dtype) -> array``, or one per parameter path; the units run along
        the last axis of ``shape``, whatever the parameter's layout. Default:
        ``he_uniform()``.
      budget: how replacements add up. ``"eligible"``: as above. ``"all"``: :math:`\rho`
        times all units of the layer once one is eligible, as in the authors'
        convolutional code. ``"random"``: nothing adds up; a step replaces one unit with
        probability :math:`\rho |\{a > m\}|` where that is below 1, and its integer part
        otherwise.
      bias_transfer: whether the biases of the next layers absorb the mean output
        :math:`W_\text{out} f / (1 - \eta^a)` of a replaced unit.
      release: for binarised networks: a unit is released instead of replaced. Its
        incoming and outgoing weights :math:`w` become :math:`r \operatorname{sign}(w)`
        with this magnitude :math:`r > 0`; nothing is drawn, and biases, scales and
        running statistics stay. The network computes what it did, exactly, and what had
        been consolidated can change its sign again. An outgoing weight of 0 has the
        sign 0, but after one step it is +-1, as large as any. May be traced.
      max_replacements: static bound on replacements per layer and step. What exceeds
        it waits in the budget, or is dropped if that is random. Default: the rate
        times the layer's size, rounded up; where the rate is traced, the size, so give
        a bound there: only that many columns of new weights are drawn and kept.
      reset_inner: whether the inner state of replaced weights is reset.
      key: typed random key.

    Returns:
      A transformation whose ``update(grads, state, params, *, features)`` takes
      ``features``, the activations from ``loplax.units.tap``. Its state is an
      ``optim.ReplacementState`` with `UnitStatistics` per group name.

    Raises:
      ValueError: on construction, for values out of range, an unknown name, a layer
        without a bias for the transfer, or a release of weights that enter by more than
        their sign or with a transfer; from ``init``, for units that do not fit the
        parameters; from ``update``, for features that are missing or of the wrong
        shape, or inside an optax wrapper that would change the new weights.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from loplax import optim, units
      >>> def apply(params, x):
      ...   return jnp.tanh(x @ params["w"] + params["b"]) @ params["v"]
      >>> params = {"w": jnp.ones((3, 8)), "b": jnp.zeros(8), "v": jnp.ones((8, 1))}
      >>> x = jnp.ones((16, 3))
      >>> tx = optim.continual_backprop(optax.adam(1e-3), units.find(apply, params, x),
      ...                               replacement_rate=1e-4, key=jax.random.key(0))
      >>> def loss(params, x):
      ...   y, features = units.tap(apply)(params, x)
      ...   return jnp.mean(y ** 2), features
      >>> @jax.jit
      ... def step(params, state, x):
      ...   grads, features = jax.grad(loss, has_aux=True)(params, x)
      ...   updates, state = tx.update(grads, state, params, features=features)
      ...   return optax.apply_updates(params, updates), state
      >>> params, state = step(params, tx.init(params), x)
      >>> int(state.units["w"].age[0])
      1

    References:
      Dohare et al., `Loss of plasticity in deep continual learning
      <https://doi.org/10.1038/s41586-024-07711-7>`_, Nature 632, 2024, Algorithm 1.
    """
    checks.in_range("replacement_rate", replacement_rate, 0, 1)
    checks.in_range("maturity_threshold", maturity_threshold)
    checks.in_range("decay_rate", decay_rate, 0, 1, below=True)
    _check_release(release, bias_transfer)
    if max_replacements is not None:
        max_replacements = checks.whole("max_replacements", max_replacements, 1)
    checks.one_of("utility", utility, list(utilities.TERMS))
    checks.one_of("budget", budget, ("eligible", "all", "random"))

    def new(group) -> UnitStatistics:
        means = {name: (*at, group.size) for name, at in group.features.items()}
        return UnitStatistics(
            age=jnp.zeros(group.size, jnp.int32),
            discount=jnp.ones(group.size, jnp.float32),
            mean_activation={n: jnp.zeros(s, jnp.float32) for n, s in means.items()},
            utility=jnp.zeros(group.size, jnp.float32),
            budget=Budget(*jnp.zeros(2, jnp.float32)),
        )

    def observe(group, old: UnitStatistics, step: wrapper.Step):
        """Ages the units, updates their means, and counts what is due."""
        mix = lambda old, new: decay_rate * old + (1 - decay_rate) * new
        batch = {name: jnp.mean(step.features[name], axis=0) for name in group.features}
        mean_activation = jax.tree.map(mix, old.mean_activation, batch)
        discount = decay_rate * old.discount
        means = _corrected(mean_activation, discount)
        noise = lambda: step.key(f"utility of {group.name}")
        now = utilities.instantaneous(
            utility, group, step.weights, step.features, means, noise
        )
        smooth = mix(old.utility, now)
        if not utilities.reads_outputs(utility):
            for mean in mean_activation.values():
                finite = utilities.over_positions(jnp.all, jnp.isfinite(mean))
                smooth = jnp.where(finite, smooth, jnp.nan)
        age, eligible = older(old.age, smooth, maturity_threshold)
        saved, wanted = allow(group, old.budget, jnp.sum(eligible), step)
        # The old age and discount are in memory already, the new ones would have to be
        # written for the branch, which ages them again.
        numbers = jnp.asarray(maturity_threshold), jnp.asarray(decay_rate)
        operands = old.age, old.discount, smooth, wanted, *numbers
        # What is not finite counts for nothing: not in the means, nor in their count.
        known = jnp.isfinite(smooth)
        keep = lambda new, old: jnp.where(utilities.along(known, new), new, old)
        discount, mean_activation, smooth = jax.tree.map(
            keep,
            (discount, mean_activation, smooth),
            (old.discount, old.mean_activation, old.utility),
        )
        statistics = UnitStatistics(age, discount, mean_activation, smooth, saved)
        return statistics, wrapper.Selection(wanted >= 1, operands)

    def older(age, utility, maturity_threshold):
        """The age after this step, and which units may be replaced."""
        age = age + 1
        return age, jnp.isfinite(utility) & (age > maturity_threshold)

    def allow(group, saved: Budget, eligible, step) -> tuple[Budget, Array]:
        """The new budget, and how many replacements are due."""
        counted = group.size * (eligible > 0) if budget == "all" else eligible
        amount = replacement_rate * counted.astype(jnp.float32)
        if budget == "random":
            key = step.key(f"budget of {group.name}")
            one = jax.random.uniform(key, (), jnp.float32) < amount
            return saved, jnp.where(amount < 1, one, amount)
        saved = saved.add(amount)
        return saved, saved.due

    def select(operands, capacity):
        age, discount, utility, wanted, maturity_threshold, decay_rate = operands
        _, eligible = older(age, utility, maturity_threshold)
        ranking = utility / (1 - decay_rate * discount)
        ranking = jnp.where(eligible, ranking, jnp.inf)
        return replacement.lowest(ranking, wanted, capacity)

    def forget(statistics: UnitStatistics, replaced) -> UnitStatistics:
        """Replaced units know nothing; only what was replaced leaves the budget."""
        again = lambda value, first: jnp.where(
            utilities.along(replaced, value), first, value
        )
        spent = 0 if budget == "random" else jnp.sum(replaced)
        saved = statistics.budget
        return UnitStatistics(
            age=again(statistics.age, 0),
            discount=again(statistics.discount, 1),
            mean_activation=jax.tree.map(
                lambda mean: again(mean, 0), statistics.mean_activation
            ),
            utility=again(statistics.utility, 0),
            budget=saved._replace(due=saved.due - spent),
        )

    def means(statistics: UnitStatistics):
        return _corrected(statistics.mean_activation, statistics.discount)

    return wrapper.replacing(
        wrapper.Method(new, observe, select, forget, means),
        inner,
        units,
        capacity=lambda size: _capacity(size, replacement_rate, max_replacements),
        initializer=initializer,
        reset_inner=reset_inner,
        bias_transfer=bias_transfer,
        release=release,
        key=key,
    )


def _check_release(release, bias_transfer: bool) -> None:
    if release is None:
        return
    checks.in_range("release", release, above=True)
    if bias_transfer:
        raise ValueError(
            "release loses nothing that a bias_transfer could make up for."
        )


def _corrected(mean_activation: dict[str, Array], discount: Array):
    """Means that started at 0, as if of the steps since then alone."""
    correct = lambda mean: mean / utilities.along(1 - discount, mean)
    return jax.tree.map(correct, mean_activation)


def _capacity(size: int, rate, max_replacements: int | None) -> int:
    if max_replacements is not None:
        return min(size, max_replacements)
    if isinstance(rate, jax.core.Tracer):
        return size
    return max(1, min(size, math.ceil(float(rate) * size)))
