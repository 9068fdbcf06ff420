# SPDX-License-Identifier: LGPL-2.1-or-later
"""storm.py CLIP SEED COUNT: a player whose user can't decide: COUNT seeks, flushes, pauses and restarts at random over a real
pipeline with every output in use, then the clip from its beginning to its end. Writes each description as a JSON line, "final"
telling those of the last run apart. For Python with PyGObject."""

import json
import os
import pathlib
import random
import re
import sys
import time
import traceback

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

LINE = ("uridecodebin name=source queue name=first ! vlmdescribe name=describe interval=500000000 max-new-tokens=24 partial=true {} "
        "! queue max-size-buffers=0 max-size-bytes=0 max-size-time=0 ! textoverlay name=overlay ! fakesink sync={} "
        "describe.text ! queue ! overlay.text_sink")
HOW = ("meta-policy=exact", "mode=live text-timing=window", "frames=3")
PATIENCE = 60 * Gst.SECOND


class Storm:
    def __init__(self, clip, seed):
        self.random = random.Random(seed)
        self.how = HOW[seed % len(HOW)]
        self.pipeline = Gst.parse_launch(LINE.format(self.how, self.random.choice(("true", "false"))))
        source, first = self.pipeline.get_by_name("source"), self.pipeline.get_by_name("first").get_static_pad("sink")
        source.set_property("uri", pathlib.Path(clip).as_uri())
        # A launch line would link the first of the pads alone that come and go with READY.
        source.connect("pad-added", lambda _, pad: pad.link(first))
        self.describe = self.pipeline.get_by_name("describe")
        self.bus = self.pipeline.get_bus()
        self.length = 0
        self.final = False

    def reach(self, state):
        if self.pipeline.set_state(state) == Gst.StateChangeReturn.FAILURE:
            raise RuntimeError(f"{state.value_nick} is refused")
        result, reached, _ = self.pipeline.get_state(PATIENCE)
        self.drain()
        if result == Gst.StateChangeReturn.FAILURE or reached != state:
            raise RuntimeError(f"{state.value_nick} was not reached in time: {result.value_nick}, {reached.value_nick}")

    def drain(self):
        """Writes what has come; raises on errors. True at the end of the stream."""
        while (message := self.bus.pop()) is not None:
            if message.type == Gst.MessageType.ERROR:
                raise RuntimeError(f"{message.src.get_name()}: {message.parse_error()}")
            structure = message.get_structure()
            if structure is not None and structure.get_name() == "vlm-description":
                if not structure.get_boolean("partial")[1]:
                    frames = re.search(r"frame-pts=[^<]*< *([^>]*?) *>", structure.to_string())[1]
                    print(json.dumps({"final": self.final, "index": structure.get_uint64("index")[1],
                                      "start": structure.get_uint64("stream-time")[1], "text": structure.get_string("text"),
                                      "frames": [int(t.replace("(guint64)", "")) for t in frames.split(",")]}))
            if message.type == Gst.MessageType.EOS:
                return True
        return False

    def seek(self, rate, flags, start, stop=-1):
        # A stop that is not set would stay where an earlier seek has put it, and may then lie before the start.
        self.pipeline.seek(rate, Gst.Format.TIME, flags, Gst.SeekType.SET, start, Gst.SeekType.SET, stop)

    def somewhere(self):
        return self.random.randrange(self.length)

    def act(self):
        flush, accurate = Gst.SeekFlags.FLUSH, Gst.SeekFlags.ACCURATE
        kind = self.random.choice(("seek", "seek", "seek", "key", "fast", "back", "segment", "pause", "ready", "prompt", "many",
                                   "flush"))
        if kind == "seek":
            self.seek(1, flush | accurate, self.somewhere())
        elif kind == "key":
            self.seek(1, flush | Gst.SeekFlags.KEY_UNIT, self.somewhere())
        elif kind == "fast":
            self.seek(self.random.choice((0.5, 2, 8)), flush | accurate, self.somewhere())
        elif kind == "back":
            self.seek(-1, flush | accurate, 0, self.somewhere() + Gst.MSECOND)
        elif kind == "segment":
            start = self.somewhere()
            self.seek(1, flush | accurate, start, start + Gst.SECOND)
        elif kind == "pause":
            self.reach(Gst.State.PAUSED)
            time.sleep(self.random.random() * 0.1)
            self.reach(Gst.State.PLAYING)
        elif kind == "ready":
            self.reach(Gst.State.READY)
            self.reach(Gst.State.PLAYING)
        elif kind == "prompt":
            self.describe.set_property("interval", self.random.choice((250, 500, 1000)) * Gst.MSECOND)
        elif kind == "many":
            for _ in range(10):
                self.seek(1, flush, self.somewhere())
        elif kind == "flush":
            pad = self.describe.get_static_pad("sink").get_peer()
            pad.push_event(Gst.Event.new_flush_start())
            pad.push_event(Gst.Event.new_flush_stop(True))
            self.seek(1, flush | accurate, self.somewhere())

    def run(self, count):
        self.reach(Gst.State.PAUSED)
        self.length = self.pipeline.query_duration(Gst.Format.TIME)[1]
        self.reach(Gst.State.PLAYING)
        for _ in range(count):
            self.act()
            time.sleep(self.random.random() * 0.15)
            self.drain()
        # Whatever was before, the clip is described from its beginning to its end as if nothing had been.
        self.reach(Gst.State.READY)
        self.final = True
        self.describe.set_property("interval", 500 * Gst.MSECOND)
        self.reach(Gst.State.PLAYING)
        deadline = time.monotonic() + PATIENCE / Gst.SECOND
        while not self.drain():
            if time.monotonic() > deadline:
                raise RuntimeError("the end did not come in time")
            time.sleep(0.05)
        began = time.monotonic()
        self.pipeline.set_state(Gst.State.NULL)
        print(json.dumps({"how": self.how, "stopped": time.monotonic() - began}))


try:
    Gst.init(None)
    Storm(sys.argv[1], int(sys.argv[2])).run(int(sys.argv[3]))
except BaseException:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)  # whatever still plays
