"""The laws of units, tried on a model with random parameters."""

from collections.abc import Callable, Iterable
from typing import Any

from loplax.units import checks, discover, groups, laws, trial


def verify(
    apply: Callable[..., Any],
    params: Any,
    *inputs: Any,
    units: Iterable[groups.UnitGroup] | None = None,
    has_aux: bool = False,
    draws: int = 3,
    seed: int = 0,
) -> groups.Units:
    r"""Tries the three laws of units on a model, with random parameters.

    With output :math:`f`, per unit :math:`u` the entering parameters :math:`\theta_u`
    (incoming weights, biases, scales), outgoing weights :math:`w_u` and activations
    :math:`a_u` at all examples and positions, it is tried whether

    (a) :math:`f(\theta', w_u = 0) = f(\theta, w_u = 0)` if only :math:`\theta_u` was
        changed: for single units, and for all of a group at once, where
        ``UnitGroup.coupled_by`` names statistics only so. With the incoming weights at
        0 and the same numbers for all units in each bias and scale, :math:`a_u` must be
        the same for all: what else enters is shared, as is the one slope of a PReLU.
        (Not tried if ``tied_to`` names constants, which enter the units too. If it
        names random numbers, :math:`a_u` must not depend on other parameters with as
        many entries as there are units.) And :math:`f(\theta') \ne f(\theta)` while the
        outgoing weights are not 0.
    (b) a reader computes :math:`\sum_u a_u w_u` and nothing else from the units:
        :math:`f(w + n \otimes d) = f(w)` for every :math:`n` with
        :math:`\sum_u a_u n_u = 0` and any :math:`d`, where :math:`a` is the activation
        that the reader's ``feature`` names, with the reader's ``positions``, over which
        :math:`u` runs too. With the incoming weights at 0, so that
        :math:`a_u = c_u` everywhere, other biases and scales make it
        :math:`c'_u`, and :math:`f(c', w c / c') = f(c, w)`. A weight that enters
        through a function is no number to compute with: in place of both, units with
        the same :math:`a_u` exchange what the reader has for them.
    (c) :math:`f` stays the same if units change places with all that they own, within
        each of ``UnitGroup.blocks`` blocks, which the groups of a convolution that
        reads them hold whole. Where ``tied_to`` names what stays behind
        (a dropout mask, running statistics), the law holds in distribution at most and
        is not tried.

    Random keys and vectors among the inputs (running statistics) are used as given; a
    little noise is added to other real numbers; and for (b) the inputs are also made
    alike, those of the first place everywhere. Equal runs are compared up to the square
    root of the precision of the coarsest numbers in them. (b) says less where examples
    and positions with different inputs outnumber the units.

    Args:
      apply: the model, as for ``find``.
      params: its parameters, or their shapes; or a module. Only shapes are used.
      *inputs: a small batch of inputs.
      units: the groups to try; by default those that ``find`` gives. What enters and
        what is read, (b) included, is only tried for keys that ``tap`` gives, too.
      has_aux: whether ``apply`` returns ``(output, aux)``.
      draws: how many random sets of parameters are tried.
      seed: for the random numbers.

    Returns:
      The groups that were tried.

    Raises:
      ValueError: if a law does not hold; the message names group and law. Also if the
        groups do not fit the parameters, or the output has no real numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from loplax import units
      >>> def apply(params, x):
      ...     return jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"]
      >>> params = {"w1": jnp.ones((3, 4)), "b1": jnp.ones(4), "w2": jnp.ones((4, 2))}
      >>> units.verify(apply, params, jnp.ones((2, 3))).names
      ('w1',)
    """
    if units is None:
        units = discover.find(apply, params, *inputs, has_aux=has_aux)
    units = units if isinstance(units, groups.Units) else groups.Units(units)
    checks.check(units, params)
    bench, seen = trial.prepare(apply, params, inputs, has_aux, seed), set()
    for _ in range(draws):
        drawn = laws.draw(bench)
        for group in units:
            laws.try_all(bench, drawn, group)
            if group.name not in seen and laws.is_seen(bench, drawn, group):
                seen.add(group.name)
    for group in units:
        if group.name not in seen:
            laws.fail(group, "a", "the output depends on nothing that enters the units")
    return units
