"""Draws the figures of a study of Hopper.

python -m experiments.hopper.plot WORKDIR
"""

from experiments.figures import figures, words

FIGURE = figures.Figure(
    "return",
    "episode return",
    "Hopper, PPO",
    higher_is_better=True,
    steps="environment steps",
    about=words.of_environment,
)


if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
