"""A flax ``TrainState`` whose transformation may need more than gradients."""

import dataclasses
import functools

import optax

from loplax import extras

with extras.needed("nets", "loplax.flax"):
    from flax.training import train_state


class TrainState(train_state.TrainState):
    """``flax.training.train_state.TrainState`` that passes extra arguments on.

    flax's own calls ``tx.update(grads, opt_state, params)`` and nothing more, so what
    needs ``features`` cannot be used with it. All else is inherited, subclassing too.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from loplax import flax, optim, units
      >>> def apply(params, x):
      ...     return jax.nn.relu(x @ params["w1"]) @ params["w2"]
      >>> params = {"w1": jnp.ones((3, 4)), "w2": jnp.ones((4, 2))}
      >>> x, key = jnp.ones((5, 3)), jax.random.key(0)
      >>> hidden, tapped = units.find(apply, params, x), units.tap(apply)
      >>> tx = optim.continual_backprop(
      ...     optax.sgd(0.1), hidden, replacement_rate=1e-4, key=key
      ... )
      >>> state = flax.TrainState.create(apply_fn=tapped, params=params, tx=tx)
      >>> output, features = state.apply_fn(state.params, x)
      >>> grads = jax.tree.map(jnp.ones_like, params)
      >>> state.apply_gradients(grads=grads, features=features).step
      1
    """

    def apply_gradients(self, *, grads, **extra):
        """One step, as in flax.

        Args:
          grads: gradients, with the structure of ``params``.
          **extra: new values of further fields of the state, under the fields' names
            (as in flax); all else goes to ``tx.update``, such as ``features=``.

        Returns:
          The state after the step.
        """
        fields = {field.name for field in dataclasses.fields(self)}
        replaced = {name: extra.pop(name) for name in fields & extra.keys()}
        tx = optax.with_extra_args_support(self.tx)
        update = functools.partial(tx.update, **extra)
        state = self.replace(tx=tx._replace(update=update))
        state = super(TrainState, state).apply_gradients(grads=grads, **replaced)
        return state.replace(tx=self.tx)
