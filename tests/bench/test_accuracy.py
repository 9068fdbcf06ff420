# SPDX-License-Identifier: LGPL-2.1-or-later
"""accuracy.py computes its figures rightly, and finds the reference in the engine's float32 and less of it in int4."""

import json
import math
import pathlib
import subprocess
import sys

import pytest
import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import accuracy  # noqa: E402


def test_figures_of_equal_logits():
    rows = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    found = accuracy.figures([(rows, rows.clone(), [0, 1, 2, 3, 4])])
    assert found["perplexity"] == found["reference_perplexity"]
    assert found["same_choice"] == 1
    assert [found[name] for name in ("first_drift_rms", "first_drift_max", "drift_rms", "drift_max", "divergence")] == [0] * 5


def test_figures_by_hand():
    """Logits 0, 0 and log 3, 0: chances of a half, and of three quarters and a quarter."""
    certain, even = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, 0.0]])
    found = accuracy.figures([(torch.cat([even, even]), torch.cat([certain, certain]), [0, 1])])
    assert found["perplexity"] == pytest.approx(2)
    assert found["reference_perplexity"] == pytest.approx((0.75 * 0.25) ** -0.5)
    assert found["divergence"] == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    # The spread of two numbers is their distance by the square root of 2.
    assert found["drift_max"] == found["first_drift_max"] == pytest.approx(math.sqrt(2))
    assert found["drift_rms"] == pytest.approx(1)


def test_only_the_first_token_of_each_text_counts_as_first():
    theirs = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    ours = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    other = torch.tensor([[1.0, 2.0, 3.0]])  # of another model
    found = accuracy.figures([(ours, theirs, [0, 0]), (ours, theirs, [0, 0]), (other, other, [0])])
    assert found["first_drift_max"] == 0 < found["drift_max"]
    assert (found["same_choice"], found["positions"], found["texts"]) == (0.6, 5, 3)


def test_the_program(tmp_path):
    """Its status is 0 only where float32 is the reference's."""
    file = tmp_path / "figures.json"
    done = subprocess.run([sys.executable, HERE / "accuracy.py", "--formats", "float32", "int4", "--models", "1", "--texts",
                           "1", "--tokens", "4", "--scenes", "1", "--json", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    for kind in ("random", "demo"):
        found = report[kind]
        assert found["float32"]["positions"] == found["int4"]["positions"] >= 4
        assert found["float32"]["drift_rms"] < accuracy.SAME < found["int4"]["drift_rms"]
        assert f"| int4 | {found['int4']['dtype']} |" in done.stdout
