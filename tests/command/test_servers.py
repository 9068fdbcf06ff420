# SPDX-License-Identifier: LGPL-2.1-or-later
"""Servers that answer nonsense, break off, or hardly ever send a picture."""

import contextlib
import os
import signal
import socketserver
import threading
import time

from conftest import complaints
from material import launch, made_clip
from test_network import Server, Watch, wait_for

DESCRIPTION = ("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\n"
               "a=rtpmap:96 H264/90000\r\na=control:stream=0\r\n")


class Camera(socketserver.ThreadingTCPServer):
    """By RTSP it agrees to everything, but sends no packet; on connections after the first, bytes without sense."""

    allow_reuse_address = daemon_threads = True

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.server.connections += 1
            number = self.server.connections
            with contextlib.suppress(OSError):
                while line := self.rfile.readline().decode():
                    method = line.split()[0]
                    fields = {}
                    while (field := self.rfile.readline().decode().strip()):
                        name, _, value = field.partition(":")
                        fields[name.lower()] = value.strip()
                    self.answer(method, fields)
                    while method == "PLAY" and number > 1:
                        self.wfile.write(os.urandom(1000))
                        time.sleep(0.1)

        def answer(self, method, fields):
            extra = {"OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
                     "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(DESCRIPTION)}\r\n",
                     "SETUP": "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"}.get(method, "Session: 1\r\n")
            body = DESCRIPTION if method == "DESCRIBE" else ""
            self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {fields.get('cseq', 0)}\r\n{extra}\r\n{body}".encode())

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.connections = 0
        self.uri = f"rtspt://127.0.0.1:{self.server_address[1]}/x"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


def begin_chunks(handler, kind="application/octet-stream"):
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()


def send_chunk(handler, data):
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
    handler.wfile.flush()


def trickle(handler):
    begin_chunks(handler)
    with contextlib.suppress(OSError):
        while not handler.server.closing:
            send_chunk(handler, b"\0")
            time.sleep(0.5)


def test_what_never_shows_a_picture_is_not_waited_for_without_end(command, tmp_path, video):
    with contextlib.ExitStack() as stack:
        camera, other = stack.enter_context(Camera()), stack.enter_context(Camera())
        server = stack.enter_context(Server(tmp_path, {"/trickle": trickle}))
        begun = time.monotonic()
        watch = stack.enter_context(Watch(command, tmp_path, camera.uri))
        given_up = stack.enter_context(Watch(command, tmp_path, "--give-up-after", 4, other.uri, name="other"))
        done = command.run(f"{server.uri}/trickle", video)
        (line,) = complaints(done)
        assert done.returncode == 1 and "[00:00:00.000" in done.stdout
        assert line.startswith(f"{server.uri}/trickle: no picture came from it in 30 s")
        # Not only where an attempt ends, which takes as long as the first one.
        assert given_up.process.wait(timeout=60) == 1
        assert time.monotonic() - begun < 30 + 4 + 20
        assert "and given up after " in given_up.errors.read_text()
        # Each attempt ends with more than one error, of which the later ones find no source any more.
        watch.wait_for_line("shows nothing")

        def connected_again():
            assert watch.process.poll() is None, watch.errors.read_text()
            return camera.connections >= 4

        wait_for(connected_again, "a fourth connection", timeout=60)


def test_a_page_and_a_broken_connection_are_named(command, tmp_path):
    clip = made_clip(tmp_path / "clip.mp4", seconds=20).read_bytes()

    def page(handler):
        body = b"<!DOCTYPE html><html><body>Please log in</body></html>"
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def break_off(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(clip)))
        handler.end_headers()
        handler.wfile.write(clip[:len(clip) // 2])
        handler.close_connection = True

    with Server(tmp_path, {"/page.mp4": page, "/half.mp4": break_off}) as server:
        done = command.run(f"{server.uri}/page.mp4", f"{server.uri}/half.mp4")
    assert done.returncode == 1
    text, half = complaints(done)
    assert "it is a text (text/html) and no video" in text and "login" in text
    assert "the connection broke off" in half


def test_ctrl_c_ends_a_source_with_rare_pictures(command, tmp_path):
    clip = tmp_path / "rare.mkv"
    launch(f"videotestsrc num-buffers=6 ! video/x-raw,width=160,height=120,framerate=1/8 ! jpegenc ! matroskamux "
           f"streamable=true ! filesink location={clip}")
    nothing = b"\xec\x81\x00"  # an element of Matroska that says nothing

    def hold(handler):
        begin_chunks(handler, "video/x-matroska")
        send_chunk(handler, clip.read_bytes())
        with contextlib.suppress(OSError):
            while not handler.server.closing:
                send_chunk(handler, nothing)
                time.sleep(0.5)

    with Server(tmp_path, {"/camera": hold}) as server, \
            Watch(command, tmp_path, "--lost-after", 1, f"{server.uri}/camera") as watch:
        watch.wait_for("", 1)  # of the first picture, when the second one came
        time.sleep(2)
        # That the next one is seconds away is not the server's fault.
        assert "was lost" not in watch.errors.read_text()
        begun = time.monotonic()
        watch.process.send_signal(signal.SIGINT)
        assert watch.process.wait(timeout=60) == 0
        assert time.monotonic() - begun < 4
    assert watch.records()
