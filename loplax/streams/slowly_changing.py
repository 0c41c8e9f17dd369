"""The slowly-changing regression problem: old inputs never come back for long."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from loplax.streams import base

MAX_CHUNK = 10_000


class SlowlyChangingState(NamedTuple):
    """State of the stream.

    Attributes:
      key: typed key of the draws to come.
      position: examples drawn so far, int32 scalar.
      slow: the slow bits, float32 ``[slow]``.
      targets: the target at every setting of the fast bits, ``[2 ** fast]``.
      hidden: target network, +-1 weights and biases ``[inputs + 1, units]``.
      output: its output weights and bias, +-1, ``[units + 1]``.
    """

    key: jax.Array
    position: jax.Array
    slow: jax.Array
    targets: jax.Array
    hidden: jax.Array
    output: jax.Array


def slowly_changing_regression(
    inputs: int = 20,
    slow: int = 15,
    period: int = 10_000,
    flip: str = "all",
    units: int = 100,
    beta: float = 0.7,
) -> base.Stream:
    r"""Bits of which most are constant for a long time, and a random target network.

    Of ``inputs`` bits the first ``slow`` change every ``period`` examples only; the
    others are random at each. The target is a fixed network of linear threshold units,
    all of whose weights are +-1:

    .. math::
      y = \sum_i v_i \, [w_i \cdot x + b_i > \theta_i] + c, \quad
      \theta_i = \beta (m + 1) - S_i, \quad
      S_i = \tfrac12 (m - \textstyle\sum_j w_{ij} + b_i)

    with :math:`m` inputs. A learner with few units must keep changing to track it.

    Args:
      inputs: number of bits :math:`m`.
      slow: number of slow bits.
      period: examples between two changes of the slow bits.
      flip: ``"all"`` re-draws all slow bits at a change, as the authors' default
        configuration does; ``"one"`` flips one at random, as their paper says.
      units: hidden units of the target network.
      beta: how rarely they fire; may be traced.

    Returns:
      The stream; inputs ``[inputs]`` in {0, 1}, targets scalar.

    Raises:
      ValueError: for sizes out of range or an unknown ``flip``.

    Example:
      >>> import jax
      >>> stream = slowly_changing_regression()
      >>> state, items = stream.draw(stream.init(jax.random.key(0)))
      >>> x, y = stream.example(state, items[0])
      >>> x.shape, y.shape
      ((20,), ())

    References:
      Dohare et al., Nature 632, 2024, "Slowly-changing regression".
    """
    fast = inputs - slow
    if not (0 < slow < inputs and fast <= 16):
        raise ValueError(
            f"slow must be 1 to inputs - 1, and inputs - slow at most 16; got "
            f"inputs={inputs}, slow={slow}."
        )
    for name, value in (("period", period), ("units", units)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if not isinstance(beta, jax.core.Tracer) and not math.isfinite(beta):
        raise ValueError(f"beta must be finite, got {beta}.")
    if flip not in ("all", "one"):
        raise ValueError(f"flip must be 'all' or 'one', got {flip!r}.")
    chunk = next(n for n in range(min(period, MAX_CHUNK), 0, -1) if period % n == 0)
    patterns = (np.arange(2**fast)[:, None] >> np.arange(fast)) & 1

    def with_slow(slow_bits) -> jax.Array:
        """All inputs of the current task, ``[2 ** fast, inputs]``."""
        same = jnp.broadcast_to(slow_bits, (2**fast, slow))
        return jnp.concatenate([same, patterns.astype(np.float32)], axis=1)

    def target(slow_bits, hidden, output) -> jax.Array:
        weights, bias = hidden[:-1], hidden[-1]
        negative = (inputs - jnp.sum(weights, axis=0) + bias) / 2
        threshold = beta * (inputs + 1) - negative
        fires = with_slow(slow_bits) @ weights + bias > threshold
        return fires.astype(jnp.float32) @ output[:-1] + output[-1]

    def init(key) -> SlowlyChangingState:
        key, key_hidden, key_output, key_slow = jax.random.split(key, 4)
        hidden = jax.random.rademacher(key_hidden, (inputs + 1, units), jnp.float32)
        output = jax.random.rademacher(key_output, (units + 1,), jnp.float32)
        bits = jax.random.bernoulli(key_slow, shape=(slow,)).astype(jnp.float32)
        targets = target(bits, hidden, output)
        return SlowlyChangingState(key, jnp.int32(0), bits, targets, hidden, output)

    def draw(state) -> tuple[SlowlyChangingState, jax.Array]:
        key, key_slow, key_fast = jax.random.split(state.key, 3)
        if flip == "all":
            bits = jax.random.bernoulli(key_slow, shape=(slow,)).astype(jnp.float32)
        else:
            chosen = jax.random.randint(key_slow, (), 0, slow)
            bits = state.slow.at[chosen].set(1 - state.slow[chosen])
        change = (state.position % period == 0) & (state.position > 0)
        bits = jnp.where(change, bits, state.slow)
        items = jax.random.bits(key_fast, (chunk,), jnp.uint16) >> (16 - fast)
        state = state._replace(
            key=key,
            position=state.position + chunk,
            slow=bits,
            targets=target(bits, state.hidden, state.output),
        )
        return state, items

    def example(state, item) -> tuple[jax.Array, jax.Array]:
        item = item.astype(jnp.int32)
        bits = ((item >> jnp.arange(fast)) & 1).astype(jnp.float32)
        return jnp.concatenate([state.slow, bits]), state.targets[item]

    def probe(state) -> tuple[jax.Array, jax.Array]:
        return with_slow(state.slow), state.targets

    def task(state) -> jax.Array:
        return (state.position - chunk) // period

    return base.Stream(init, draw, example, probe, chunk, task)
