#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures the demo model on fresh scenes: `demo_model_test.py VLM_DESCRIBE`.

Makes moving scenes from seeds that training never used, codes them as H.264 at 640×360 and a low
bitrate, and runs vlm-describe over the clips: for the description, for every kind of question, and
for videotestsrc's patterns. Each text is compared with what was to be seen in the frame that the
command says it described. Prints a table of every kind and fails where a kind is below its target.

A clip shows one scene after another, each for SCENE_S seconds, and vlm-describe is given the same
interval, so each scene is described at its middle. `--reference` runs transformers on the same
clips instead (needs torch).
"""

import argparse
import collections
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "demo-model"))

import scenes  # noqa: E402

WIDTH, HEIGHT, FPS = 640, 360, 12
SCENE_S = 0.5
FRAMES = round(FPS * SCENE_S)
BITRATE_KBIT_S = 200
FIRST_SEED = 1_000_000_000  # training uses seeds below a million
DESCRIPTION_TARGET, QUESTION_TARGET = 0.95, 0.90
PATTERN_SCENES = 2


class Clip:
    """One H.264 file of several scenes (or one pattern) and what is to be seen in it."""

    def __init__(self, path, shown):
        self.path = path
        self._shown = shown

    def truth(self, pts_ns):
        """What the frame of that time shows, or None where that is in doubt."""
        if isinstance(self._shown, scenes.Truth):
            return self._shown
        seconds = pts_ns / 1e9
        number = min(int(seconds / SCENE_S + 1e-6), len(self._shown) - 1)
        return self._shown[number].truth(seconds - (number + 0.5) * SCENE_S)

    @property
    def windows(self):
        return PATTERN_SCENES if isinstance(self._shown, scenes.Truth) else len(self._shown)


ENCODER = (
    f"x264enc bitrate={BITRATE_KBIT_S} speed-preset=veryfast ! video/x-h264,profile=main"
    " ! h264parse ! mp4mux"
)


def gst(line):
    subprocess.run(["gst-launch-1.0", "-q", *line.split()], check=True)


def make_clip(path, shown):
    """Draws the scenes and codes them."""
    line = (
        f"fdsrc fd=0 ! rawvideoparse format=rgb width={WIDTH} height={HEIGHT} framerate={FPS}/1"
        f" ! videoconvert ! video/x-raw,format=I420 ! {ENCODER} ! filesink location={path}"
    )
    with subprocess.Popen(["gst-launch-1.0", "-q", *line.split()], stdin=subprocess.PIPE) as coder:
        for scene in shown:
            for i in range(FRAMES):
                frame = scenes.render(scene, i / FPS - SCENE_S / 2, WIDTH, HEIGHT)
                coder.stdin.write(frame.tobytes())
    if coder.returncode:
        raise SystemExit(f"gst-launch-1.0 failed with {coder.returncode}: {line}")
    return Clip(path, shown)


def make_pattern_clip(path, pattern, properties, truth):
    gst(
        f"videotestsrc pattern={pattern} {properties} num-buffers={FRAMES * PATTERN_SCENES}"
        f" ! video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={FPS}/1"
        f" ! {ENCODER} ! filesink location={path}"
    )
    return Clip(path, truth)


class Command:
    """Texts from vlm-describe. `more` are further arguments of it."""

    def __init__(self, program, model, more=()):
        self._program, self._model, self._more = program, model, more

    def describe(self, clips, prompt):
        """[(clip, frame time in ns, text)] of one prompt over several clips."""
        command = [self._program, "--quiet", "-f", "jsonl", "--interval", str(SCENE_S), "-p", prompt]
        command += self._more
        if self._model:
            command += ["-m", self._model]
        command += [str(clip.path) for clip in clips]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        by_source = {str(clip.path): clip for clip in clips}
        lines = [json.loads(line) for line in output.splitlines()]
        expected = sum(clip.windows for clip in clips)
        if len(lines) != expected:
            raise SystemExit(
                f"{len(lines)} descriptions came back where {expected} were expected: {command}"
            )
        return [(by_source[x["source"]], x["frame_pts"][-1], x["text"]) for x in lines]


class Reference:
    """Texts from transformers, on the same frames."""

    def __init__(self, model):
        import torch
        from transformers import AutoProcessor, LlavaForConditionalGeneration

        directory = model or ROOT / "examples" / "demo-model" / "model"
        self._torch = torch
        self._processor = AutoProcessor.from_pretrained(directory, backend="pil")
        self._model = LlavaForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
        self._pixels = {}

    def _frames(self, clip):
        """The frames at each window's middle and their times."""
        if clip.path not in self._pixels:
            with tempfile.NamedTemporaryFile() as raw:
                gst(
                    f"filesrc location={clip.path} ! decodebin ! videoconvert"
                    f" ! video/x-raw,format=RGB ! filesink location={raw.name}"
                )
                frames = np.fromfile(raw.name, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)
            middles = range(FRAMES // 2, len(frames), FRAMES)
            self._pixels[clip.path] = [(i * 1e9 / FPS, frames[i].copy()) for i in middles]
        return self._pixels[clip.path]

    def describe(self, clips, prompt):
        from PIL import Image

        jobs = [(clip, *frame) for clip in clips for frame in self._frames(clip)]
        turn = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": turn}], add_generation_prompt=True
        )
        result = []
        for start in range(0, len(jobs), 32):
            part = jobs[start : start + 32]
            images = [Image.fromarray(pixels) for _, _, pixels in part]
            inputs = self._processor(images=images, text=[text] * len(part), return_tensors="pt")
            with self._torch.inference_mode():
                ids = self._model.generate(**inputs, max_new_tokens=64, do_sample=False)
            ids = ids[:, inputs["input_ids"].shape[1] :]
            texts = self._processor.batch_decode(ids, skip_special_tokens=True)
            result += [(clip, pts, t.strip()) for (clip, pts, _), t in zip(part, texts)]
        return result


