#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures what the element costs a pipeline: frames a second of decoded 1080p video with it, and with identity instead.

An engine without a model answers at once, so that only the element's own work is measured: letting video pass, taking
a frame for each interval, attaching metadata. The pipelines run in turn; the best round of each counts. On a busy
machine the processor time of a frame says more than the frame rate.

    passthrough.py [--build build] [--frames 600] [--rounds 5]
"""

import argparse
import os
import pathlib
import re
import resource
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
ELEMENTS = {
    "identity": "identity",
    "describing nothing": "vlmdescribe active=false",
    "describing, recorded": "vlmdescribe mode=recorded",
    "describing, live": "vlmdescribe mode=live",
    "describing, every output": "vlmdescribe name=d mode=recorded meta-policy=exact d.text ! fakesink d.",
}


def launch(line, environment):
    """Seconds that the pipeline played, and seconds of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(f"gst-launch-1.0 {line}", shell=True, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"Execution ended after (\d+):(\d+):([\d.]+)", done.stdout)
    if done.returncode != 0 or not found:
        raise SystemExit(done.stdout + done.stderr)
    hours, minutes, seconds = found.groups()
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds), used


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    build = options.build.resolve()
    environment = dict(os.environ, GST_PLUGIN_PATH=str(build / "gst"), VLM_MODEL="fake:",
                       VLM_ENGINE_LIBRARY=str(build / "tests" / "element" / "libfake-engine.so"))
    with tempfile.TemporaryDirectory() as folder:
        clip = f"{folder}/clip.mp4"
        launch(f"videotestsrc num-buffers={options.frames} pattern=ball ! video/x-raw,format=I420,width=1920,height=1080,"
               f"framerate=30/1 ! x264enc speed-preset=ultrafast ! h264parse ! mp4mux ! filesink location={clip}",
               environment)
        played = {name: [] for name in ELEMENTS}
        for _ in range(options.rounds):
            for name, element in ELEMENTS.items():
                played[name].append(launch(f"filesrc location={clip} ! qtdemux ! h264parse ! avdec_h264 ! {element} ! "
                                           "fakesink sync=false", environment))
    best = {name: tuple(map(min, zip(*rounds))) for name, rounds in played.items()}
    print("| 1080p | frames/s | of identity's | processor ms/frame | of identity's |\n|---|---|---|---|---|")
    for name, (seconds, used) in best.items():
        print(f"| {name} | {options.frames / seconds:.0f} | {best['identity'][0] / seconds:.3f} "
              f"| {1000 * used / options.frames:.2f} | {used / best['identity'][1]:.3f} |")


if __name__ == "__main__":
    main()
