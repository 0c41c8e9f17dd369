"""Draws the figures of a study of control problems that change.

python -m experiments.nonstationary_control.plot WORKDIR
"""

from experiments.figures import figures, words

FIGURE = figures.Figure(
    "return",
    "episode return",
    "Non-stationary control",
    higher_is_better=True,
    every=3,
    steps="environment steps",
    about=words.of_environment,
)


if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
