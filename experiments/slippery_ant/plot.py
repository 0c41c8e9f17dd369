"""Draws the figures of a study of Slippery Ant.

python -m experiments.slippery_ant.plot WORKDIR
"""

from experiments.figures import figures, words

FIGURE = figures.Figure(
    "return",
    "episode return",
    "Slippery Ant, PPO",
    higher_is_better=True,
    steps="environment steps",
    about=words.of_environment,
)


if __name__ == "__main__":
    figures.main(FIGURE, __doc__)
