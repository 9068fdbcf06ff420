# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cameras and networks: RTSP, HTTP and HLS servers on loopback that come, go, stall and change."""

import contextlib
import functools
import http.server
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from conftest import complaints
from material import launch, made_clip, scene_clip, sure_scene
import scenes

SECOND = 1_000_000_000
HERE = pathlib.Path(__file__).parent


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(condition, what, timeout=120):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come in time"
        time.sleep(0.05)


@functools.cache
def python_with_rtsp_server():
    probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    for python in (sys.executable, "/usr/bin/python3"):
        if pathlib.Path(python).exists() and subprocess.run([python, "-c", probe], capture_output=True).returncode == 0:
            return python
    return None


class Camera:
    """An RTSP server that may be killed and started again at the same place. `inside` is what its command stands behind."""

    def __init__(self, colour="blue", loss=0, host="127.0.0.1", inside=()):
        if python_with_rtsp_server() is None:
            pytest.skip("no Python here has gst-rtsp-server (gir1.2-gst-rtsp-server-1.0)")
        self.port = free_port()
        self.host, self.inside, self.loss = host, inside, loss
        self.uri = f"rtsp://{host}:{self.port}/camera"
        self.process = None
        self.start(colour)

    def start(self, colour):
        self.process = subprocess.Popen(
            [*self.inside, python_with_rtsp_server(), str(HERE / "rtsp_server.py"), self.host, str(self.port), colour,
             str(self.loss)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def tell(self, words):
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@contextlib.contextmanager
def cameras(*colours, **kwargs):
    made = []
    try:
        for colour in colours:
            made.append(Camera(colour, **kwargs))
        yield made
    finally:
        for camera in made:
            camera.kill()


class Watch:
    """vlm-describe at work on sources without an end, its output in a file."""

    def __init__(self, command, tmp_path, *arguments, ending="jsonl", name="watch"):
        self.output = tmp_path / f"{name}.{ending}"
        self.errors = tmp_path / f"{name}.err"
        with self.errors.open("w") as errors:
            self.process = command.start("--interval", 0.5, "--max-new-tokens", 12, "-o", self.output, *arguments,
                                         stderr=errors)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def text(self):
        return self.output.read_text() if self.output.exists() else ""

    def records(self):
        return [json.loads(line) for line in self.text().splitlines(keepends=True) if line.endswith("\n")]

    def count(self, word, source=None):
        return sum(word in record["text"] for record in self.records() if source in (None, record["source"]))

    def wait_for(self, word, count=3, source=None):
        def there():
            assert self.process.poll() is None, self.errors.read_text()
            return self.count(word, source) >= count

        wait_for(there, f"{count} times {word!r} (errors: {self.errors.read_text()})")

    def wait_for_line(self, pattern):
        wait_for(lambda: re.search(pattern, self.errors.read_text()), f"{pattern} on standard error")

    def stop(self):
        """Ctrl-C; the lines on standard error."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=60) == 0, self.errors.read_text()
        return self.errors.read_text().splitlines()


def check_time_line(records):
    """Numbers and times go on from one connection to the next, and times pass as fast as the clock."""
    assert [record["index"] for record in records] == sorted({record["index"] for record in records})
    ends = [record["pts"] + record["duration"] for record in records]
    assert all(later["pts"] >= end - SECOND // 20 for end, later in zip(ends, records[1:])), records
    assert all(record["pts"] - SECOND // 20 <= frame <= record["pts"] + record["duration"] + SECOND // 20
               for record in records for frame in record["frame_pts"])


def test_a_camera_that_dies_and_comes_back(command, tmp_path):
    with cameras("blue") as (camera,), Watch(command, tmp_path, "--lost-after", 5, camera.uri) as watch:
        watch.wait_for("blue")
        camera.kill()
        watch.wait_for_line("was lost")
        camera.start("red")
        watch.wait_for("red")
        camera.kill()
        wait_for(lambda: watch.errors.read_text().count("was lost") == 2, "the second loss")
        camera.start("green")
        watch.wait_for("green")
        lines = watch.stop()
    assert [re.sub(r"\(.*\)|\d+(\.\d)? s", "X", line) for line in lines] == 2 * [
        f"vlm-describe: {camera.uri} was lost X; connecting again",
        f"vlm-describe: {camera.uri} is there again after X"]
    records = watch.records()
    check_time_line(records)
    assert all(record["source"] == camera.uri and record["utc"] for record in records)
    # What the clock on the wall says lies in between, lies in between.
    pause = next((b["pts"] - a["pts"]) / SECOND for a, b in zip(records, records[1:]) if "red" in b["text"])
    assert pause > 1


def test_a_camera_that_stalls(command, tmp_path):
    with cameras("blue") as (camera,), Watch(command, tmp_path, "--lost-after", 2, camera.uri) as watch:
        watch.wait_for("blue")
        camera.tell("stall")
        watch.wait_for_line("was lost")
        before = len(watch.records())
        camera.tell("go")
        watch.wait_for("blue", before + 3)
        lines = watch.stop()
    assert "no picture came for 2 s" in lines[0]
    check_time_line(watch.records())


def test_a_camera_that_changes_its_size(command, tmp_path):
    with cameras("blue") as (camera,), Watch(command, tmp_path, "--lost-after", 30, camera.uri) as watch:
        watch.wait_for("blue")
        for size in ("640 360", "160 120"):
            camera.tell(f"size {size}")
            watch.wait_for("blue", len(watch.records()) + 3)
        assert watch.stop() == []
    check_time_line(watch.records())


def test_packets_that_get_lost(command, tmp_path):
    with cameras("blue", loss=0.05) as (camera,), Watch(command, tmp_path, "--lost-after", 30, camera.uri) as watch:
        wait_for(lambda: len(watch.records()) >= 10, "ten descriptions")
        assert watch.stop() == []
    check_time_line(watch.records())
    assert watch.count("blue") >= 5


def test_several_cameras_at_once(command, tmp_path, picture):
    with cameras("blue", "red") as (blue, red), \
            Watch(command, tmp_path, "--lost-after", 5, blue.uri, picture, red.uri) as watch:
        watch.wait_for("blue", source=blue.uri)
        watch.wait_for("red", source=red.uri)
        red.kill()  # the other goes on meanwhile
        watch.wait_for_line("was lost")
        before = watch.count("blue", blue.uri)
        watch.wait_for("blue", before + 3, blue.uri)
        red.start("green")
        watch.wait_for("green", source=red.uri)
        lines = watch.stop()
    assert all(f"vlm-describe: {red.uri} " in line for line in lines) and len(lines) == 2
    for camera, colours in ((blue, {"blue"}), (red, {"red", "green"})):
        records = [record for record in watch.records() if record["source"] == camera.uri]
        check_time_line(records)
        assert all(any(colour in record["text"] for colour in colours) for record in records)
    assert sum(record["source"] == str(picture) for record in watch.records()) == 1


def test_lines_of_several_cameras_name_them(command):
    with cameras("blue", "red") as both:
        running = command.start("--interval", 0.5, *(camera.uri for camera in both))
        try:
            wanted, seen = {(both[0].uri, "blue"), (both[1].uri, "red")}, set()
            while not wanted <= seen:
                line = running.stdout.readline()
                match = re.fullmatch(r"(rtsp\S+): \[\d{4}-\d\d-\d\dT[\d:.]+Z\] A (\w+) background.*\n", line)
                assert match, line
                seen.add(match.groups())
            running.send_signal(signal.SIGINT)
            running.stdout.read()
            assert (running.wait(timeout=60), running.stderr.read()) == (0, "")
        finally:
            running.kill()
        assert seen == wanted


@pytest.mark.parametrize("form", ["vtt", "srt"])
def test_subtitles_of_a_camera_are_whole_after_ctrl_c(command, tmp_path, form):
    with cameras("blue") as (camera,):
        (tmp_path / f"watch.{form}").write_text("what an earlier call left\n")
        with Watch(command, tmp_path, camera.uri, ending=form) as watch:
            wait_for(lambda: watch.text().count(" --> ") >= 2, "cues")
            camera.kill()
            watch.wait_for_line("was lost")
            camera.start("red")
            wait_for(lambda: "red" in watch.text(), "the other colour")
            watch.stop()
    assert watch.text().startswith("WEBVTT\n\n" if form == "vtt" else "1\n")
    launch(f"filesrc location={watch.output} ! subparse ! text/x-raw,format=pango-markup ! filesink "
           f"location={tmp_path / 'back'}")
    assert watch.text().count(" --> ") == (tmp_path / "back").read_text().count("background")


def test_ctrl_c_while_a_camera_is_away(command, tmp_path):
    earlier = json.dumps({"text": "what an earlier call left", "source": None})
    (tmp_path / "watch.jsonl").write_text(earlier + "\n")
    with cameras("blue") as (camera,), Watch(command, tmp_path, "-v", camera.uri) as watch:
        watch.wait_for("blue", 1)
        camera.kill()
        watch.wait_for_line("was lost")
        began = time.monotonic()
        lines = watch.stop()
        assert time.monotonic() - began < 20
    kept, *records = watch.text().splitlines()
    assert kept == earlier
    # What is counted is counted over all connections.
    pattern = r"(\d+) frames, (\d+) intervals: (\d+) described, (\d+) passed over, 0 failed; .*; lost 1 time"
    frames, intervals, described, passed_over = map(int, re.search(pattern, lines[-1]).groups())
    assert described == len(records) > 0 and intervals == described + passed_over and frames > intervals


def test_a_camera_is_given_up(command, tmp_path):
    with cameras("blue") as (camera,), Watch(command, tmp_path, "--give-up-after", 2, camera.uri) as watch:
        watch.wait_for("blue", 1)
        camera.kill()
        assert watch.process.wait(timeout=120) == 1
    lost, given_up = watch.errors.read_text().splitlines()
    assert "was lost" in lost and re.search(r"was lost \(.*\) and given up after \d+(\.\d)? s", given_up)
    assert watch.records()


def test_a_camera_that_never_was_is_an_error(command, picture):
    uri = f"rtsp://127.0.0.1:{free_port()}/camera"
    done = command.run(uri, picture)
    assert done.returncode == 1
    (line,) = complaints(done)
    assert line.startswith(f"{uri}: ") and done.stdout.startswith(f"{picture}: ")
    with cameras("blue") as (camera,):
        done = command.run(camera.uri + "/none")
        assert (done.returncode, done.stdout) == (1, "") and len(complaints(done)) == 1


@pytest.mark.parametrize("uri", ["http://127.0.0.1:{}/x.mp4", "http://127.0.0.1:{}/x.png",
                                 "http://no-such-host.invalid/x.mp4", "rtsp://127.0.0.1:{}/"])
def test_a_server_that_is_not_there_is_named_with_what_to_check(command, uri):
    uri = uri.format(free_port())
    done = command.run(uri)
    assert done.returncode == 1
    (line,) = complaints(done)
    assert line.startswith(uri) and "Internal data stream error" not in line
    assert "no server answered" in line or "Failed to connect" in line or "resolve" in line
    assert line.endswith("; check the address and the port, and that the server runs")


@pytest.mark.parametrize("uri", ["v4l2:///dev/video97", "/dev/video97"])
def test_no_such_video_device(command, uri):
    done = command.run(uri)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = complaints(done)
    assert line.startswith(uri)


class Server:
    """A directory, and what `extra` (path → function of a handler) adds, by HTTP."""

    def __init__(self, directory, extra=None, port=0):
        class Handler(http.server.SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map,
                              ".m3u8": "application/vnd.apple.mpegurl", ".ts": "video/mp2t"}

            def do_GET(self):
                if extra and self.path in extra:
                    extra[self.path](self)
                else:
                    super().do_GET()

            def log_message(self, *_):
                pass

        http.server.ThreadingHTTPServer.allow_reuse_address = True
        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", port), functools.partial(Handler, directory=str(directory)))
        self.server.daemon_threads = True
        self.server.closing = False
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.closing = True
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def changing(media):
    shown = [sure_scene(number) for number in range(30, 33)]
    return scene_clip(media / "network.mp4", shown, coder="x264enc tune=zerolatency key-int-max=20 bitrate=600"), shown


def spans(records):
    return [(round(record["pts"] / SECOND, 1), round(record["duration"] / SECOND, 1)) for record in records]


def test_a_recording_by_http_is_as_the_file(command, changing, tmp_path):
    clip, _ = changing
    with Server(clip.parent) as server:
        uri = f"{server.uri}/{clip.name}"
        there, here = command.json(uri), command.json(clip)
        assert [record["text"] for record in there] == [record["text"] for record in here]
        assert spans(there) == spans(here)
        output = tmp_path / "out.vtt"  # appears as a whole, being a recording
        done = command.run("-o", output, uri)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert output.read_text().count(" --> ") == len(here)


def record_hls(clip, folder):
    """The clip as segments with a playlist. GStreamer 1.22's hlssink2 now and then never ends, so it is tried again."""
    line = (f"filesrc location={clip} ! qtdemux ! h264parse config-interval=-1 ! hlssink2 target-duration=2 max-files=0 "
            f"playlist-length=0 location={folder}/part%03d.ts playlist-location={folder}/list.m3u8")
    for _ in range(6):
        with contextlib.suppress(subprocess.TimeoutExpired):
            launch(line, timeout=10)
            assert len(list(folder.glob("part*.ts"))) >= 2
            return
    raise AssertionError("hlssink2 never ended")


def test_an_hls_recording(command, changing, tmp_path):
    clip, shown = changing
    record_hls(clip, tmp_path)
    with Server(tmp_path) as server:
        records = command.json(f"{server.uri}/list.m3u8")
    # hlsdemux counts from the first decoding time, which lies some frames before the first picture.
    assert [round(record["pts"] / SECOND) for record in records[:3]] == [0, 2, 4]
    assert abs(sum(record["duration"] for record in records) / SECOND - 6) < 0.3
    right = sum(record["text"] == scenes.describe(scene.truth()) for record, scene in zip(records, shown))
    assert right >= 2, [record["text"] for record in records]
    assert all("utc" not in record for record in records)


@contextlib.contextmanager
def broadcast(folder, colour, port=0):
    """A live HLS stream: a playlist that moves on, and the server that it comes from."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    line = (f"videotestsrc is-live=true pattern={colour} ! video/x-raw,width=320,height=180,framerate=10/1 ! x264enc "
            "tune=zerolatency speed-preset=ultrafast bitrate=200 key-int-max=10 ! h264parse config-interval=-1 ! hlssink2 "
            f"target-duration=1 max-files=12 playlist-length=4 location={folder}/part%05d.ts "
            f"playlist-location={folder}/list.m3u8")
    sender = subprocess.Popen(["gst-launch-1.0", "-q", *line.split()], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(list(folder.glob("part*.ts"))) >= 4, "segments")
        with Server(folder, port=port) as server:
            yield server.uri
    finally:
        sender.kill()
        sender.wait()


def test_a_live_hls_stream(command, tmp_path):
    with contextlib.ExitStack() as stack:
        first = contextlib.ExitStack()
        stack.push(first)
        uri = first.enter_context(broadcast(tmp_path / "hls", "blue"))
        watch = stack.enter_context(Watch(command, tmp_path, "--lost-after", 5, f"{uri}/list.m3u8"))
        watch.wait_for("blue", 4)
        first.close()
        watch.wait_for_line("was lost")
        stack.enter_context(broadcast(tmp_path / "hls", "red", port=int(uri.rsplit(":", 1)[1])))
        watch.wait_for("red", 4)
        watch.stop()
    check_time_line(watch.records())
    assert all(record["utc"] for record in watch.records())


def pictures_of(colour, rate=10):
    """What a camera that sends JPEG pictures one after the other does with a request."""
    def serve(handler):
        import io

        from PIL import Image

        data = io.BytesIO()
        Image.new("RGB", (320, 180), colour).save(data, "JPEG")
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        handler.send_header("Connection", "close")
        handler.end_headers()
        head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data.getvalue())}\r\n\r\n"
        with contextlib.suppress(OSError):
            while not handler.server.closing:
                handler.wfile.write(head.encode() + data.getvalue() + b"\r\n")
                handler.wfile.flush()
                time.sleep(1 / rate)
        handler.close_connection = True
    return serve


def test_a_camera_of_jpeg_pictures_by_http(command, tmp_path):
    with contextlib.ExitStack() as stack:
        with Server(tmp_path, {"/camera": pictures_of("blue")}) as server:
            uri = f"{server.uri}/camera"
            watch = stack.enter_context(Watch(command, tmp_path, "--lost-after", 5, uri))
            watch.wait_for("blue")
        watch.wait_for_line("was lost")
        with Server(tmp_path, {"/camera": pictures_of("red")}, port=int(server.uri.rsplit(":", 1)[1])):
            watch.wait_for("red")
            watch.stop()
    check_time_line(watch.records())
