# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the command share: the programs under test, and material to run them on."""

import json
import os
import resource
import signal
import subprocess

import pytest

from material import made_clip, save_scene, sure_scene


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


def full_at(size):
    """For preexec_fn: files end at `size` bytes, as on a full disk."""
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return limit


@pytest.fixture(scope="session")
def command():
    return Command(program("VLM_DESCRIBE"))


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def video(media):
    return made_clip(media / "clip.mp4")


@pytest.fixture(scope="session")
def picture(media):
    return save_scene(sure_scene(0), media / "picture.png")
