"""Runs the quadratic binary task: configuration -> learners -> sweep -> figures."""

from experiments.launch import program

if __name__ == "__main__":
    program.main(__file__)
