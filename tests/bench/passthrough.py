#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures what the element costs a pipeline: frames a second of decoded 1080p video with it, and with identity instead.

An engine without a model answers at once, so that only the element's own work is measured: letting video pass, taking
a frame for each interval and converting it, attaching metadata. In each round every pipeline runs once, between two runs
with identity; what counts is the median over the rounds of its figures relative to theirs, so that a machine that slows
down for some time slows both. Where half the rounds lie is told, too.

On a busy machine the frame rate says who got the processor. What the element does to the frame rate of a machine that has
a core to spare is what it does to the streaming thread, so the processor time of that thread is measured as well.

    passthrough.py [--build build] [--video camera|drawing] [--frames 600] [--rounds 15]

passthrough_frames.cpp beside it plays a clip more often and says how sure its figures are; --keep FILE makes one for it.
"""

import argparse
import os
import pathlib
import re
import resource
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
VIDEOS = {
    # All of the picture moves, at the bit rate of a camera.
    "camera": ("pattern=zone-plate kx2=20 ky2=20 kt=3", "speed-preset=veryfast bitrate=8000"),
    # Decoding it is little more than copying: the least that a decoder can take for a frame.
    "drawing": ("pattern=ball", "speed-preset=ultrafast"),
}
ELEMENTS = {
    "describing nothing": "vlmdescribe active=false",
    "describing, recorded": "vlmdescribe mode=recorded",
    "describing, live": "vlmdescribe mode=live",
    "describing, every output": "vlmdescribe name=d mode=recorded meta-policy=exact d.text ! fakesink d.",
    # What meta-policy=exact cannot do without: an interval's frames are held, in memory that no cache holds.
    "a queue that holds as many frames": "queue min-threshold-buffers=60 max-size-buffers=0 max-size-bytes=0 "
                                         "max-size-time=0",
}


def streaming_ns(pid):
    """Nanoseconds of processor time that the streaming thread of a gst-launch-1.0 has used so far; 0 without one."""
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        try:
            if (task / "comm").read_text().strip() == "qtdemux0:sink":
                return int((task / "schedstat").read_text().split()[0])
        except OSError:
            pass  # it has just ended
    return 0


def launch(line, environment):
    """Seconds that the pipeline played, seconds of its streaming thread's processor time, and of all threads'."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(["gst-launch-1.0", *line.split()], env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as process:
        streaming = 0
        while process.poll() is None:
            streaming = max(streaming, streaming_ns(process.pid))
            time.sleep(0.005)
        output = process.stdout.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"Execution ended after (\d+):(\d+):([\d.]+)", output)
    if process.returncode != 0 or not found:
        raise SystemExit(output)
    hours, minutes, seconds = found.groups()
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds), streaming / 1e9, used


def measure(clip, element, environment):
    """What launch() says of decoding the clip through `element`."""
    line = f"filesrc location={clip} ! qtdemux ! h264parse ! avdec_h264 max-threads=1 ! {element} ! fakesink sync=false"
    return launch(line, environment)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--video", choices=VIDEOS, default="camera")
    parser.add_argument("--keep", type=pathlib.Path, help="only write the clip there")
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    build = options.build.resolve()
    environment = dict(os.environ, GST_PLUGIN_PATH=str(build / "gst"), VLM_MODEL="fake:text=A drawing.",
                       VLM_ENGINE_LIBRARY=str(build / "tests" / "element" / "libfake-engine.so"))
    with tempfile.TemporaryDirectory() as folder:
        clip = options.keep or f"{folder}/clip.mp4"
        pattern, coding = VIDEOS[options.video]
        launch(f"videotestsrc num-buffers={options.frames} {pattern} ! video/x-raw,format=I420,width=1920,height=1080,"
               f"framerate=30/1 ! x264enc {coding} ! h264parse ! mp4mux ! filesink location={clip}", environment)
        if options.keep:
            return
        ratios = {name: [] for name in ELEMENTS}
        bare = [measure(clip, "identity", environment)]
        for _ in range(options.rounds):
            for name, element in ELEMENTS.items():
                measured = measure(clip, element, environment)
                bare.append(measure(clip, "identity", environment))
                ratios[name].append([(one + other) / 2 / own for one, other, own in zip(*bare[-2:], measured)])
    played, streaming, used = (statistics.median(column) for column in zip(*bare))
    print(f"{options.rounds} rounds of {options.frames} frames; identity alone (median): {options.frames / played:.0f} "
          f"frames/s, {1000 * streaming / options.frames:.2f} ms of the streaming thread a frame, "
          f"{1000 * used / options.frames:.2f} ms of all threads\n")
    print("| 1080p, identity's = 1 | frame rate | half of the rounds | frames per second of the streaming thread | half of "
          "the rounds | per second of all threads |\n|---|---|---|---|---|---|")
    for name, rounds in ratios.items():
        cells = []
        for column in list(zip(*rounds))[:2]:
            low, middle, high = statistics.quantiles(column, n=4)
            cells.append(f"{middle:.3f} | {low:.3f} to {high:.3f}")
        everything = statistics.median(one[2] for one in rounds)
        print(f"| {name} | {cells[0]} | {cells[1]} | {everything:.3f} |")


if __name__ == "__main__":
    main()
