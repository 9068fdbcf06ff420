# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where descriptions go: one file or many, whole or growing, never half."""

import array
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import termios
import threading
import time

import pytest

from conftest import complaints, full_at


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


def test_a_disk_that_fills_leaves_no_half_record(command, picture, folder, tmp_path):
    many = tmp_path / "many"
    many.mkdir()
    for number in range(6):
        shutil.copy(picture, many / f"{number}.png")
    one = len(command.run("-f", "jsonl", many / "0.png").stdout)
    limit = full_at(one * 7 // 2)
    done = command.run("-o", folder / "all.jsonl", many, preexec_fn=limit)
    assert done.returncode == 1
    (line,) = complaints(done)
    assert str(folder / "all.jsonl") in line
    assert names(folder) == []
    before = '{"source": "before"}\n'
    for mode in ("a", "r+"):
        grown = folder / "grown.jsonl"
        grown.write_text(before)
        with open(grown, mode) as out:
            out.seek(0, os.SEEK_END)
            done = command.run("-f", "jsonl", many, stdout=out, preexec_fn=limit)
        assert done.returncode == 1
        complaints(done)
        records = [json.loads(line) for line in grown.read_text().splitlines()]
        assert [record["source"] for record in records] == ["before"] + [f"{many}/{number}.png" for number in range(3)]
        assert grown.read_text().endswith("\n")


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


def test_a_closed_standard_output_is_an_error(command, picture, video):
    for arguments in ([picture], ["-f", "vtt", video], ["--help"]):
        done = command.run(*arguments, stdout=None, preexec_fn=lambda: os.close(1))
        assert done.returncode == 1, arguments
        (line,) = complaints(done)
        assert "standard output" in line


def test_no_message_lands_in_the_output(command, picture, folder, tmp_path):
    for closed in ([2], [0, 1, 2]):
        done = command.run("-v", "-o", folder / "o.jsonl", picture, tmp_path / "absent.png",
                           preexec_fn=lambda: [os.close(number) for number in closed])
        assert done.returncode == 1
        records = [json.loads(line) for line in (folder / "o.jsonl").read_text().splitlines()]
        assert [record["source"] for record in records] == [str(picture)]


@pytest.fixture
def narrow():
    """A pipe that holds 4 KiB, and does not let its writer wait."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    yield reader, writer
    for number in (reader, writer):
        try:
            os.close(number)
        except OSError:
            pass


def start_into(command, writer, *arguments):
    running = subprocess.Popen([command.path, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=writer,
                               stderr=subprocess.PIPE, text=True)
    os.close(writer)
    return running


def wait_until_full(reader):
    """Nothing more comes for half a second."""
    deadline = time.monotonic() + 60
    waiting, still = array.array("i", [0]), 0
    while still < 10:
        assert time.monotonic() < deadline, "nothing came in time"
        time.sleep(0.05)
        before = waiting[0]
        fcntl.ioctl(reader, termios.FIONREAD, waiting)
        still = still + 1 if before == waiting[0] > 0 else 0


def test_a_pipe_that_does_not_block_loses_nothing(command, video, narrow):
    reader, writer = narrow
    running = start_into(command, writer, "-f", "jsonl", "--interval", 0.2, "--max-new-tokens", 8, video)
    wait_until_full(reader)
    with os.fdopen(os.dup(reader)) as stream:
        records = [json.loads(line) for line in stream]
    assert (running.wait(timeout=30), running.stderr.read()) == (0, "")
    assert [record["index"] for record in records] == list(range(30))


def test_ctrl_c_ends_while_nobody_reads(command, picture, video, narrow):
    reader, writer = narrow
    running = start_into(command, writer, "-f", "jsonl", "--interval", 0.2, video, picture)
    try:
        wait_until_full(reader)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=10) == 1
    finally:
        running.kill()
    assert running.stderr.read() == "vlm-describe: interrupted: 0 of 2 inputs were described\n"


def test_long_names_are_cut(command, picture, folder, tmp_path):
    longest = [tmp_path / ("ä" * 125 + end) for end in ("1.png", "2.png", "1.bmp")]
    for path in longest:
        shutil.copy(picture, path)
    done = command.run("-f", "jsonl", "-o", folder, *longest, longest[0])
    assert (done.returncode, done.stderr) == (0, "")
    assert len(names(folder)) == 4
    for name in names(folder):
        assert len(name.encode()) <= 255 and name.startswith("ä" * 110) and name.endswith(".jsonl")
    sources = [json.loads((folder / name).read_text())["source"] for name in names(folder)]
    assert sorted(sources) == sorted(map(str, [*longest, longest[0]]))


@pytest.mark.parametrize("uri,name", [
    ("http://host/p?user=a@b.c", "host_p_user_a_b.c"), ("rtsp://me:secret@host/a@b", "host_a_b"),
    ("rtsp://me@home:secret@host:554/", "host_554_")])
def test_the_account_of_a_uri_is_not_in_the_name(command, folder, tmp_path, uri, name):
    # The name is in the refusal to write over the file that bears it.
    taken = folder / f"{name}.txt"
    taken.write_text("What is this?")
    done = command.run("-o", folder, "--prompt-file", taken, uri, "http://host/other")
    assert done.returncode == 2
    assert str(taken) in complaints(done)[0]


def media_folder(path, picture, video):
    """Things to read, under several names."""
    path.mkdir()
    shutil.copy(picture, path / "a.png")
    shutil.copy(picture, path / "notes.txt")
    shutil.copy(video, path / "v.mp4")
    (path / "scan.tif").write_bytes(b"II*\0")
    (path / "prompt").write_text("What is this?")
    (path / "link.jsonl").symlink_to("a.png")
    os.link(path / "a.png", path / "hard.txt")
    os.link(path / "prompt", path / "other-prompt")


@pytest.mark.parametrize("arguments,target,source", [
    ("-o a.png a.png", "a.png", "a.png"),
    ("-o v.mp4 v.mp4", "v.mp4", "v.mp4"),
    ("-o ./link.jsonl a.png", "./link.jsonl", "a.png"),
    ("-o a.png link.jsonl", "a.png", "link.jsonl"),
    ("-o hard.txt a.png", "hard.txt", "a.png"),
    ("-f jsonl -o scan.tif a.png scan.tif", "scan.tif", "scan.tif"),
    ("-f jsonl -o ../d/v.mp4 .", "../d/v.mp4", "./v.mp4"),
    ("--prompt-file prompt -o prompt a.png", "prompt", "prompt"),
    ("--prompt-file=prompt -o other-prompt a.png", "other-prompt", "prompt"),
    ("--trace a.png a.png", "a.png", "a.png"),
    ("--trace other-prompt --prompt-file prompt v.mp4", "other-prompt", "prompt"),
    ("-o . notes.txt", "./notes.txt", "notes.txt"),
    ("-o . v.mp4 notes.txt", "./notes.txt", "notes.txt")])
def test_nothing_that_is_read_is_written_over(command, picture, video, tmp_path, arguments, target, source):
    folder = tmp_path / "d"
    media_folder(folder, picture, video)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = command.run(*arguments.split(), cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = complaints(done)
    assert f'"{target}"' in line and f'"{source}"' in line and "--help" in line
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_standard_output_may_not_be_an_input(command, picture, tmp_path):
    copy = shutil.copy(picture, tmp_path / "a.png")
    with open(copy, "ab") as out:
        done = command.run(copy, stdout=out)
    assert done.returncode == 2
    assert "standard output" in complaints(done)[0]
    assert copy.read_bytes() == picture.read_bytes()
