# SPDX-License-Identifier: LGPL-2.1-or-later
"""A clip whose scene changes at known times is described right in each interval, in all three outputs."""

import json
import pathlib
import subprocess

import pytest

import scenes
from conftest import python_with_gi
from material import scene_clip, sure_scene

SECOND = 1_000_000_000
LONG = 2  # seconds that each scene is shown
RATE = 10
HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def shown():
    return [sure_scene(number) for number in range(40, 46)]


@pytest.fixture(scope="module")
def changing(tmp_path_factory, shown):
    return scene_clip(tmp_path_factory.mktemp("content") / "changing.mp4", shown, seconds=LONG, rate=RATE,
                      coder="x264enc tune=zerolatency bitrate=600")


def outputs(clip, mode, interval):
    """What each output said, in order."""
    done = subprocess.run([python_with_gi(), str(HERE / "watch_outputs.py"), str(clip), mode, str(interval)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = {}
    for line in done.stdout.splitlines():
        item = json.loads(line)
        found.setdefault(item["way"], []).append(item)
    return found


def scene_at(shown, time):
    """Which scene is shown at a time, ns, and what is to be said of it; null where that is a matter of opinion."""
    number = min(int(time // (LONG * SECOND)), len(shown) - 1)
    truth = shown[number].truth(time / SECOND - number * LONG - LONG / 2)
    return number, truth and scenes.describe(truth)


def check_right(descriptions, shown):
    """Each is about one scene and says what that shows; the model may be mistaken once in a while."""
    wrong, judged = [], set()
    for description in descriptions:
        (frame,) = description["frames"]
        start = description["stream-time"]
        assert start <= frame <= start + description["duration"] + SECOND // RATE
        number, truth = scene_at(shown, frame)
        if truth:
            judged.add(number)
        if truth and description["text"] != truth:
            wrong.append((number, truth, description["text"]))
    assert judged == set(range(len(shown)))
    assert len({number for number, _, _ in wrong}) <= 1, wrong


def check_texts(found):
    """The text pad says what the messages say, and each text carries the description that it is."""
    messages = [item["description"] for item in found["message"]]
    assert [item["description"] for item in found["text"]] == messages
    assert [item["content"] for item in found["text"]] == [message["text"] for message in messages]
    return messages


def test_recorded(changing, shown):
    interval = SECOND
    found = outputs(changing, "recorded", interval)
    messages = check_texts(found)
    (stats,) = found["stats"]
    assert (stats["frames"], stats["windows"], stats["passed-over"]) == (RATE * LONG * len(shown), 12, 0)
    assert [(message["index"], message["stream-time"]) for message in messages] == [(k, k * interval) for k in range(12)]
    check_right(messages, shown)
    assert [item["start"] for item in found["text"]] == [k * interval for k in range(12)]
    # Every frame carries the description of the interval that it lies in.
    assert len(found["metadata"]) == stats["frames"]
    for item in found["metadata"]:
        assert item["description"] == messages[item["start"] // interval]


def test_live(changing, shown):
    interval = SECOND // 2
    found = outputs(changing, "live", interval)
    messages = check_texts(found)
    (stats,) = found["stats"]
    assert stats["frames"] == RATE * LONG * len(shown)
    assert len(messages) + stats["passed-over"] == stats["windows"] and len(messages) >= 8
    check_right(messages, shown)
    assert {scene_at(shown, message["frames"][0])[0] for message in messages} == set(range(len(shown)))
    # Texts come at the time of the newest video, in order, and never before what they describe.
    starts = [item["start"] for item in found["text"]]
    assert starts == sorted(starts)
    assert all(start >= message["frames"][0] for start, message in zip(starts, messages))
    # Frames carry the newest description there is: it is about the past, and never goes back.
    assert len(found["metadata"]) == stats["frames"]
    carried = [item for item in found["metadata"] if item["description"] is not None]
    assert len(carried) > stats["frames"] / 2
    assert all(item["description"] in messages and item["description"]["frames"][0] < item["start"] for item in carried)
    indices = [item["description"]["index"] for item in carried]
    assert indices == sorted(indices)
