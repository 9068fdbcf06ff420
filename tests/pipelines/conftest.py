# SPDX-License-Identifier: LGPL-2.1-or-later
import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "command"))

from material import scene_clip, sure_scene  # noqa: E402


def program(variable):
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"{variable} is not set; run these tests with meson test")
    return path


def python_with_gi():
    for python in (sys.executable, "/usr/bin/python3"):
        if pathlib.Path(python).exists() and subprocess.run([python, "-c", "import gi"], capture_output=True).returncode == 0:
            return python
    pytest.skip("no Python here has PyGObject (python3-gi)")


@pytest.fixture(scope="session")
def shown():
    """What the clip shows: each scene for two seconds."""
    return [sure_scene(number) for number in range(20, 24)]


@pytest.fixture(scope="session")
def clip(tmp_path_factory, shown):
    # Its B-frames make buffer times begin later than the video: what comes out must count from the video's beginning.
    return scene_clip(tmp_path_factory.mktemp("a folder") / "a clip.mp4", shown)
