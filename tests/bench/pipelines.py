#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures whole pipelines: recordings described as fast as that goes, cameras that never wait, many streams on one model.

    pipelines.py [--build build] [--model DIR] [--json FILE]

For Python with PyGObject (on Debian: /usr/bin/python3). Each pipeline decodes or draws its own video; what is measured
begins when the model is loaded:

  frames/s, captions/s   until the end of the recordings, of all streams together
  busy                   share of the time in which the model works on at least one description, from the first to the
                         last work. Each message tells how long its own work took, and comes when that is done
  at once                descriptions in work, mean over the busy time
  identity               frames/s of the same pipeline without describing: where that is less than what the model could
                         take, the decoder is what the model waits for
  described, passed over of the windows of cameras, while --seconds pass
  latency                from a window's last frame to its text: mean and 95th percentile
  video                  frames/s that come to the sink, and the longest time between two of them

On a shared machine take the best round; --rounds of each kind run in turn.
"""

import argparse
import collections
import datetime
import json
import math
import os
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECOND = 1_000_000_000
PATIENCE_S = 600
LAUNCH = "vlmdescribe name=d{} details=true interval={} min-new-tokens={} max-new-tokens={} mode={} {}"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--model", default=str(ROOT / "examples" / "demo-model" / "model"))
    parser.add_argument("--properties", default="", help="more properties of vlmdescribe, as in a launch line")
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--rate", type=int, default=30, help="frames a second")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds of a description")
    parser.add_argument("--tokens", type=int, default=32, help="of each description")
    parser.add_argument("--seconds", type=float, default=60, help="of video in each stream")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--modes", nargs="+", choices=["recorded", "live"], default=["recorded", "live"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures to this file")
    options = parser.parse_args()
    if options.seconds < 3 * options.interval:
        parser.error("--seconds must be three times --interval at least")
    return options


OPTIONS = None  # of this run
Gst = None  # GStreamer, which finds the build by the environment at its import


def begin(options):
    global OPTIONS, Gst
    OPTIONS, build = options, options.build.resolve()
    os.environ["GST_PLUGIN_PATH"] = str(build / "gst")
    os.environ["VLM_MODEL"] = options.model
    os.environ.setdefault("GST_REGISTRY", str(build / "tests" / "bench" / "registry.bin"))
    os.environ.setdefault("VLM_ENGINE_LIBRARY", str(build / "engine" / "libvlm.so.0"))
    import gi
    gi.require_version("Gst", "1.0")
    from gi.repository import Gst as gst
    Gst = gst
    Gst.init(None)


# ---- Launch lines

def element(number, mode, more=""):
    return LAUNCH.format(number, round(OPTIONS.interval * SECOND), OPTIONS.tokens, OPTIONS.tokens, mode,
                         f"{OPTIONS.properties} {more}")


def size():
    width, _, height = OPTIONS.size.partition("x")
    return f"width={width},height={height},framerate={OPTIONS.rate}/1"


def recording(clip, describe):
    return (f"filesrc location={clip} ! qtdemux ! h264parse ! avdec_h264 max-threads=1 ! {describe} ! "
            "fakesink sync=false enable-last-sample=false ")


def camera(number, describe):
    return (f"videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,{size()} ! {describe} ! "
            f"fakesink name=sink{number} sync=true enable-last-sample=false ")


def frames_of_clip():
    return round(OPTIONS.seconds * OPTIONS.rate)


def make_clip(path):
    play(f"videotestsrc num-buffers={frames_of_clip()} pattern=ball ! video/x-raw,format=I420,{size()} ! x264enc "
         f"speed-preset=ultrafast bitrate=2000 ! h264parse ! mp4mux ! filesink location={path}")


# ---- Playing

class Watch:
    """What the messages of a pipeline say, and when."""

    def __init__(self):
        self.loaded = collections.Counter()
        self.works = []  # (begin, end) of each description, in seconds
        self.latencies = []  # of each description, in seconds
        self.captions = collections.Counter()

    def see(self, message):
        """Called by the thread that posts it, so that its time is right."""
        now = time.monotonic()
        structure = message.get_structure()
        if message.type == Gst.MessageType.PROGRESS and message.parse_progress()[0] == Gst.ProgressType.COMPLETE:
            self.loaded[message.src.get_name()] = now
        elif message.type == Gst.MessageType.ELEMENT and structure.get_name() == "vlm-description":
            timing = structure.get_value("timing")
            worked = (timing.get_double("total-ms")[1] - timing.get_double("wait-ms")[1]) / 1000
            self.works.append((now - worked, now))
            self.latencies.append(structure.get_uint64("latency")[1] / SECOND)
            self.captions[message.src.get_name()] += 1


def busy(works):
    """Of times [(begin, end)]: the share of the time between the first and the last in which there was some, and how
    many there were then."""
    if not works:
        return 0.0, 0.0
    covered, last = 0.0, 0.0
    for begun, ended in sorted(works):
        covered += max(0.0, ended - max(begun, last))
        last = max(last, ended)
    first = min(begun for begun, _ in works)
    return covered / (last - first), sum(ended - begun for begun, ended in works) / covered


def percentile(values, share):
    """The least of the values that so many of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class Player:
    """A pipeline that plays from the beginning of the block to its end."""

    def __init__(self, line, elements):
        self.pipeline, self.elements = Gst.parse_launch(line), elements
        self.bus, self.watch = self.pipeline.get_bus(), Watch()
        self.bus.set_sync_handler(lambda _, message: (self.watch.see(message), Gst.BusSyncReply.PASS)[1])

    def __enter__(self):
        self.began = time.monotonic()
        self.pipeline.set_state(Gst.State.PLAYING)
        return self

    def __exit__(self, *_):
        self.pipeline.set_state(Gst.State.NULL)

    def wait(self, condition):
        """Until `condition` holds, or the video ends."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            message = self.bus.timed_pop_filtered(10 * Gst.MSECOND, Gst.MessageType.ERROR | Gst.MessageType.EOS)
            if message is not None and message.type == Gst.MessageType.ERROR:
                raise SystemExit(f"pipelines.py: {message.parse_error()}")
            if message is not None:
                return
            if time.monotonic() > deadline:
                raise SystemExit("pipelines.py: the pipeline did not end in time")

    def wait_end(self):
        """The seconds from the time when all elements have their model to the end."""
        self.wait(lambda: False)
        return time.monotonic() - max(self.watch.loaded.values(), default=self.began)

    def wait_model(self):
        self.wait(lambda: len(self.watch.loaded) >= self.elements)

    def wait_seconds(self, seconds):
        until = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= until)

    def counts(self):
        """Of the property `stats`, all elements' together."""
        total = collections.Counter()
        for number in range(self.elements):
            structure = self.pipeline.get_by_name(f"d{number}").get_property("stats")
            total.update({name: structure.get_uint64(name)[1] for name in ("windows", "described", "passed-over")})
        return total


