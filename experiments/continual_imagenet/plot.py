"""Draws the figures of a study of Continual ImageNet.

python -m experiments.continual_imagenet.plot WORKDIR
"""

from experiments.figures import figures

FIGURE = figures.Figure(
    "test_accuracy",
    "test accuracy, mean of 10 tasks",
    "Pairs of classes",
    higher_is_better=True,
    every=10,
    about=lambda config: f"{config['dataset']}, a new pair for every task",
)


if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
