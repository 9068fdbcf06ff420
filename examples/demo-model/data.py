# SPDX-License-Identifier: LGPL-2.1-or-later
"""Training pictures of the demo model: drawn from seeds, degraded, stored ready for the model.

`python data.py DIRECTORY ROWS` writes chunks of CHUNK rows, several processes at once; chunks
already there are kept, so an interrupted run goes on where it stopped. Row i shows scene i, or a
videotestsrc pattern in one row of PATTERN_EVERY. A chunk holds pictures, uint8 [rows, SIDE, SIDE,
3], and labels, uint8 [rows, GRID * GRID]: for each patch of the vision tower 0 for background,
k + 1 for the scene's shape k, IGNORE where nothing is to be learned.
"""

import io
import multiprocessing
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image, ImageFilter

import scenes

SIDE = 112
PATCH = 16
GRID = SIDE // PATCH
CHUNK = 5000
PATTERN_EVERY = 12
IGNORE = 255
HEIGHTS, HEIGHT_WEIGHTS = (180, 240, 360), (0.6, 0.25, 0.15)
PATTERN_SIZES = ((640, 360), (1280, 720), (320, 240), (640, 480), (360, 360))
# Frames kept of a pattern that moves.
MOVING = {"ball": 60, "snow": 6, "zone-plate": 12, "chroma-zone-plate": 12, "bar": 20}
EXTRA = {"bar": [("bar", "horizontal-speed=9")]}


def pattern_frames(pattern, properties, width, height, frames):
    """Frames of videotestsrc as uint8 [frames, height, width, 3]."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "frames.rgb"
        line = (
            f"videotestsrc pattern={pattern} {properties} num-buffers={frames}"
            f" ! video/x-raw,format=I420,width={width},height={height},framerate=30/1"
            f" ! videoconvert ! video/x-raw,format=RGB ! filesink location={path}"
        )
        subprocess.run(["gst-launch-1.0", "-q", *line.split()], check=True)
        data = np.fromfile(path, np.uint8)
    stride = (width * 3 + 3) // 4 * 4
    rows = data.reshape(frames, height, stride)[:, :, : width * 3]
    return rows.reshape(frames, height, width, 3).copy()


def all_patterns():
    """[(truth, frames)] of every pattern in every size, the plain ones as empty scenes."""
    result = []
    for width, height in PATTERN_SIZES:
        for name, variants in scenes.PATTERNS.items():
            frames = []
            for pattern, properties in variants + EXTRA.get(name, []):
                count = MOVING.get(pattern, 1)
                frames.extend(pattern_frames(pattern, properties, width, height, count))
            small = [_fit(f) for f in frames]
            result.append((scenes.Truth(pattern=name), small))
        for name, (pattern, properties) in scenes.PLAIN_PATTERNS.items():
            frames = pattern_frames(pattern, properties, width, height, 1)
            result.append((scenes.Truth(background=name), [_fit(f) for f in frames]))
    return result


def _fit(frame):
    """A frame no higher than 360 lines, to save time; fine patterns are kept as they are."""
    picture = Image.fromarray(frame)
    if picture.height > 360:
        size = (picture.width * 360 // picture.height, 360)
        picture = picture.resize(size, Image.BICUBIC)
    return np.asarray(picture)


def pattern_of(row, patterns):
    """(truth, frame) of a pattern row; every pattern gets the same share."""
    rng = random.Random(f"pattern {row}")
    names = [*scenes.PATTERNS, "plain"]
    name = rng.choice(names)
    fitting = [p for p in patterns if (p[0].pattern or "plain") == name]
    truth, frames = rng.choice(fitting)
    return truth, rng.choice(frames)


def is_pattern(row):
    return row % PATTERN_EVERY == 0


def truth_of(row, patterns):
    """What is to be seen in a row."""
    return pattern_of(row, patterns)[0] if is_pattern(row) else scenes.Scene(row).truth()


def degrade(picture, rng):
    """What cameras, scalers and codecs do to a picture, then the model's own resize."""
    height = picture.height
    if rng.random() < 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.6) * height / 180))
    if rng.random() < 0.2:
        factor = rng.uniform(0.3, 0.7)
        small = (round(picture.width * factor), round(height * factor))
        kind = rng.choice((Image.BILINEAR, Image.BICUBIC, Image.NEAREST))
        picture = picture.resize(small, kind).resize(picture.size, Image.BILINEAR)
    if rng.random() < 0.45:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=rng.randint(5, 50), subsampling=2)
        picture = Image.open(file).convert("RGB")
    pixels = np.asarray(picture.resize((SIDE, SIDE), Image.BICUBIC), np.float32)
    if rng.random() < 0.3:
        noise = np.random.default_rng(rng.getrandbits(32))
        pixels = pixels + noise.normal(0, rng.uniform(1, 10), pixels.shape)
    gain = [rng.uniform(0.94, 1.04) * rng.uniform(0.98, 1.02) for _ in range(3)]
    return np.clip(pixels * np.asarray(gain) + rng.uniform(-4, 4) + 0.5, 0, 255).astype(np.uint8)


