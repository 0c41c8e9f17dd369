"""Runs slowly-changing regression: configuration -> learners -> sweep -> figure."""

from experiments.launch import program

if __name__ == "__main__":
    program.main(__file__)
