# SPDX-License-Identifier: LGPL-2.1-or-later
"""Still pictures through the command: what is said about them, in which form, and what fails."""

import json
import shutil
import struct

import pytest
from PIL import Image

import scenes
from conftest import complaints
from material import save_scene, sure_scene

KEYS = ["source", "index", "pts", "duration", "frame_pts", "prompt", "text", "token_ids", "finish_reason",
        "prompt_tokens", "image_tokens", "logprobs", "logprob", "timing"]
TIMES = ["wait_ms", "vision_ms", "prefill_ms", "decode_ms", "total_ms"]


def texts(records):
    return [record["text"] for record in records]


def test_scenes_are_described_as_they_are(command, tmp_path):
    """In order, sorted by name, and right: the model makes few mistakes on single shapes."""
    shown = [sure_scene(number) for number in range(20)]
    for number, scene in enumerate(shown):
        save_scene(scene, tmp_path / f"{number:02}.png")
    records = command.json(tmp_path)
    assert [record["source"] for record in records] == [f"{tmp_path}/{number:02}.png" for number in range(20)]
    right = sum(record["text"] == scenes.describe(scene.truth()) for record, scene in zip(records, shown))
    assert right >= 17, f"only {right} of 20 descriptions are right"


def test_questions_are_answered(command, tmp_path):
    right = 0
    for number in range(5):
        scene = sure_scene(number)
        path = save_scene(scene, tmp_path / "scene.png")
        done = command.run("-p", "What colour is the background?", path)
        assert done.returncode == 0, done.stderr
        right += scene.background in done.stdout.lower()
    assert right >= 4


def test_text_is_the_text_alone(command, picture):
    (record,) = command.json(picture)
    done = command.run(picture)
    assert (done.returncode, done.stdout, done.stderr) == (0, record["text"] + "\n", "")


def test_several_texts_name_their_sources(command, picture, tmp_path):
    other = shutil.copy(picture, tmp_path / "other.png")
    (record,) = command.json(picture)
    done = command.run(picture, other)
    assert done.stdout == f"{picture}: {record['text']}\n{other}: {record['text']}\n"


def test_json_has_every_field(command, picture):
    (record,) = command.json(picture)
    assert list(record) == KEYS
    assert list(record["timing"]) == TIMES
    assert (record["source"], record["index"]) == (str(picture), 0)
    assert (record["pts"], record["duration"], record["frame_pts"]) == (0, None, [0])
    assert "Describe the scene." in record["prompt"]
    assert record["text"] == record["text"].strip() != ""
    assert record["token_ids"] and all(isinstance(token, int) for token in record["token_ids"])
    assert len(record["logprobs"]) == len(record["token_ids"])
    assert all(logprob <= 1e-6 for logprob in record["logprobs"])
    assert record["logprob"] == pytest.approx(sum(record["logprobs"]) / len(record["logprobs"]))
    assert record["finish_reason"] == "stop"
    assert record["prompt_tokens"] > record["image_tokens"] > 0
    assert all(record["timing"][name] >= 0 for name in TIMES)
    assert record["timing"]["total_ms"] > 0


def test_likeliest_tokens_on_request(command, picture):
    (record,) = command.json("--top-logprobs", 4, picture)
    assert len(record["top_logprobs"]) == len(record["token_ids"])
    for choices, token, logprob in zip(record["top_logprobs"], record["token_ids"], record["logprobs"]):
        assert [list(choice) for choice in choices] == [["id", "text", "logprob"]] * 4
        assert choices[0]["id"] == token and choices[0]["logprob"] == pytest.approx(logprob, abs=1e-5)
        assert choices == sorted(choices, key=lambda choice: -choice["logprob"])
    said = "".join(choices[0]["text"] for choices in record["top_logprobs"][:-1])
    assert said.strip() == record["text"]


def test_beams_have_a_score(command, picture):
    (record,) = command.json("--num-beams", 3, "--length-penalty", -1, "--early-stopping", "never", picture)
    assert isinstance(record["sequence_score"], float)
    (greedy,) = command.json(picture)
    assert "sequence_score" not in greedy


def test_length_is_bounded(command, picture):
    (record,) = command.json("--max-new-tokens", 3, picture)
    assert (len(record["token_ids"]), record["finish_reason"]) == (3, "length")
    (record,) = command.json("--max-new-tokens", 40, "--min-new-tokens", 40, picture)
    assert len(record["token_ids"]) == 40


