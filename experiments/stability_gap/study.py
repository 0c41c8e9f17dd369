"""The stability gap: what a configuration means."""

from experiments.stability_gap import networks
from experiments.studies import learning, sessions
from loplax import nets


def make(config, data_dir: str | None = None) -> learning.Study:
    """The study of a configuration.

    Args:
      config: a configuration as ``config.get_config`` returns it.
      data_dir: where the data set is, or is to be prepared.

    Returns:
      The study.

    Raises:
      ValueError: for an unknown name or a size that is out of range, or if there is no
        data.
    """
    train, test, classes, origins = sessions.examples(config, data_dir)
    base = networks.base(config)
    train, test, split = sessions.in_sessions(config, train, test, origins, base)
    network, train, test = networks.made(config, classes, base, train, test)
    return sessions.make(
        config,
        (train, test),
        network,
        split,
        classes,
        known=base > 0,
        initializer=nets.kaiming_uniform(config.activation),
        options=networks.NETWORKS[config.network].options,
        test_starts=True,
    )
