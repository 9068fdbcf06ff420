# SPDX-License-Identifier: LGPL-2.1-or-later
"""rtsp_server.py ADDRESS PORT COLOUR [LOSS]: an RTSP server whose camera shows one colour, for Python with PyGObject.

Prints "ready" once it listens. Lines on standard input steer it: "stall" and "go" stop and start the video while the
connection stays, "size WIDTH HEIGHT" changes the picture's size. LOSS is the share of RTP packets that get lost."""

import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

CAPS = "video/x-raw,width={},height={},framerate=10/1"


class Camera(GstRtspServer.RTSPMediaFactory):
    """One encoder for all who connect."""

    def __init__(self, colour, loss):
        super().__init__()
        self.camera = None
        self.set_shared(True)
        # A whole picture in each half second, so that whoever connects sees something soon.
        self.video = (f"videotestsrc is-live=true pattern={colour} ! videoscale ! "
                      f"capsfilter name=size caps={CAPS.format(320, 180)} ! valve name=valve ! "
                      "x264enc tune=zerolatency speed-preset=ultrafast bitrate=200 key-int-max=5")
        self.packets = f"rtph264pay pt=96 mtu=300 config-interval=-1 ! identity drop-probability={loss}"

    def do_create_element(self, _):
        self.camera = Gst.Bin()
        video = Gst.parse_bin_from_description(self.video, True)
        packets = Gst.parse_bin_from_description(self.packets, True)
        packets.set_name("pay0")
        self.camera.add(video)
        self.camera.add(packets)
        video.link(packets)
        return self.camera

    def obey(self, words):
        if self.camera is None:
            return
        if words[0] in ("stall", "go"):
            self.camera.get_by_name("valve").set_property("drop", words[0] == "stall")
        elif words[0] == "size":
            self.camera.get_by_name("size").set_property("caps", Gst.Caps.from_string(CAPS.format(*words[1:])))


def main():
    Gst.init(None)
    address, port, colour = sys.argv[1:4]
    camera = Camera(colour, float(sys.argv[4]) if len(sys.argv) > 4 else 0)
    server = GstRtspServer.RTSPServer()
    server.set_address(address)
    server.set_service(port)
    server.get_mount_points().add_factory("/camera", camera)
    if server.attach(None) == 0:
        sys.exit(f"port {port} is not to be had")
    loop = GLib.MainLoop()

    def read():
        for line in sys.stdin:
            GLib.idle_add(camera.obey, line.split())
        GLib.idle_add(loop.quit)

    threading.Thread(target=read, daemon=True).start()
    print("ready", flush=True)
    loop.run()


main()