def test_stop_strings_end_the_text_and_stay(command, picture):
    (whole,) = command.json(picture)
    word = whole["text"].split()[3]
    (record,) = command.json("--stop", "never said", "--stop", word, picture)
    assert record["finish_reason"] == "stop_string"
    assert record["text"] == whole["text"][:whole["text"].index(word) + len(word)]


def test_a_seed_repeats_and_every_input_starts_from_it(command, picture, tmp_path):
    copy = shutil.copy(picture, tmp_path / "copy.png")
    wild = ["--temperature", 3, "--max-new-tokens", 24, "--min-new-tokens", 24]
    first = command.json("--seed", 7, *wild, picture, copy)
    again = command.json("--seed", 7, *wild, picture, copy)
    assert texts(first) == texts(again)
    assert first[0]["text"] == first[1]["text"]
    (other,) = command.json("--seed", 8, *wild, picture)
    assert other["text"] != first[0]["text"]


def test_without_a_seed_runs_differ(command, picture):
    wild = ["--temperature", 3, "--max-new-tokens", 24, "--min-new-tokens", 24]
    assert len({command.json(*wild, picture)[0]["text"] for _ in range(3)}) == 3


def test_a_prompt_from_a_file_is_the_same(command, picture, tmp_path):
    question = tmp_path / "question.txt"
    question.write_text("How many shapes are there?\n")
    (record,) = command.json("--prompt-file", question, picture)
    (same,) = command.json("--prompt", "How many shapes are there?", picture)
    assert (record["prompt"], record["text"]) == (same["prompt"], same["text"])


def test_a_raw_prompt_is_the_whole_prompt(command, picture):
    (usual,) = command.json(picture)
    (record,) = command.json("--prompt-format", "raw", "-p", usual["prompt"], picture)
    assert record["prompt"] == usual["prompt"]
    assert record["token_ids"] == usual["token_ids"]


def test_orientation_is_seen(command, tmp_path):
    scene = sure_scene(3)
    upright = save_scene(scene, tmp_path / "upright.png")
    image = Image.open(upright).transpose(Image.Transpose.ROTATE_90)  # what orientation 6 turns back
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + b"\0\0\0\0"
    image.save(tmp_path / "turned.png", exif=exif)
    upright, turned = command.json(upright, tmp_path / "turned.png")
    assert turned["token_ids"] == upright["token_ids"]
    assert turned["logprobs"] == pytest.approx(upright["logprobs"], abs=1e-4)


def test_a_trace_that_cannot_be_written_says_what_to_do(command, picture, tmp_path):
    trace = tmp_path / "nowhere" / "trace.safetensors"
    done = command.run("--max-new-tokens", 2, "--trace", trace, picture)
    assert done.returncode == 1
    (line,) = complaints(done)
    assert str(trace) in line and "name a file in a directory that exists" in line
    done = command.run("--max-new-tokens", 2, "--trace", trace, picture, picture)
    assert done.returncode == 1
    assert (len(done.stdout.splitlines()), len(complaints(done))) == (1, 1)


def test_the_trace_holds_the_first_request(command, picture, tmp_path):
    from safetensors import safe_open

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    trace = tmp_path / "trace.safetensors"
    done = command.run("-f", "jsonl", "--trace", trace, broken, picture, picture)
    assert done.returncode == 1
    record = json.loads(done.stdout.splitlines()[0])
    with safe_open(trace, "numpy") as tensors:
        found = {name: tensors.get_tensor(name) for name in tensors.keys()}
    assert set(found) == {"pixel_values", "vision_features", "image_embeds", "inputs_embeds", "prompt_ids",
                          "first_logits", "token_ids"}
    assert found["token_ids"].tolist() == record["token_ids"]
    assert found["token_ids"].dtype == found["prompt_ids"].dtype == "int64"
    assert found["prompt_ids"].shape == (record["prompt_tokens"],)
    assert found["inputs_embeds"].shape[0] == record["prompt_tokens"]
    assert found["image_embeds"].shape[0] == record["image_tokens"]
    assert found["pixel_values"].shape[:2] == (1, 3)
    assert all(tensor.dtype == "float32" for name, tensor in found.items() if name.endswith(("s", "values"))
               and name not in ("prompt_ids", "token_ids"))
    assert found["first_logits"].argmax() == record["token_ids"][0]


