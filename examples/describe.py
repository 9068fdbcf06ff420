#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The smallest application in Python: plays a video through vlmdescribe and prints what comes out, three ways.

describe.py URI [PROMPT]

Each line is a time in seconds, the way (message, text or metadata) and the description.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

# meta-policy=exact holds each frame until it is described; for live video, leave it out.
LINE = ("uridecodebin name=source ! vlmdescribe name=describe meta-policy=exact "
        "! fakesink name=frames signal-handoffs=true sync=false "
        "describe.text ! queue ! fakesink name=texts signal-handoffs=true sync=false")
newest = None


def show(way, start, text):
    # One piece with its line break: three threads come by here.
    print(f"{start / Gst.SECOND:8.3f}  {way:8}  {text}\n", end="", flush=True)


def show_description(way, description):
    show(way, description.get_uint64("stream-time")[1], description.get_string("text"))


def on_text(_sink, buffer, _pad):
    # Timed text: buffers of the pad count in stream time.
    show("text", buffer.pts, buffer.extract_dup(0, buffer.get_size()).decode())


def on_frame(_sink, buffer, _pad):
    # Every frame carries the description that covers it; it is shown once.
    global newest
    meta = buffer.get_custom_meta("vlm-description")
    if meta is None:
        return
    description = meta.get_structure()
    index = description.get_uint64("index")[1]
    if index != newest:
        newest = index
        show_description("metadata", description)


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: describe.py URI [PROMPT]")
    Gst.init(None)
    pipeline = Gst.parse_launch(LINE)
    pipeline.get_by_name("source").set_property("uri", sys.argv[1])
    if len(sys.argv) > 2:
        pipeline.get_by_name("describe").set_property("prompt", sys.argv[2])
    pipeline.get_by_name("texts").connect("handoff", on_text)
    pipeline.get_by_name("frames").connect("handoff", on_frame)

    bus = pipeline.get_bus()
    pipeline.set_state(Gst.State.PLAYING)
    failure = None
    while True:
        message = bus.timed_pop_filtered(
            Gst.CLOCK_TIME_NONE, Gst.MessageType.ELEMENT | Gst.MessageType.ERROR | Gst.MessageType.EOS)
        if message.type == Gst.MessageType.ERROR:
            failure = message.parse_error()[0].message
        if message.type != Gst.MessageType.ELEMENT:
            break
        if message.get_structure().get_name() == "vlm-description":
            show_description("message", message.get_structure())
    pipeline.set_state(Gst.State.NULL)
    sys.exit(failure)


if __name__ == "__main__":
    main()
