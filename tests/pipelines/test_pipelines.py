# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every launch line in pipelines/ runs as the README says, on a real clip, and its output is right."""

import json
import os
import pathlib
import re
import subprocess

import pytest

import scenes
from conftest import python_with_gi
from material import ROOT

FILES = {path.stem: path for path in sorted((ROOT / "pipelines").glob("*.txt"))
         if not path.stem.startswith("requirements")}
PICTURE_SIZE = (640, 360)
LIVE_FRAMES = 60
# Four seconds of a camera; a few pictures may be gone before the model is loaded.
LIVE = (f"videotestsrc is-live=true pattern=blue num-buffers={LIVE_FRAMES} ! "
        "video/x-raw,width=640,height=360,framerate=15/1")


def run(name, timeout=180, program="gst-launch-1.0", **variables):
    """As in the README: the file's lines without its comments, variables replaced by the shell."""
    assert (pathlib.Path(FILES[name]).read_text().startswith("# ")), "a launch line begins with a comment"
    done = subprocess.run(
        ["sh", "-c", f"eval {program} $(grep -v '^#' pipelines/{name}.txt)"], cwd=ROOT, timeout=timeout,
        env=dict(os.environ, **{key: str(value) for key, value in variables.items()}), capture_output=True, text=True,
        stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.stdout


def cues(text):
    """Start in seconds and text of each subtitle."""
    pattern = r"(\d+):(\d\d):(\d\d)[.,](\d{3}) --> .*\n(.+)\n"
    found = []
    for hours, minutes, seconds, ms, line in re.findall(pattern, text):
        found.append((int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(ms) / 1000, line))
    return found


def truths(shown):
    return [scenes.describe(scene.truth()) for scene in shown]


def check_cues(text, shown):
    found = cues(text)
    assert [start for start, _ in found] == [2 * k for k in range(len(shown))]
    right = sum(line == truth for (_, line), truth in zip(found, truths(shown)))
    assert right >= len(shown) - 1, found


def read_back(path, demuxer, target):
    """The subtitles inside a file, as SubRip."""
    subprocess.run(["gst-launch-1.0", "-q", "filesrc", f"location={path}", "!", demuxer, "name=demux", "demux.subtitle_0",
                    "!", "queue", "!", "text/x-raw", "!", "srtenc", "!", "filesink", f"location={target}"], check=True,
                   timeout=60)
    return target.read_text()


def video_frames(path):
    """Frames that a file decodes to."""
    done = subprocess.run(["gst-launch-1.0", "filesrc", f"location={path}", "!", "decodebin", "!", "video/x-raw", "!",
                           "identity", "silent=false", "!", "fakesink", "sync=false", "-v"], capture_output=True,
                          text=True, check=True, timeout=60)
    return len(re.findall(r"last-message = chain", done.stdout))


def test_describe_file(clip, shown, tmp_path):
    run("describe-file", INPUT=clip, OUTPUT=tmp_path / "out put.vtt")
    text = (tmp_path / "out put.vtt").read_text()
    assert text.startswith("WEBVTT\n\n")
    check_cues(text, shown)


@pytest.mark.parametrize("name,demuxer", [("describe-to-matroska", "matroskademux"), ("describe-to-mp4", "qtdemux")])
def test_describe_into_a_file_with_a_subtitle_track(clip, shown, tmp_path, name, demuxer):
    output = tmp_path / "out"
    run(name, INPUT=clip, OUTPUT=output)
    check_cues(read_back(output, demuxer, tmp_path / "back.srt"), shown)
    assert video_frames(output) == video_frames(clip) == 80


def test_describe_on_screen(tmp_path):
    """The description is drawn: the lower part of later frames has white letters that the first frame lacks."""
    width, height = PICTURE_SIZE
    run("describe-on-screen",
        SOURCE=f"videotestsrc is-live=true pattern=blue num-buffers=60 ! "
               f"video/x-raw,width={width},height={height},framerate=15/1",
        VIDEOSINK=f"pngenc ! multifilesink location={tmp_path}/%03d.png")
    frames = sorted(tmp_path.glob("*.png"))
    assert len(frames) == 60

    assert letters(frames[0]) == 0
    assert letters(frames[-1]) > 200


def test_describe_live():
    """Messages come while the source goes on, and the video is never held up."""
    out = run("describe-live", SOURCE="videotestsrc is-live=true pattern=blue num-buffers=45 ! "
                                      "video/x-raw,width=640,height=360,framerate=15/1",
              VIDEOSINK="fakesink sync=true")
    texts = re.findall(r'vlm-description, text=\(string\)"?([^";]*)', out)
    assert len(texts) >= 2, out[-2000:]
    assert all("blue" in text for text in texts)


def test_multi_stream(clip, shown, tmp_path):
    first, second = tmp_path / "one.vtt", tmp_path / "two.vtt"
    run("multi-stream", INPUT=clip, INPUT2=clip, OUTPUT=first, OUTPUT2=second)
    check_cues(first.read_text(), shown)
    assert first.read_text() == second.read_text()


def test_ask_a_question(clip, shown, tmp_path):
    run("ask-a-question", INPUT=clip, OUTPUT=tmp_path / "out.srt")
    found = cues((tmp_path / "out.srt").read_text())
    assert [start for start, _ in found] == list(range(8))
    right = sum(shown[k // 2].background in line.lower() for k, (_, line) in enumerate(found))
    assert right >= 7, found


def letters(path):
    """White points in the lower part of a picture, where descriptions are drawn."""
    import numpy
    from PIL import Image

    lower = numpy.asarray(Image.open(path).convert("RGB"))[PICTURE_SIZE[1] // 2:]
    return int((lower.min(-1) > 200).sum())


def test_describe_recording_on_screen(clip, tmp_path):
    """Each description is drawn from the first picture of its interval on."""
    run("describe-recording-on-screen", INPUT=clip, VIDEOSINK=f"pngenc ! multifilesink location={tmp_path}/%03d.png")
    frames = sorted(tmp_path.glob("*.png"))
    assert len(frames) == 80
    plain = tmp_path / "plain"
    plain.mkdir()
    subprocess.run(["gst-launch-1.0", "-q", "filesrc", f"location={clip}", "!", "decodebin", "!", "videoconvert", "!", "pngenc",
                    "!", "multifilesink", f"location={plain}/%03d.png"], check=True, timeout=60)
    for number in (0, 19, 20, 79):
        assert letters(frames[number]) > letters(plain / f"{number:03}.png") + 200


def check_live(found):
    """Texts of a live source that shows blue, and when they came."""
    assert len(found) >= 2, found
    assert all("blue" in text for _, text in found), found
    times = [time for time, _ in found]
    assert times == sorted(times) and times[-1] <= LIVE_FRAMES / 15 + 1


@pytest.mark.parametrize("name", ["describe-live-to-webvtt", "describe-live-to-srt"])
def test_describe_live_to_subtitles(tmp_path, name):
    run(name, SOURCE=LIVE, OUTPUT=tmp_path / "out")
    text = (tmp_path / "out").read_text()
    assert text.startswith("WEBVTT\n\n" if name.endswith("webvtt") else "1\n")
    check_live(cues(text))


@pytest.mark.parametrize("name,demuxer", [("describe-live-to-matroska", "matroskademux"), ("describe-live-to-mp4", "qtdemux")])
def test_describe_live_into_a_file_with_a_subtitle_track(tmp_path, name, demuxer):
    output = tmp_path / "out"
    run(name, SOURCE=LIVE, OUTPUT=output)
    check_live(cues(read_back(output, demuxer, tmp_path / "back.srt")))
    assert video_frames(output) == LIVE_FRAMES


def pulled(name, **variables):
    """What an application that runs the line pulls from it."""
    out = run(name, program=f"{python_with_gi()} tests/pipelines/pull_texts.py", **variables)
    return [json.loads(item) for item in out.splitlines()]


def test_describe_in_application(clip, shown):
    found = pulled("describe-in-application", INPUT=clip)
    assert [(item["start"], item["described"]) for item in found] == [(2 * k * 10**9, 2 * k * 10**9) for k in range(len(shown))]
    right = sum(item["text"] == truth for item, truth in zip(found, truths(shown)))
    assert right >= len(shown) - 1, found
    run("describe-in-application", INPUT=clip)  # nobody pulls: it ends nevertheless


def test_describe_live_in_application():
    found = pulled("describe-live-in-application", SOURCE=LIVE)
    check_live([(item["start"] / 10**9, item["text"]) for item in found])
    assert all(item["start"] > item["described"] for item in found)


def test_every_launch_line_is_tested():
    source = pathlib.Path(__file__).read_text()
    for name in FILES:
        assert f'"{name}"' in source, f"pipelines/{name}.txt has no test"
    assert len(FILES) >= 14
