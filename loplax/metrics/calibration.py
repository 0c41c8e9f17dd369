"""Whether a network is as sure as it is right."""

from loplax.metrics import arrays
from loplax.metrics.arrays import Array


def expected_calibration_error(logits: Array, labels: Array, bins: int = 15) -> Array:
    r"""ECE: how far confidence and accuracy are apart, on average over confidences.

    .. math::
      \sum_m \frac{|B_m|}{n} \left| \text{acc}(B_m) - \text{conf}(B_m) \right|

    with :math:`B_m` the examples whose confidence, the largest probability, is in
    :math:`((m-1)/M, m/M]`. Empty bins have no part in it.

    Args:
      logits: ``[..., examples, classes]``; logarithms of probabilities are logits too.
      labels: the classes, ``[..., examples]``.
      bins: M.

    Returns:
      In [0, 1], ``[...]``; NaN without examples, or if some are not finite. Logits of
      -inf exclude classes.

    Raises:
      ValueError: if the numbers of examples differ, or bins is not 1 or more.

    Example:
      >>> import numpy as np
      >>> sure, unsure = [0.75, 0.25], [0.5, 0.5]
      >>> logits = np.log([sure, sure, unsure, unsure])
      >>> round(float(expected_calibration_error(logits, [0, 0, 0, 1])), 6)
      0.125

    References:
      Guo et al., `On calibration of modern neural networks
      <https://arxiv.org/abs/1706.04599>`_, 2017.
    """
    if bins < 1 or bins % 1:
        raise ValueError(f"bins must be a whole number, 1 or more, got {bins}.")
    xp, logits, labels = arrays.floats(logits, labels)
    if labels.shape[-1:] != logits.shape[-2:-1]:
        raise ValueError(
            "logits must be [..., examples, classes] and labels [..., examples], got "
            f"{logits.shape} and {labels.shape}."
        )
    highest = xp.max(logits, axis=-1, keepdims=True)
    confidence = 1 / xp.sum(xp.exp(logits - highest), axis=-1)
    right = xp.argmax(logits, axis=-1) == labels
    place = xp.clip(xp.ceil(confidence * bins) - 1, 0, bins - 1)
    inside = place[..., None] == xp.arange(bins)
    apart = xp.sum(xp.where(inside, (right - confidence)[..., None], 0), axis=-2)
    error = xp.sum(xp.abs(apart), axis=-1) / (labels.shape[-1] or xp.nan)
    return xp.where(xp.any(xp.isnan(confidence), axis=-1), xp.nan, error)