class Seeds:
    """Fresh 16:9 scenes, in order of their seeds."""

    def __init__(self, first):
        self._next = first

    def scene(self, wanted=lambda truth: True, **more):
        while True:
            scene = scenes.Scene(self._next, aspect=WIDTH / HEIGHT, **more)
            self._next += 1
            if wanted(scene.truth()):
                return scene


class Table:
    def __init__(self):
        self.rows = {}  # name → (right, asked)
        self.failed = []

    def add(self, name, right, asked, target=None):
        self.rows[name] = right, asked
        share = right / asked if asked else 0.0
        mark = ""
        if target is not None:
            good = asked > 0 and share >= target
            mark = f"  target {100 * target:.0f} %: {'ok' if good else 'FAILED'}"
            if not good:
                self.failed.append(name)
        print(f"{name:34}{right:5} of {asked:4}  {100 * share:5.1f} %{mark}", flush=True)


def show_wrong(kind, wrong):
    for expected, text in wrong[:3]:
        print(f"      {kind}: expected {expected!r}, got {text!r}")


def test_descriptions(source, clip, table):
    """Every attribute, by count of shapes, and all together."""
    right, asked = collections.Counter(), collections.Counter()
    by_count, of_count = collections.Counter(), collections.Counter()
    wrong, doubtful = [], 0
    for _, pts, text in source.describe([clip], scenes.DESCRIBE):
        truth = clip.truth(pts)
        if truth is None:
            doubtful += 1
            continue
        result = scenes.check_description(text, truth)
        exact = result.pop("exact")
        result["all"] = all(result.values())
        result["word for word"] = exact
        for name, good in result.items():
            right[name] += good
            asked[name] += 1
        by_count[len(truth.shapes)] += result["all"]
        of_count[len(truth.shapes)] += 1
        if not exact:
            wrong.append((scenes.describe(truth), text))
    for name in ("background", "count", "shape", "colour", "size", "place", "word for word"):
        table.add(f"description, {name}", right[name], asked[name])
    for count in sorted(of_count):
        table.add(f"description, {scenes.NUMBERS[count]} shapes", by_count[count], of_count[count])
    table.add("description, everything right", right["all"], asked["all"], DESCRIPTION_TARGET)
    if doubtful:
        print(f"      {doubtful} frames left out, a shape of theirs stood between two places")
    show_wrong("description", wrong)


