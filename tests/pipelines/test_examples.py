# SPDX-License-Identifier: LGPL-2.1-or-later
"""The example applications, built and run as a newcomer would."""

import subprocess

from PIL import Image

import scenes
from conftest import program, python_with_gi
from material import ROOT

MODEL = ROOT / "examples" / "demo-model" / "model"


def run(*arguments):
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=180)


def ways(done):
    """Lines of each way in which descriptions come out: (time as printed, text)."""
    assert (done.returncode, done.stderr) == (0, "")
    found = {"message": [], "text": [], "metadata": []}
    for line in done.stdout.splitlines():
        start, way, text = line.split(maxsplit=2)
        found[way].append((float(start.split(":")[-1]), text))
    return found


def check_lines(done, shown):
    found = ways(done)
    assert [start for start, _ in found["message"]] == [2 * k for k in range(len(shown))]
    assert found["text"] == found["message"] == found["metadata"]
    right = sum(text == scenes.describe(scene.truth()) for (_, text), scene in zip(found["message"], shown))
    assert right >= len(shown) - 1, found


def test_the_application_in_python(clip, shown):
    python = python_with_gi()
    script = ROOT / "examples" / "describe.py"
    check_lines(run(python, script, clip.as_uri()), shown)
    done = run(python, script, clip.as_uri(), "What colour is the background?")
    assert sum(scene.background in text.lower() for scene, (_, text) in zip(shown, ways(done)["text"])) >= 3
    assert run(python, script, "file:///nonexistent").returncode == 1


def test_the_application_in_c(clip, shown):
    binary = program("EXAMPLE_DESCRIBE")
    check_lines(run(binary, clip.as_uri()), shown)
    done = run(binary, clip.as_uri(), "What colour is the background?")
    assert sum(scene.background in text.lower() for scene, (_, text) in zip(shown, ways(done)["text"])) >= 3
    assert run(binary, "file:///nonexistent").returncode == 1
    assert run(binary).returncode == 2


def test_the_engine_without_gstreamer(shown, tmp_path):
    binary = program("EXAMPLE_ENGINE_ONLY")
    assert "libgst" not in run("ldd", binary).stdout
    right = 0
    for number, scene in enumerate(shown):
        path = tmp_path / f"{number}.ppm"
        Image.fromarray(scenes.render(scene, 0, 640, 360)).save(path)
        done = run(binary, MODEL, path)
        assert (done.returncode, done.stderr) == (0, "")
        right += done.stdout.strip() == scenes.describe(scene.truth())
    assert right >= len(shown) - 1
    assert run(binary, tmp_path, path).returncode == 1
    assert run(binary, MODEL, binary).returncode == 1
    assert run(binary).returncode == 2
