# SPDX-License-Identifier: LGPL-2.1-or-later
"""pull_texts.py LAUNCH-LINE…: what an application does with a line that ends in the appsink "texts": pulls each text and
writes it with its time, ns, and that of its description's meta. For Python with PyGObject."""

import json
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import Gst, GstApp  # noqa: E402, F401

Gst.init(None)
pipeline = Gst.parse_launchv(sys.argv[1:])
sink = pipeline.get_by_name("texts")
pipeline.set_state(Gst.State.PLAYING)
while True:
    sample = sink.try_pull_sample(60 * Gst.SECOND)
    if sample is None:
        break
    buffer = sample.get_buffer()
    description = buffer.get_custom_meta("vlm-description").get_structure()
    print(json.dumps({"start": sample.get_segment().to_stream_time(Gst.Format.TIME, buffer.pts),
                      "text": buffer.extract_dup(0, buffer.get_size()).decode(),
                      "described": description.get_uint64("stream-time")[1]}), flush=True)
eos = sink.get_property("eos")
message = pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
pipeline.set_state(Gst.State.NULL)
if message is not None:
    sys.exit(message.parse_error()[0].message)
if not eos:
    sys.exit("no text came for a minute")
