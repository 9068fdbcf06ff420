#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""demo-clip.py WIDTH HEIGHT FPS SECONDS SCENES: draws moving scenes of the demo model's world, each for SECONDS, and
writes them to standard output as raw RGB video. The demo shows that the model finds them again in the coded clip."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "examples" / "demo-model"))

import scenes  # noqa: E402

FIRST_SEED = 2_000_000_000  # far from every seed that training uses


def main():
    width, height, fps, seconds, count = (int(argument) for argument in sys.argv[1:])
    for number in range(count):
        scene = scenes.Scene(FIRST_SEED + number, aspect=width / height, count=1 + number % 3)
        for frame in range(fps * seconds):
            time = frame / fps - seconds / 2
            sys.stdout.buffer.write(scenes.render(scene, time, width, height).tobytes())
        print(f"\r  drawing scene {number + 1} of {count}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


if __name__ == "__main__":
    main()
