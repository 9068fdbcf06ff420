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


def lines(script, *arguments):
    """What a script here wrote, JSON lines."""
    done = subprocess.run([python_with_gi(), str(HERE / script), *map(str, arguments)], capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def outputs(clip, mode, interval):
    """What each output said, in order."""
    found = {}
    for item in lines("watch_outputs.py", clip, mode, interval):
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


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_of_seeks_flushes_and_pauses(changing, shown, seed):
    """Nothing hangs, nothing fails, and all that is described in it, and after it, is right."""
    *found, end = lines("storm.py", changing, seed, 30)
    judged = [(description["text"], scene_at(shown, description["frames"][0])[1]) for description in found
              if len(description["frames"]) == 1]
    wrong = [both for both in judged if both[1] and both[0] != both[1]]
    assert len(wrong) <= len(found) / 4, wrong
    final = [description for description in found if description["final"]]
    indices = [description["index"] for description in found]
    assert indices == sorted(set(indices))
    if "live" in end["how"]:
        assert final
    else:
        assert [description["start"] for description in final] == [k * SECOND // 2 for k in range(24)]
    assert final[-1]["frames"][-1] > (LONG * len(shown) - 1) * SECOND
    assert end["stopped"] < 30


def test_a_soak_takes_no_more_memory_with_time():
    (found,) = lines("soak.py", 12)
    print(f"after each tenth of {found['minutes']} minutes of video: resident MiB {found['resident_mib']}, of them used "
          f"{found['used_mib']}")
    assert found["described"] == 360
    early, late = found["used_mib"][3], max(found["used_mib"][4:])
    # How much video waits for its description and for the overlay depends on chance: 40 seconds at most, 34 MiB of it. The
    # pictures that the model was shown from then on would be nearly 300, the video itself more.
    assert late - early < 60, found["used_mib"]
