# SPDX-License-Identifier: LGPL-2.1-or-later
"""pipelines.py computes its shares rightly, and its pipelines run."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import pipelines  # noqa: E402


def test_busy_is_what_the_works_cover_together():
    assert pipelines.busy([(1, 3), (2, 4)]) == (1, pytest.approx(4 / 3))
    assert pipelines.busy([(6, 8), (0, 2)]) == (0.5, 1)
    assert pipelines.busy([(0, 10), (1, 2), (2, 3), (15, 20)]) == (0.75, pytest.approx(17 / 15))
    assert pipelines.busy([]) == (0, 0)


def test_percentile():
    assert pipelines.percentile([3, 1, 2], 0.95) == 3
    assert pipelines.percentile(range(1, 101), 0.95) == 95
    assert pipelines.percentile([7], 0.5) == 7


def python_with_gi():
    for python in (sys.executable, "/usr/bin/python3"):
        if pathlib.Path(python).exists() and subprocess.run([python, "-c", "import gi"], capture_output=True).returncode == 0:
            return python
    pytest.skip("no Python here has PyGObject (python3-gi)")


def test_the_program(tmp_path):
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [python_with_gi(), HERE / "pipelines.py", "--build", os.environ["VLM_BUILD_DIR"], "--seconds", "2", "--interval", "0.5", "--tokens",
         "4", "--size", "160x120", "--streams", "2", "--rounds", "1", "--json", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    (recorded,), (live,) = report["recorded"], report["live"]
    # 60 frames and 4 windows of each stream.
    assert recorded["frames_per_s"] / recorded["captions_per_s"] == pytest.approx(15)
    assert 0 < recorded["busy"] <= 1 <= recorded["at_once"]
    assert 0 < live["described"] <= live["windows"] + 4 and live["windows"] >= 4
    assert 0 < live["latency_mean_s"] and 0 < live["latency_p95_s"]
    assert "| 2 |" in done.stdout