def test_one_broken_picture_does_not_stop_the_others(command, picture, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(0, 12):
        path = folder / f"{number:02}.png"
        if number % 3 == 1:
            path.write_bytes(picture.read_bytes()[:200 * number])
        else:
            shutil.copy(picture, path)
    (folder / "12.jpg").write_bytes(b"")
    (folder / "13.tiff").write_bytes(b"II*\0")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "folder.png").mkdir()
    done = command.run("-f", "jsonl", folder)
    assert done.returncode == 1
    names = [json.loads(line)["source"].rsplit("/", 1)[1] for line in done.stdout.splitlines()]
    assert names == [f"{number:02}.png" for number in range(12) if number % 3 != 1]
    lines = complaints(done)
    assert len(lines) == 6
    for line, name in zip(lines, ["01.png", "04.png", "07.png", "10.png", "12.jpg", "13.tiff"]):
        assert line.startswith(f"{folder}/{name} is "), line


def test_what_is_not_there_fails_alone(command, picture, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    done = command.run(tmp_path / "absent.png", empty, "nothing:to/see", picture)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    lines = complaints(done)
    assert [line.split()[0].rstrip(":") for line in lines] == [str(tmp_path / "absent.png"), str(empty),
                                                               "nothing:to/see"]


def test_file_uris_and_odd_names(command, picture, tmp_path):
    path = tmp_path / "ein Bild ä%41#?.png"
    shutil.copy(picture, path)
    for argument in (path, path.as_uri()):
        (record,) = command.json(argument)
        assert record["source"] == str(argument)
    name = bytes(tmp_path) + b"/\xff\xfe.png"
    shutil.copy(picture, name)
    import subprocess

    done = subprocess.run([command.path, "-f", "jsonl", name], capture_output=True)
    assert done.returncode == 0
    json.loads(done.stdout.decode())


def test_a_prompt_longer_than_the_context_fails_input_by_input(command, picture, tmp_path):
    prompt = tmp_path / "long.txt"
    prompt.write_text("What colour is the background? " * 20000)
    done = command.run("--prompt-file", prompt, picture, picture)
    assert (done.returncode, done.stdout) == (1, "")
    for line in complaints(done):
        assert line.startswith(f"{picture}: ")
        assert "token" in line
    assert len(complaints(done)) == 2


@pytest.mark.parametrize("prompt,good", [
    ("<image>\nDescribe the scene.", True), ("Describe the scene.<image>", True), ("<image>", True),
    ("Describe <image> the scene.", True), ("<image><image>Describe the scene.", False),
    ("Describe the < image> scene.", True)])
def test_image_placeholders_in_odd_places(command, picture, prompt, good):
    done = command.run("-f", "jsonl", "-p", prompt, picture)
    assert done.returncode == (0 if good else 1), done.stderr
    if good:
        assert json.loads(done.stdout)["image_tokens"] > 0
    else:
        (line,) = complaints(done)
        assert "<image>" in line


def test_a_raw_prompt_without_placeholder_says_so_or_sees_the_picture(command, picture):
    done = command.run("-f", "jsonl", "--prompt-format", "raw", "-p", "Describe the scene.", picture)
    assert done.returncode in (0, 1)
    if done.returncode == 0:
        assert json.loads(done.stdout)["image_tokens"] > 0
    else:
        assert "<image>" in complaints(done)[0]


def test_subtitles_of_a_picture_are_refused(command, picture):
    done = command.run("-f", "vtt", picture)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = complaints(done)
    assert line.startswith(str(picture)) and "video" in line


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (700, 2), (3000, 2000)])
def test_odd_sizes_are_described(command, tmp_path, size):
    path = tmp_path / "odd.png"
    Image.new("L", size, 200).save(path)
    (record,) = command.json("--max-new-tokens", 8, path)
    assert record["text"]


def test_photographs_not_made_by_us(command):
    """The demo model can't know them; they must go through all the same."""
    skimage = pytest.importorskip("skimage")
    import pathlib

    folder = pathlib.Path(skimage.__file__).parent / "data"
    photographs = [path for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg", ".gif")]
    assert photographs
    records = command.json("--max-new-tokens", 8, *photographs)
    assert [record["source"] for record in records] == list(map(str, photographs))
