# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clips and pictures for tests, made by GStreamer and by the demo model's own scenes."""

import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "demo-model"))

import scenes  # noqa: E402

FIRST_SEED = 3_000_000_000  # far from every seed that training uses


def launch(line, timeout=120, **kwargs):
    subprocess.run(["gst-launch-1.0", "-q", *shlex.split(line)], check=True, timeout=timeout, stdout=subprocess.DEVNULL,
                   **kwargs)


def made_clip(path, seconds=6, size=(160, 120), rate=10, codec="x264enc ! h264parse", mux="mp4mux", more=""):
    """A clip of GStreamer's test picture."""
    launch(f"videotestsrc num-buffers={round(seconds * rate)} ! "
           f"video/x-raw,width={size[0]},height={size[1]},framerate={rate}/1 ! {codec} ! {mux} name=mux ! "
           f"filesink location={shlex.quote(str(path))} {more}")
    return pathlib.Path(path)


def scene_clip(path, shown, seconds=2, rate=10, size=(640, 360), coder="x264enc bitrate=600"):
    """A clip that shows each scene for some seconds."""
    width, height = size
    line = (f"fdsrc fd=0 ! rawvideoparse format=rgb width={width} height={height} framerate={rate}/1 ! videoconvert ! "
            f"video/x-raw,format=I420 ! {coder} ! video/x-h264,profile=main ! h264parse ! mp4mux ! "
            f"filesink location={shlex.quote(str(path))}")
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
