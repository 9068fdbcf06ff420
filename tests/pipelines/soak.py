# SPDX-License-Identifier: LGPL-2.1-or-later
"""soak.py MINUTES: describes so much video, drawn and described as fast as that goes, with every output in use, and prints how
much memory the process takes after each tenth, and how much of it is in use, as JSON. For Python with PyGObject;
tests/pipelines/soak.sh runs it long."""

import ctypes
import json
import os
import sys
import time
import traceback

import gi

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

RATE = 10
PARTS = 10


def resident_mib():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


class MallInfo(ctypes.Structure):
    """mallinfo2(3)."""
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks",
                                                     "uordblks", "fordblks", "keepcost")]


def used_mib():
    """What is allocated now, in all arenas: what the C library keeps of freed memory depends on chance."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = MallInfo
    found = mallinfo2()
    return (found.uordblks + found.hblkhd) / 2**20


def main():
    frames = round(float(sys.argv[1]) * 60 * RATE)
    Gst.init(None)
    pipeline = Gst.parse_launch(
        f"videotestsrc num-buffers={frames} pattern=ball ! video/x-raw,format=I420,width=320,height=180,framerate={RATE}/1 "
        "! vlmdescribe name=describe interval=2000000000 max-new-tokens=24 meta-policy=exact partial=true details=true "
        "! queue max-size-buffers=0 max-size-bytes=0 max-size-time=40000000000 ! textoverlay name=overlay ! fakesink sync=false "
        "describe.text ! tee name=texts ! queue ! overlay.text_sink texts. ! queue ! webvttenc ! fakesink sync=false async=false")
    bus = pipeline.get_bus()
    began = time.monotonic()
    pipeline.set_state(Gst.State.PLAYING)
    described, marks, used = 0, [], []
    while True:
        message = bus.timed_pop_filtered(
            120 * Gst.SECOND, Gst.MessageType.ELEMENT | Gst.MessageType.ERROR | Gst.MessageType.EOS)
        if message is None or message.type == Gst.MessageType.ERROR:
            sys.exit(message.parse_error()[0].message if message else "nothing came for two minutes")
        if message.type == Gst.MessageType.EOS:
            break
        structure = message.get_structure()
        if structure.get_name() == "vlm-description" and not structure.get_boolean("partial")[1]:
            described += 1
            if described * 2 * RATE * PARTS >= frames * (len(marks) + 1):
                marks.append(round(resident_mib(), 1))
                used.append(round(used_mib(), 1))
    pipeline.set_state(Gst.State.NULL)
    print(json.dumps({"minutes": frames / RATE / 60, "described": described, "seconds": round(time.monotonic() - began, 1),
                      "resident_mib": marks, "used_mib": used}))


try:
    main()
except Exception:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)  # whatever still plays
