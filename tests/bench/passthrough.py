#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures what the element costs a pipeline: frames a second of decoded 1080p video with it, and with identity instead.

An engine without a model answers at once, so that only the element's own work is measured: letting video pass, taking
a frame for each interval and converting it, attaching metadata. In each round every pipeline runs once, between two runs
with identity; what counts is the median over the rounds of its frame rate relative to theirs, so that a machine that
slows down for some time slows both. Where half the rounds lie is told, too: on a busy machine one round says nothing.

    passthrough.py [--build build] [--frames 600] [--rounds 15]
"""

import argparse
import os
import pathlib
import re
import resource
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
ELEMENTS = {
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


def measure(clip, element, environment):
    """What launch() says of decoding the clip through `element`."""
    line = f"filesrc location={clip} ! qtdemux ! h264parse ! avdec_h264 ! {element} ! fakesink sync=false"
    return launch(line, environment)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    build = options.build.resolve()
    environment = dict(os.environ, GST_PLUGIN_PATH=str(build / "gst"), VLM_MODEL="fake:text=A drawing.",
                       VLM_ENGINE_LIBRARY=str(build / "tests" / "element" / "libfake-engine.so"))
    with tempfile.TemporaryDirectory() as folder:
        clip = f"{folder}/clip.mp4"
        launch(f"videotestsrc num-buffers={options.frames} pattern=ball ! video/x-raw,format=I420,width=1920,height=1080,"
               f"framerate=30/1 ! x264enc speed-preset=ultrafast ! h264parse ! mp4mux ! filesink location={clip}",
               environment)
        ratios = {name: [] for name in ELEMENTS}
        bare = [measure(clip, "identity", environment)]
        for _ in range(options.rounds):
            for name, element in ELEMENTS.items():
                played, used = measure(clip, element, environment)
                bare.append(measure(clip, "identity", environment))
                around = bare[-2:]
                ratios[name].append((statistics.fmean(run[0] for run in around) / played,
                                     used / statistics.fmean(run[1] for run in around)))
    played, used = (statistics.median(column) for column in zip(*bare))
    print(f"{options.rounds} rounds of {options.frames} frames; identity alone (median): {options.frames / played:.0f} "
          f"frames/s, {1000 * used / options.frames:.2f} ms of processor time a frame\n")
    print("| 1080p | frame rate, of identity's | half of the rounds | processor time, of identity's |\n|---|---|---|---|")
    for name, rounds in ratios.items():
        rates, times = zip(*rounds)
        low, middle, high = statistics.quantiles(rates, n=4)
        print(f"| {name} | {middle:.3f} | {low:.3f} to {high:.3f} | {statistics.median(times):.3f} |")


if __name__ == "__main__":
    main()
