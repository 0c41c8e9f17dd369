"""The program: ``python -m experiments.film``."""

from experiments.film import filming

filming.main()
