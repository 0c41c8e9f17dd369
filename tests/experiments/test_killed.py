"""Studies in sessions that are killed in between end as if they were not."""

import numpy as np
import pytest

from experiments.launch import problems

pytestmark = pytest.mark.usefixtures("quick_compile")
GAP = {"classes": (4, 3, 3), "steps": 6, "every": 2, "hidden": (5,), "batch": 8}
BINARY = {"sessions": 3}
# What a run carries beside its weights: adapters, a teacher, outputs stored with the
# examples, tables of targets, means of weights and of embeddings, importances, norms.
# Each method once, as they share their programs.
CARRYING = [
    ("stability_gap", "er+lora+soft_targets", GAP),
    ("stability_gap", "lwf", GAP),
    ("stability_gap", "derpp", GAP),
    ("stability_gap", "gdumb", GAP),
    ("stability_gap", "er_ace+ema", GAP),
    ("stability_gap", "er+ncm", GAP),
    ("metaplasticity", "running_statistics+ewc+metaplastic", BINARY),
    ("metaplasticity", "running_statistics+si", BINARY),
    ("metaplasticity", "cbp+real_weights", BINARY),
]


@pytest.mark.parametrize(("problem", "method", "sizes"), CARRYING)
def test_killed_between_sessions_it_ends_with_the_same_bits(
    changed, launched, crashed, sharing, tmp_path, problem, method, sizes
):
    def config():
        new = {"methods": (method,), "runs_per_block": 2, "seeds": 2}
        return changed(
            problems.part(problem, "config").get_config("smoke"), **sizes, **new
        )

    expected = launched(None, problem, config())
    crashed(tmp_path, problem, config(), 1)
    crashed(tmp_path, problem, config(), 1)
    found = launched(tmp_path, problem, config())
    for name, values in expected.data_vars.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
