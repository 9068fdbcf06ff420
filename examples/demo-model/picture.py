#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the picture at the top of README.md: `meson devenv -C build examples/demo-model/picture.py`.

Draws a scene of the demo model's world as a short clip, runs it through
`vlmdescribe ! textoverlay ! pngenc` with GStreamer and writes one frame of what comes out.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import scenes

WIDTH, HEIGHT, FPS = 640, 360, 10


def gst(line):
    subprocess.run(["gst-launch-1.0", "-q", *line.split()], check=True)


def write_clip(path, scene, seconds):
    """The scene as H.264, its middle in the middle of the clip."""
    line = (
        f"fdsrc fd=0 ! rawvideoparse format=rgb width={WIDTH} height={HEIGHT} framerate={FPS}/1"
        f" ! videoconvert ! x264enc bitrate=400 ! h264parse ! mp4mux ! filesink location={path}"
    )
    with subprocess.Popen(["gst-launch-1.0", "-q", *line.split()], stdin=subprocess.PIPE) as coder:
        for i in range(seconds * FPS):
            frame = scenes.render(scene, i / FPS - seconds / 2, WIDTH, HEIGHT)
            coder.stdin.write(frame.tobytes())
    if coder.returncode:
        sys.exit(f"gst-launch-1.0 failed: {line}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = pathlib.Path(__file__).resolve().parents[2]
    parser.add_argument("--out", type=pathlib.Path, default=root / "description.png")
    parser.add_argument("--seed", type=int, default=1_000_000_040, help="which scene")
    parser.add_argument("--model", help="checkpoint, if not the demo model")
    return parser.parse_args()


def main():
    options = arguments()
    scene = scenes.Scene(options.seed, aspect=WIDTH / HEIGHT, count=3)
    model = f"model={options.model}" if options.model else ""
    with tempfile.TemporaryDirectory() as directory:
        clip = pathlib.Path(directory) / "scene.mp4"
        write_clip(clip, scene, 2)
        frames = pathlib.Path(directory) / "frame-%03d.png"
        # The text waits for its window's end: the picture's own queue is unlimited.
        gst(
            f"filesrc location={clip} ! decodebin ! videoconvert"
            f" ! vlmdescribe name=d interval=2000000000 {model}"
            " d.src ! queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! o.video_sink"
            " d.text ! queue ! o.text_sink"
            " textoverlay name=o valignment=bottom shaded-background=true font-desc=Sans,10"
            f" ! videoconvert ! pngenc ! multifilesink location={frames}"
        )
        made = sorted(pathlib.Path(directory).glob("frame-*.png"))
        options.out.write_bytes(made[len(made) // 2].read_bytes())
    print(f"written to {options.out}; the scene: {scenes.describe(scene.truth())}")


if __name__ == "__main__":
    main()
