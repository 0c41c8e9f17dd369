"""The problems are the folders with a study."""

import pathlib

import pytest

from experiments.launch import problems


def test_every_problem_has_its_four_files():
    assert len(problems.NAMES) == 12
    for name in problems.NAMES:
        folder = pathlib.Path(problems.part(name, "config").__file__).parent
        for file in ("config", "study", "plot", "run"):
            assert (folder / f"{file}.py").is_file()
        presets = problems.part(name, "config").PRESETS
        assert problems.default_preset(name) == next(iter(presets))
        assert "smoke" in presets


def test_unknown_problems_are_refused():
    with pytest.raises(ValueError, match="problem.*'permuted_mnst'.*'permuted_mnist'"):
        problems.part("permuted_mnst", "config")
