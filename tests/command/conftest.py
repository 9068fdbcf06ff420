# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the command share: the programs under test, and a way to run them."""

import json
import os
import pathlib
import subprocess

import pytest


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
        env = dict(os.environ, LC_ALL="C.UTF-8")
        env.pop("VLM_MODEL", None)
        env.update(extra)
        return env

    def run(self, *args, timeout=300, env=None, **kwargs):
        return subprocess.run(
            [self.path, *map(str, args)], env=env or self.environment(), timeout=timeout,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, **kwargs)

    def start(self, *args, env=None, **kwargs):
        return subprocess.Popen(
            [self.path, *map(str, args)], env=env or self.environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)

    def json(self, *args, **kwargs):
        """The objects of a call that must succeed."""
        done = self.run("-f", "jsonl", *args, **kwargs)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="session")
def command():
    return Command(program("VLM_DESCRIBE"))


def make_video(path, seconds=6, size=(160, 120), rate=10, codec="x264enc ! h264parse",
               mux="mp4mux", pattern="smpte"):
    """A clip made by GStreamer."""
    subprocess.run(
        ["gst-launch-1.0", "-q", "videotestsrc", f"num-buffers={seconds * rate}",
         f"pattern={pattern}", "!",
         f"video/x-raw,width={size[0]},height={size[1]},framerate={rate}/1", "!", *codec.split(),
         "!", mux, "!", "filesink", f"location={path}"],
        check=True, timeout=120, stdout=subprocess.DEVNULL)
    return pathlib.Path(path)


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def video(media):
    return make_video(media / "clip.mp4")


@pytest.fixture(scope="session")
def picture(media):
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (320, 180), "gray")
    ImageDraw.Draw(image).ellipse((100, 40, 200, 140), fill="red")
    path = media / "circle.png"
    image.save(path)
    return path