def play(line):
    """Plays to the end; the seconds it took."""
    with Player(line, 0) as player:
        return player.wait_end()


# ---- Kinds of pipelines

def measure_recorded(clip, streams):
    line = "".join(recording(clip, element(number, "recorded")) for number in range(streams))
    with Player(line, streams) as player:
        took = player.wait_end()
    captions = sum(player.watch.captions.values())
    expected = streams * -(-round(OPTIONS.seconds * 1000) // round(OPTIONS.interval * 1000))
    if captions != expected:
        raise SystemExit(f"pipelines.py: {captions} descriptions where {expected} were expected")
    share, at_once = busy(player.watch.works)
    return {"streams": streams, "frames_per_s": streams * frames_of_clip() / took, "captions_per_s": captions / took,
            "busy": share, "at_once": at_once}


def measure_identity(clip, streams):
    return streams * frames_of_clip() / play("".join(recording(clip, "identity") for _ in range(streams)))


class Arrivals:
    """When frames come to a sink."""

    def __init__(self, pipeline, number):
        self.times = []
        pad = pipeline.get_by_name(f"sink{number}").get_static_pad("sink")
        pad.add_probe(Gst.PadProbeType.BUFFER, self.note)

    def note(self, _pad, _info):
        self.times.append(time.monotonic())
        return Gst.PadProbeReturn.OK

    def figures(self, since):
        times = [moment for moment in self.times if moment >= since]
        gaps = [later - earlier for earlier, later in zip(times, times[1:])]
        return (len(times) - 1) / (times[-1] - times[0]), max(gaps)


def measure_cameras(streams, describe, elements):
    """What comes to the sinks while so many seconds pass with the model loaded, and what the elements do meanwhile."""
    player = Player("".join(camera(number, describe(number)) for number in range(streams)), elements)
    arrivals = [Arrivals(player.pipeline, number) for number in range(streams)]
    with player:
        player.wait_model()
        player.wait_seconds(OPTIONS.interval)  # the first work of a model takes longer
        before, since, begun = player.counts(), time.monotonic(), len(player.watch.latencies)
        player.wait_seconds(OPTIONS.seconds)
        counts, latencies = player.counts() - before, player.watch.latencies[begun:]
        video = [one.figures(since) for one in arrivals]
    return counts, latencies, {"streams": streams, "video_per_s": statistics.mean(rate for rate, _ in video),
                               "longest_gap_s": max(gap for _, gap in video)}


def measure_live(streams):
    counts, latencies, found = measure_cameras(streams, lambda number: element(number, "live"), streams)
    if not latencies:
        raise SystemExit("pipelines.py: nothing was described")
    _, _, bare = measure_cameras(streams, lambda _: "identity", 0)
    return {**found, "windows": counts["windows"], "described": counts["described"], "passed_over": counts["passed-over"],
            "latency_mean_s": statistics.mean(latencies), "latency_p95_s": percentile(latencies, 0.95), "identity": bare}


# ---- The report

def best_of(rounds, figure):
    """The round in which `figure` is greatest, with the median of it beside, and how idle the model was at worst."""
    best = max(rounds, key=lambda one: one[figure])
    return {**best, f"{figure}_median": statistics.median(one[figure] for one in rounds),
            "busy_least": min(one["busy"] for one in rounds)}


def recorded_table(rows):
    lines = ["| streams | frames/s | captions/s (median) | busy (least) | at once | identity, frames/s |", "|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['streams']} | {row['frames_per_s']:.0f} | {row['captions_per_s']:.2f} "
                     f"({row['captions_per_s_median']:.2f}) | {100 * row['busy']:.1f} % ({100 * row['busy_least']:.1f} %) | "
                     f"{row['at_once']:.1f} | {row['identity_frames_per_s']:.0f} |")
    return lines


def live_table(rows):
    lines = ["| cameras | windows | described | passed over | latency, mean, s | p95, s | video, frames/s | longest gap, ms | "
             "identity: frames/s | longest gap, ms |", "|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        bare = row["identity"]
        lines.append(f"| {row['streams']} | {row['windows']} | {row['described']} | {row['passed_over']} | "
                     f"{row['latency_mean_s']:.3f} | {row['latency_p95_s']:.3f} | {row['video_per_s']:.2f} | "
                     f"{1000 * row['longest_gap_s']:.0f} | {bare['video_per_s']:.2f} | {1000 * bare['longest_gap_s']:.0f} |")
    return lines


def measure(clip):
    report = {"date": datetime.date.today().isoformat(), "model": "/".join(pathlib.Path(OPTIONS.model).resolve().parts[-2:]), "size": OPTIONS.size,
              "rate": OPTIONS.rate, "interval": OPTIONS.interval, "tokens": OPTIONS.tokens, "seconds": OPTIONS.seconds,
              "properties": OPTIONS.properties, "rounds": OPTIONS.rounds, "load_average_at_start": os.getloadavg()[0]}
    for streams in OPTIONS.streams if "recorded" in OPTIONS.modes else []:
        rounds = []
        for _ in range(OPTIONS.rounds):
            bare = measure_identity(clip, streams)
            rounds.append({**measure_recorded(clip, streams), "identity_frames_per_s": bare})
            print(rounds[-1], file=sys.stderr, flush=True)
        report.setdefault("recorded", []).append(best_of(rounds, "captions_per_s"))
    for streams in OPTIONS.streams if "live" in OPTIONS.modes else []:
        report.setdefault("live", []).append(measure_live(streams))
        print(report["live"][-1], file=sys.stderr, flush=True)
    report["load_average_at_end"] = os.getloadavg()[0]
    return report


def main():
    begin(arguments())
    with tempfile.TemporaryDirectory() as folder:
        clip = f"{folder}/clip.mp4"
        make_clip(clip)
        report = measure(clip)
    print(f"{report['model']} {report['properties']}: {OPTIONS.size}, {OPTIONS.rate} frames/s, a description of "
          f"{OPTIONS.tokens} tokens every {OPTIONS.interval:g} s; load average {report['load_average_at_start']:.1f} at the "
          f"start, {report['load_average_at_end']:.1f} at the end\n")
    for name, table in (("recorded", recorded_table), ("live", live_table)):
        if name in report:
            print("\n".join([*table(report[name]), ""]))
    if OPTIONS.json:
        OPTIONS.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
