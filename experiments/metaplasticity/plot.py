"""Draws the figures of a study of metaplasticity.

python -m experiments.metaplasticity.plot WORKDIR
"""

from experiments.figures import figures

FIGURE = figures.Figure(
    "test_accuracy",
    "accuracy on all tasks",
    "Metaplasticity",
    higher_is_better=True,
)

if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
