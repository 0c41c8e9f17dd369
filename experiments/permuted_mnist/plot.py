"""Draws the figures of a study of online permuted MNIST.

python -m experiments.permuted_mnist.plot WORKDIR
"""

from experiments.figures import figures

FIGURE = figures.Figure(
    "accuracy",
    "online accuracy",
    "Online permuted images",
    higher_is_better=True,
    about=lambda config: (
        f"{config['dataset']}, a new permutation every {config['period']:,} examples"
    ),
)


if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
