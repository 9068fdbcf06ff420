#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The smallest application in Python: plays a video through vlmdescribe and prints what it posts.

describe.py URI [PROMPT]
"""

import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: describe.py URI [PROMPT]")
    Gst.init(None)
    pipeline = Gst.parse_launch("uridecodebin name=source ! vlmdescribe name=describe ! fakesink sync=false")
    pipeline.get_by_name("source").set_property("uri", sys.argv[1])
    if len(sys.argv) > 2:
        pipeline.get_by_name("describe").set_property("prompt", sys.argv[2])

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
        description = message.get_structure()
        if description.get_name() == "vlm-description":
            start = description.get_uint64("stream-time")[1] / Gst.SECOND
            print(f"{start:8.3f}  {description.get_string('text')}", flush=True)
    pipeline.set_state(Gst.State.NULL)
    sys.exit(failure)


if __name__ == "__main__":
    main()
