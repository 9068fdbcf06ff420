# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where descriptions go: one file or many, whole or growing, never half."""

import json
import os
import shutil
import stat
import subprocess
import threading

import pytest

from conftest import complaints


@pytest.fixture
def folder(tmp_path):
    """An empty folder to write to; nothing but the wanted files may be left in it."""
    path = tmp_path / "output"
    path.mkdir()
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name,form", [("a.txt", "text"), ("a.jsonl", "jsonl"), ("a.vtt", "vtt"), ("a.srt", "srt"),
                                       ("a", "text"), ("a.other", "text")])
def test_the_ending_chooses_the_format(command, video, folder, name, form):
    done = command.run("-o", folder / name, video)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert names(folder) == [name]
    text = (folder / name).read_text()
    if form == "jsonl":
        assert len([json.loads(line) for line in text.splitlines()]) == 3
    else:
        assert text == command.run("-f", form, video).stdout


def test_format_wins_over_the_ending(command, picture, folder):
    assert command.run("-f", "jsonl", "-o", folder / "a.txt", picture).returncode == 0
    json.loads((folder / "a.txt").read_text())


def test_a_dash_is_standard_output(command, picture):
    assert command.run("-o", "-", picture).stdout == command.run(picture).stdout != ""


def test_a_file_is_replaced_as_a_whole(command, picture, folder):
    target = folder / "a.txt"
    target.write_text("old " * 1000)
    target.chmod(0o640)
    link = folder / "link.txt"
    link.symlink_to("a.txt")
    assert command.run("-o", link, picture).returncode == 0
    assert link.is_symlink()
    assert target.read_text() == command.run(picture).stdout
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert names(folder) == ["a.txt", "link.txt"]


def test_new_files_follow_the_umask(command, picture, folder):
    assert command.run("-o", folder / "a.txt", picture, umask=0o027).returncode == 0
    assert stat.S_IMODE((folder / "a.txt").stat().st_mode) == 0o640


def test_a_failed_recording_leaves_the_old_file(command, folder, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(os.urandom(3000))
    (folder / "a.txt").write_text("old")
    assert command.run("-o", folder / "a.txt", broken).returncode == 1
    assert command.run("-o", folder / "b.txt", broken).returncode == 1
    assert names(folder) == ["a.txt"]
    assert (folder / "a.txt").read_text() == "old"


def test_several_inputs_go_to_a_folder(command, picture, video, folder, tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    twin = shutil.copy(picture, others / "picture.png")
    sibling = others / "picture.bmp"
    from PIL import Image

    Image.open(picture).save(sibling)
    done = command.run("-f", "jsonl", "-o", folder, picture, video, twin, sibling)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert names(folder) == ["clip.jsonl", "picture.bmp.jsonl", "picture.jsonl", "picture.png.jsonl"]
    sources = {name: json.loads((folder / name).read_text().splitlines()[0])["source"] for name in names(folder)}
    assert sources == {"picture.jsonl": str(picture), "clip.jsonl": str(video), "picture.png.jsonl": str(twin),
                       "picture.bmp.jsonl": str(sibling)}


def test_the_folder_is_made(command, picture, video, folder):
    assert command.run("-o", folder / "new" / "deep", picture, video).returncode == 0
    assert names(folder / "new" / "deep") == ["clip.txt", "picture.txt"]
    assert (folder / "new" / "deep" / "picture.txt").read_text() == command.run(picture).stdout


def test_json_lines_of_all_in_one_file(command, picture, video, folder, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(os.urandom(3000))
    done = command.run("-o", folder / "all.jsonl", picture, broken, video)
    assert done.returncode == 1
    assert names(folder) == ["all.jsonl"]
    records = [json.loads(line) for line in (folder / "all.jsonl").read_text().splitlines()]
    assert [record["source"] for record in records] == [str(picture)] + [str(video)] * 3


def test_a_folder_of_subtitles(command, video, folder, tmp_path):
    for name in ("one.mp4", "two.mp4"):
        shutil.copy(video, tmp_path / name)
    done = command.run("-f", "vtt", "-o", folder, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert names(folder) == ["one.vtt", "two.vtt"]
    assert (folder / "one.vtt").read_text() == (folder / "two.vtt").read_text()


def test_full_disks_are_one_sentence(command, picture, video):
    for source in (picture, video):
        done = command.run("-o", "/dev/full", source)
        assert done.returncode == 1
        (line,) = complaints(done)
        assert "/dev/full" in line and "space" in line
        with open("/dev/full", "w") as full:
            done = command.run(source, stdout=full)
        assert done.returncode == 1
        (line,) = complaints(done)
        assert "standard output" in line and "space" in line


def test_a_pipe_gets_each_description_at_once(command, video, folder):
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    found = []
    reader = threading.Thread(target=lambda: found.extend(open(fifo).read().splitlines()), daemon=True)
    reader.start()
    assert command.run("-f", "jsonl", "-o", fifo, video).returncode == 0
    reader.join(timeout=10)
    assert len([json.loads(line) for line in found]) == 3
    assert names(folder) == ["fifo"]


def test_lines_come_as_they_are_made(command, video):
    running = command.start("--interval", 0.2, "-f", "jsonl", video)
    first = running.stdout.readline()
    assert json.loads(first)["index"] == 0
    rest, err = running.stdout.read(), running.stderr.read()  # communicate() would miss what is buffered
    assert (running.wait(timeout=30), err) == (0, "")
    assert [json.loads(line)["index"] for line in rest.splitlines()] == list(range(1, 30))


def test_nothing_is_read_from_standard_input(command, picture):
    done = subprocess.run([command.path, str(picture)], stdin=None, capture_output=True, text=True, timeout=120,
                          preexec_fn=lambda: os.close(0))
    assert done.returncode == 0
