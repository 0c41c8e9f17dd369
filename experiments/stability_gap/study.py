"""The stability gap: what a configuration means."""

from experiments.stability_gap import data, networks
from experiments.studies import learning
from loplax import nets, streams
from loplax.supervised import losses


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
    train, test, classes = data.examples(config, data_dir)
    base = data.base(config)
    train, test, split = data.in_sessions(config, train, test)
    network, train, test = networks.made(config, classes, base, train, test)
    test_batch = min(500, config.test_examples or test[1].size)
    parts = learning.whole("steps", config.steps, "every", config.every)
    learned = split.sessions - (base > 0)

    def stream(data, numbers=()) -> streams.Stream:
        return streams.sessions(
            *data,
            split,
            classes=classes,
            steps=(0,) * (base > 0) + (config.steps,) * learned,
            batch=config.batch,
            subsets=config.subsets,
            test_batch=test_batch,
            probe=test_batch,
        )

    return learning.Study(
        stream=stream,
        network=network,
        length=(),
        loss=losses.cross_entropy,
        initializer=nets.kaiming_uniform(config.activation),
        bins=learned * parts,
        chunks=1,
        batch=config.batch,
        bins_per_chunk=parts,
        test_starts=True,
        measures={"accuracy": losses.accuracy},
        data=(train, test),
        at_task=("new_optimizer",) if config.new_optimizer else (),
        fresh=False,
        bins_per_segment=1,
    )
