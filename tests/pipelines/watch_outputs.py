# SPDX-License-Identifier: LGPL-2.1-or-later
"""watch_outputs.py CLIP recorded|live INTERVAL-NS: describes a clip and writes what comes out of each of the three outputs
as JSON lines, for Python with PyGObject. Live, the clip comes as fast as it was recorded and nothing waits."""

import json
import os
import pathlib
import re
import sys
import traceback

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402


def fields(structure):
    """The times, ns, and texts of a description."""
    found = {name: structure.get_uint64(name)[1] for name in ("index", "stream-time", "duration")}
    # Not every version of PyGObject knows GstValueArray.
    frames = re.search(r"frame-pts=[^<]*< *([^>]*?) *>", structure.to_string())[1]
    found["frames"] = [int(time.replace("(guint64)", "")) for time in frames.split(",")]
    found["text"] = structure.get_string("text")
    found["pts"] = structure.get_uint64("pts")[1]
    return found


def write(way, start, description, text=None):
    # One piece with its line break: three threads come by here.
    print(json.dumps({"way": way, "start": start, "content": text, "description": description}) + "\n", end="", flush=True)


def meta_of(buffer):
    meta = buffer.get_custom_meta("vlm-description")
    return fields(meta.get_structure()) if meta is not None else None


def main():
    clip, mode, interval = sys.argv[1:]
    Gst.init(None)
    live = mode == "live"
    pipeline = Gst.parse_launch(
        f"uridecodebin name=source ! {'clocksync ! ' if live else ''}"
        f"vlmdescribe name=describe mode={mode} interval={interval} meta-policy={'latest' if live else 'exact'} "
        f"! queue ! fakesink name=frames signal-handoffs=true sync=false "
        "describe.text ! queue ! fakesink name=texts signal-handoffs=true sync=false async=false")
    source, describe = pipeline.get_by_name("source"), pipeline.get_by_name("describe")
    source.set_property("uri", pathlib.Path(clip).as_uri())

    def stream_time(pad, buffer):
        return pad.get_sticky_event(Gst.EventType.SEGMENT, 0).parse_segment().to_stream_time(Gst.Format.TIME, buffer.pts)

    pipeline.get_by_name("frames").connect(
        "handoff", lambda _, buffer, pad: write("metadata", stream_time(pad, buffer), meta_of(buffer)))
    pipeline.get_by_name("texts").connect(
        "handoff", lambda _, buffer, pad: write("text", stream_time(pad, buffer), meta_of(buffer),
                                                buffer.extract_dup(0, buffer.get_size()).decode()))
    bus = pipeline.get_bus()
    if live:
        # Live video would pass while the model loads.
        pipeline.set_state(Gst.State.READY)
        while True:
            message = bus.timed_pop_filtered(60 * Gst.SECOND, Gst.MessageType.PROGRESS | Gst.MessageType.ERROR)
            if message is None or message.type == Gst.MessageType.ERROR:
                sys.exit("the model was not loaded")
            if message.parse_progress()[0] == Gst.ProgressType.COMPLETE:
                break
    pipeline.set_state(Gst.State.PLAYING)
    while True:
        message = bus.timed_pop_filtered(
            60 * Gst.SECOND, Gst.MessageType.ELEMENT | Gst.MessageType.ERROR | Gst.MessageType.EOS)
        if message is None or message.type == Gst.MessageType.ERROR:
            sys.exit(message.parse_error()[0].message if message else "nothing came for a minute")
        if message.type == Gst.MessageType.EOS:
            break
        if message.get_structure().get_name() == "vlm-description":
            write("message", None, fields(message.get_structure()))
    stats = describe.get_property("stats")
    pipeline.set_state(Gst.State.NULL)
    print(json.dumps({"way": "stats", **{name: stats.get_uint64(name)[1] for name in ("frames", "windows", "passed-over")}}))


try:
    main()
except BaseException:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)  # whatever still plays
