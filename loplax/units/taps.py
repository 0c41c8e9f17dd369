"""Reading the activations of hidden units while a model runs."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from loplax.units import discover, flow, hosts, walk


def tap(
    apply: Callable[..., Any], *, has_aux: bool = False
) -> Callable[..., tuple[Any, dict[str, jax.Array]]]:
    """Makes a model also return the activations of its hidden units.

    The activation of a group is the value that meets its outgoing weights, the one that
    utilities are computed from. Where several readers meet different values, as behind
    the norms of a residual stream, there is one activation each. The model is traced
    once and its operations run unchanged: nothing is computed twice, derivative rules
    and ``jax.checkpoint`` regions are kept, and under ``jit`` activations that are not
    used cost nothing.

    Args:
      apply: the model, ``apply(params, *inputs) -> output``. The parameters may be a
        module, as for ``find``; the state of an nnx module moves on as in a plain call.
      has_aux: whether it returns ``(output, aux)``, as for ``find``.

    Returns:
      A function ``(params, *inputs) -> (output, features)``, with the output of
      ``apply`` and, for each group that ``find`` names, the activation ``[..., size]``
      that its first outgoing weight multiplies, under the group's name. The activations
      of other readers are named by ``WeightAxis.feature``: ``"group@path"``. Where
      the reader has weights for several positions, these keep their axes,
      ``WeightAxis.positions``: ``[batch, height * width, channels]`` behind a flattened
      image, ``[batch, height, width, channels]`` under a kernel as large as the image.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from loplax import units
      >>> def apply(params, x):
      ...     return jax.nn.relu(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.ones((3, 4)), "w2": jnp.ones((4, 2))}
      >>> output, features = units.tap(apply)(params, jnp.ones((5, 3)))
      >>> output.shape, features["w1"].shape
      ((5, 2), (5, 4))
    """

    def tapped(params, *inputs):
        traced = hosts.trace(apply, params, inputs, has_aux)
        closed = traced.closed
        taps = discover.analyse(closed, traced.kept, params).taps
        wanted = {(t.address, t.operand): None for t in taps.values()}
        outputs, read = _run(
            closed.jaxpr, closed.consts, traced.leaves, (), list(wanted)
        )
        features = {
            name: _unfold(read[t.address, t.operand], t) for name, t in taps.items()
        }
        output, state = jax.tree.unflatten(traced.structure, outputs)
        traced.write(state)
        return output, features

    return tapped


def _unfold(operand: jax.Array, place: flow.Tap) -> jax.Array:
    """The part of an operand that belongs to a group, its positions and units last."""
    for axis, low, high, interior, extent, stride in place.window:
        pads = [(0, 0, 0)] * operand.ndim
        pads[axis] = low, high, interior
        operand = jax.lax.pad(operand, jnp.zeros((), operand.dtype), pads)
        operand = jax.lax.slice_in_dim(operand, 0, extent, stride, axis)
    if place.length < operand.shape[place.axis]:
        stop = place.start + place.length
        operand = jax.lax.slice_in_dim(operand, place.start, stop, axis=place.axis)
    units = jnp.transpose(operand.reshape(place.shape), place.order)
    if math.prod(place.sizes) > units.size:  # several outputs of a depthwise kernel
        return jnp.broadcast_to(units[..., None, :], place.sizes)
    return units.reshape(place.sizes)


def _run(jaxpr: core.Jaxpr, consts, args, address, wanted):
    """Evaluates a jaxpr and keeps the operands that are wanted.

    Args:
      jaxpr: the jaxpr.
      consts: values of its constants.
      args: values of its inputs.
      address: position of the jaxpr in the model.
      wanted: ``(address, operand)`` of operands inside this jaxpr.

    Returns:
      Its outputs, and the operands by what was wanted.
    """
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, args, strict=True))
    kept: dict[tuple, Any] = {}
    chunk: list[core.JaxprEqn] = []
    for index, eqn in enumerate(jaxpr.eqns):
        here = (*address, index)
        inside = [w for w in wanted if w[0][: len(here)] == here != w[0]]
        if not inside:
            chunk.append(eqn)
            continue
        _run_chunk(jaxpr, chunk, values)
        operands = [_value(values, atom) for atom in eqn.invars]
        results, read = _call(eqn, operands, here, inside)
        values.update(zip(eqn.outvars, results, strict=True))
        kept |= read
        chunk = []
    _run_chunk(jaxpr, chunk, values)
    for at, operand in wanted:
        if len(at) == len(address) + 1:
            atom = jaxpr.eqns[at[-1]].invars[operand]
            kept[at, operand] = _value(values, atom)
    return [_value(values, atom) for atom in jaxpr.outvars], kept


def _value(values, atom):
    return atom.val if isinstance(atom, core.Literal) else values[atom]


def _run_chunk(jaxpr: core.Jaxpr, eqns, values) -> None:
    """Runs consecutive operations as they were traced; adds what they make."""
    made = [var for eqn in eqns for var in eqn.outvars]
    made = [var for var in made if not isinstance(var, core.DropVar)]
    known = list(values)
    part = jaxpr.replace(constvars=[], invars=known, outvars=made, eqns=eqns)
    results = jax.core.eval_jaxpr(part, (), *(values[var] for var in known))
    values.update(zip(made, results, strict=True))


def _call(eqn: core.JaxprEqn, operands, address, wanted):
    """Runs a call whose inside is wanted; a checkpointed one stays checkpointed."""
    inner: Any = walk.sub_jaxpr(eqn)
    consts = []
    if isinstance(inner, core.ClosedJaxpr):
        inner, consts = inner.jaxpr, inner.consts

    def run(*operands):
        return _run(inner, consts, operands, address, wanted)

    if "prevent_cse" in eqn.params:
        policy, prevent_cse = eqn.params["policy"], eqn.params["prevent_cse"]
        run = jax.checkpoint(run, policy=policy, prevent_cse=prevent_cse)
    return run(*operands)
