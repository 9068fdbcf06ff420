# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the command share: the programs under test, and material to run them on."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "demo-model"))

import scenes  # noqa: E402

FIRST_SEED = 3_000_000_000  # far from every seed that training uses


def program(variable):
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"{variable} is not set; run these tests with meson test")
    return path


class Command:
    """vlm-describe with the environment of the build, plus what a test adds."""

    def __init__(self, path):
        self.path = path

    def environment(self, **extra):
        return dict(os.environ, LC_ALL="C.UTF-8", **extra)

    def run(self, *args, timeout=300, env=None, **kwargs):
        kwargs.setdefault("stdout", subprocess.PIPE)
        return subprocess.run(
            [self.path, *map(str, args)], env=env or self.environment(), timeout=timeout, stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, **kwargs)

    def start(self, *args, **kwargs):
        kwargs.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen(
            [self.path, *map(str, args)], env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            text=True, **kwargs)

    def json(self, *args, **kwargs):
        """The objects of a call that must succeed and stay silent."""
        done = self.run("-f", "jsonl", *args, **kwargs)
        assert (done.returncode, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]


def complaints(done):
    """The lines on standard error, each of which must be a sentence of the command."""
    lines = done.stderr.splitlines()
    assert all(line.startswith("vlm-describe: ") for line in lines), done.stderr
    return [line.removeprefix("vlm-describe: ") for line in lines]


@pytest.fixture(scope="session")
def command():
    return Command(program("VLM_DESCRIBE"))


def launch(line, **kwargs):
    subprocess.run(["gst-launch-1.0", "-q", *line.split()], check=True, timeout=120, stdout=subprocess.DEVNULL, **kwargs)


def test_clip(path, seconds=6, size=(160, 120), rate=10, codec="x264enc ! h264parse", mux="mp4mux", more=""):
    """A clip of GStreamer's test picture."""
    launch(f"videotestsrc num-buffers={round(seconds * rate)} ! "
           f"video/x-raw,width={size[0]},height={size[1]},framerate={rate}/1 ! {codec} ! {mux} name=mux ! "
           f"filesink location={path} {more}")
    return pathlib.Path(path)


test_clip.__test__ = False


def scene_clip(path, shown, seconds=2, rate=10, size=(640, 360)):
    """A clip that shows each scene for some seconds."""
    width, height = size
    line = (f"fdsrc fd=0 ! rawvideoparse format=rgb width={width} height={height} framerate={rate}/1 ! videoconvert ! "
            f"video/x-raw,format=I420 ! x264enc bitrate=600 ! video/x-h264,profile=main ! h264parse ! mp4mux ! "
            f"filesink location={path}")
    frames = b"".join(scenes.render(scene, i / rate - seconds / 2, width, height).tobytes()
                      for scene in shown for i in range(seconds * rate))
    launch(line, input=frames)
    return pathlib.Path(path)


def sure_scene(number):
    """A scene of one shape, of which the demo model is sure."""
    return scenes.Scene(FIRST_SEED + number, aspect=16 / 9, count=1)


def save_scene(scene, path, size=(640, 360)):
    from PIL import Image

    Image.fromarray(scenes.render(scene, 0, *size)).save(path)
    return pathlib.Path(path)


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def video(media):
    return test_clip(media / "clip.mp4")


@pytest.fixture(scope="session")
def picture(media):
    return save_scene(sure_scene(0), media / "picture.png")