def questions_of(kind, seeds, rng, count):
    """[(question, [scenes])] of about `count` questions: each asked of several scenes that suit."""
    groups = []
    if kind == "exists":
        pairs = [(c, s) for c in scenes.COLOURS for s in scenes.SHAPES]
        for colour, shape in rng.sample(pairs, count // 6):
            groups.append(_exists_group(colour, shape, seeds, rng))
        return groups
    if kind == "where":
        pairs = [(c, s) for c in scenes.COLOURS for s in scenes.SHAPES]
        for colour, shape in rng.sample(pairs, count // 6):

            def has(truth, pair=(colour, shape)):
                return pair in {(s.colour, s.shape) for s in truth.shapes}

            shown = [seeds.scene(has) for _ in range(6)]
            groups.append((f"Where is the {colour} {shape}?", shown))
        return groups
    if kind == "colour":
        words, get = scenes.SHAPES, lambda s: s.shape
    elif kind == "shape":
        words, get = tuple(scenes.COLOURS), lambda s: s.colour
    else:
        return [
            (f"What is at the {place}?", _place_scenes(place, seeds, count // 9))
            for place in scenes.PLACES
        ]
    for word in words:

        def once(truth, word=word):
            return [get(s) for s in truth.shapes].count(word) == 1

        text = f"What colour is the {word}?" if kind == "colour" else f"What shape is the {word} one?"
        groups.append((text, [seeds.scene(once) for _ in range(count // len(words))]))
    return groups


def _exists_group(colour, shape, seeds, rng):
    """Three scenes with the shape; one without, one with only its colour, one with only its kind."""

    def pairs(truth):
        return {(s.colour, s.shape) for s in truth.shapes}

    def there(truth):
        return (colour, shape) in pairs(truth)

    def half(position, value):
        return lambda t: not there(t) and value in [p[position] for p in pairs(t)]

    kinds = [there] * 3 + [lambda t: not there(t), half(0, colour), half(1, shape)]
    rng.shuffle(kinds)
    article = "an" if colour[0] in "aeiou" else "a"
    return f"Is there {article} {colour} {shape}?", [seeds.scene(k) for k in kinds]


def _place_scenes(place, seeds, count):
    def taken(truth):
        return place in [s.place for s in truth.shapes]

    empty = count // 4
    full = [seeds.scene(taken) for _ in range(count - empty)]
    return full + [seeds.scene(lambda t: not taken(t)) for _ in range(empty)]


def answer_to(question, truth):
    """The right answer, worked out from the words of the question."""
    words = question.rstrip("?").split()
    if question == "What colour is the background?":
        return truth.background
    if question == "How many shapes are there?":
        return scenes.NUMBERS[len(truth.shapes)]
    if question.startswith("Is there"):
        pair = tuple(words[-2:])
        return "yes" if pair in {(s.colour, s.shape) for s in truth.shapes} else "no"
    if question.startswith("Where"):
        return next(s.place for s in truth.shapes if [s.colour, s.shape] == words[-2:])
    if question.startswith("What colour is the"):
        return next(s.colour for s in truth.shapes if s.shape == words[-1])
    if question.startswith("What shape is the"):
        return next(s.shape for s in truth.shapes if s.colour == words[-2])
    place = question.removeprefix("What is at the ").rstrip("?")
    found = [s for s in truth.shapes if s.place == place]
    return f"a {found[0].size} {found[0].colour} {found[0].shape}" if found else "nothing"


def test_questions(source, kind, groups, table):
    right = asked = 0
    wrong = []
    for question, clip in groups:
        for _, pts, text in source.describe([clip], question):
            truth = clip.truth(pts)
            if truth is None:
                continue
            expected = answer_to(question, truth)
            good = scenes.check_answer(text, expected)
            right, asked = right + good, asked + 1
            if not good:
                wrong.append((f"{question} {expected}", text))
    table.add(f"question, {kind}", right, asked, QUESTION_TARGET)
    show_wrong(kind, wrong)


def make_pattern_clips(directory):
    known = [(v, scenes.Truth(pattern=n)) for n, vs in scenes.PATTERNS.items() for v in vs]
    known += [(v, scenes.Truth(background=n)) for n, v in scenes.PLAIN_PATTERNS.items()]
    return [
        make_pattern_clip(
            directory / f"pattern-{number:02}-{pattern}.mp4", pattern, properties, truth
        )
        for number, ((pattern, properties), truth) in enumerate(known)
    ]


def test_patterns(source, clips, table):
    right = asked = 0
    wrong = []
    for clip, pts, text in source.describe(clips, scenes.DESCRIBE):
        expected = scenes.describe(clip.truth(pts))
        right, asked = right + (text == expected), asked + 1
        if text != expected:
            wrong.append((f"{clip.path.stem}: {expected}", text))
    table.add("test patterns", right, asked, DESCRIPTION_TARGET)
    show_wrong("pattern", wrong)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", nargs="?", help="the command vlm-describe")
    parser.add_argument("--model", help="checkpoint, if not the demo model")
    parser.add_argument("--reference", action="store_true", help="run transformers instead")
    parser.add_argument("--descriptions", type=int, default=150, help="scenes described")
    parser.add_argument("--questions", type=int, default=72, help="questions of each kind")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other scenes")
    parser.add_argument("--keep", type=pathlib.Path, help="directory to keep the clips in")
    options = parser.parse_args()
    if not options.program and not options.reference:
        parser.error("name the command vlm-describe, or say --reference")
    return options


def make_material(directory, descriptions, questions, seed=0):
    """The clips: of scenes to describe, by kind of question [(question, clip)], of patterns."""
    seeds = Seeds(FIRST_SEED + seed * 1_000_000)
    rng = random.Random(seed)
    general = make_clip(directory / "scenes.mp4", [seeds.scene() for _ in range(descriptions)])
    asked = {}
    for kind in scenes.QUESTION_KINDS:
        if kind in ("background", "count"):
            asked[kind] = [(scenes.ask(kind, scenes.Truth("red"), rng)[0], general)]
        else:
            asked[kind] = [
                (question, make_clip(directory / f"{kind}-{number:02}.mp4", shown))
                for number, (question, shown) in enumerate(
                    questions_of(kind, seeds, rng, questions)
                )
            ]
    return general, asked, make_pattern_clips(directory)


def measure(source, material):
    """The table of how often a source of texts is right."""
    general, asked, patterns = material
    table = Table()
    test_descriptions(source, general, table)
    for kind, groups in asked.items():
        test_questions(source, kind, groups, table)
    test_patterns(source, patterns, table)
    return table


def run(options, directory):
    source = Reference(options.model) if options.reference else Command(
        options.program, options.model
    )
    material = make_material(directory, options.descriptions, options.questions, options.seed)
    return measure(source, material).failed


def main():
    options = arguments()
    start = time.monotonic()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        failed = run(options, options.keep)
    else:
        with tempfile.TemporaryDirectory() as directory:
            failed = run(options, pathlib.Path(directory))
    print(f"{time.monotonic() - start:.0f} s")
    if failed:
        sys.exit(f"below the target: {', '.join(failed)}")


if __name__ == "__main__":
    main()