def patch_labels(cover, width, height):
    """Per patch the number of the shape that covers it most, where that is a fair part."""
    best = np.full(GRID * GRID, 0.25)
    labels = np.zeros(GRID * GRID, np.uint8)
    rows, columns = np.arange(height) * GRID // height, np.arange(width) * GRID // width
    for number, (top, left, mask) in enumerate(cover, 1):
        part = np.zeros((GRID, width))
        np.add.at(part[:, left : left + mask.shape[1]], rows[top : top + mask.shape[0]], mask)
        share = np.zeros((GRID, GRID))
        np.add.at(share.T, columns, part.T)
        share = share.reshape(-1) * GRID * GRID / (width * height)
        wins = share > best
        wins[share.argmax()] = True
        labels[wins] = number
        best = np.maximum(best, share)
    return labels


def make_row(row, patterns):
    rng = random.Random(f"row {row}")
    if is_pattern(row):
        _, frame = pattern_of(row, patterns)
        return degrade(Image.fromarray(frame), rng), IGNORE
    scene = scenes.Scene(row)
    height = rng.choices(HEIGHTS, HEIGHT_WEIGHTS)[0]
    width = round(height * scene.aspect)
    cover = []
    pixels = scenes.render(scene, 0.0, width, height, cover=cover)
    return degrade(Image.fromarray(pixels), rng), patch_labels(cover, width, height)


def make_chunk(directory, chunk, patterns):
    path = pathlib.Path(directory) / f"pictures-{chunk:03}.npy"
    if path.exists():
        return
    pictures = np.empty((CHUNK, SIDE, SIDE, 3), np.uint8)
    labels = np.empty((CHUNK, GRID * GRID), np.uint8)
    for i in range(CHUNK):
        pictures[i], labels[i] = make_row(chunk * CHUNK + i, patterns)
    np.save(pathlib.Path(directory) / f"labels-{chunk:03}.npy", labels)
    part = path.with_suffix(".part.npy")
    np.save(part, pictures)
    part.rename(path)


def make(directory, rows):
    """Writes every chunk of the rows; returns CPU seconds used by this call's processes."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    chunks = range(-(-rows // CHUNK))
    if all((directory / f"pictures-{c:03}.npy").exists() for c in chunks):
        return 0.0
    before = os.times()
    patterns = all_patterns()
    with multiprocessing.Pool(os.cpu_count()) as pool:
        jobs = [pool.apply_async(make_chunk, (directory, c, patterns)) for c in chunks]
        start = time.monotonic()
        for done, job in enumerate(jobs, 1):
            job.get()
            print(f"pictures: {done * CHUNK} of {rows}, {time.monotonic() - start:.0f} s")
            sys.stdout.flush()
        pool.close()
        pool.join()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


if __name__ == "__main__":
    print(f"{make(sys.argv[1], int(sys.argv[2])):.0f} s of CPU time")
