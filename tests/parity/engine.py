# SPDX-License-Identifier: LGPL-2.1-or-later
"""The engine under test, in a process of its own: a crash of it is a result, not the end of the tests."""

import json
import os
import pathlib
import subprocess
import tempfile

from PIL import Image


def find_runner():
    """The built engine_runner: $VLM_ENGINE_RUNNER, else the one in build/."""
    given = os.environ.get("VLM_ENGINE_RUNNER")
    root = pathlib.Path(__file__).resolve().parents[2]
    path = pathlib.Path(given) if given else root / "build" / "tests" / "parity" / "engine_runner"
    if not path.exists():
        raise SystemExit(f"{path} is not there: build it, or set VLM_ENGINE_RUNNER")
    return str(path)


# The levels of instructions that VLM_MAX_CPU_ISA names, with what a processor of each is called by the kernel and by
# libtorch, whose kernels are limited to the same.
LEVELS = {
    "portable": (set(), "default", "sse41"),
    "avx2": ({"avx2", "fma"}, "avx2", "avx2"),
    "avx512": ({"avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}, "avx512", "avx512_core_vnni"),
    "avx512-bfloat16": ({"avx512_bf16"}, "avx512", "avx512_core_bf16"),
    "amx": ({"amx_tile", "amx_bf16"}, "avx512", "avx512_core_amx"),
}


def levels():
    """Those of this processor, the least first."""
    flags = set()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            flags = set(next((line.split() for line in file if line.startswith("flags")), []))
    known = list(LEVELS)
    return known[:next((i for i, name in enumerate(known) if not LEVELS[name][0] <= flags), len(known))]


def levels_to_run():
    """The levels that a test runs on; none names the device where that is a GPU."""
    return levels() if os.environ.get("VLM_TEST_DEVICE", "cpu") == "cpu" else [None]


def level_environment(level):
    return {"VLM_MAX_CPU_ISA": level, "ATEN_CPU_CAPABILITY": LEVELS[level][1], "ONEDNN_MAX_CPU_ISA": LEVELS[level][2]}


class EngineCrash(Exception):
    """The engine's process ended while it should have answered."""


class Engine:
    """Talks to engine_runner. Pictures are handed over as files of raw RGB in a directory that close() removes. `level`
    limits the instructions that it uses; `environment` adds to its environment."""

    def __init__(self, runner=None, level=None, environment=None):
        self.runner = runner or find_runner()
        self.level = level
        self.environment = {**(level_environment(level) if level else {}), **(environment or {})}
        self.directory = tempfile.TemporaryDirectory(prefix="vlm-parity-")
        self.process = None
        self.frames = 0

    def ask(self, command):
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen([self.runner], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                            encoding="utf-8", env={**os.environ, **self.environment})
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EngineCrash(f"engine_runner ended with status {self.process.wait()} at {command['command']}")
        return json.loads(line)

    def check(self, model, **spec):
        return self.ask({"command": "check", "model": {"model": str(model), **spec}})

    def open(self, model, **spec):
        """On the device $VLM_TEST_DEVICE, the CPU where that is not set, unless `spec` names one."""
        spec.setdefault("device", os.environ.get("VLM_TEST_DEVICE", "cpu"))
        return self.ask({"command": "open", "model": {"model": str(model), **spec}})

    def run(self, requests):
        """Submits all requests at once; their results in the same order."""
        return self.ask({"command": "run", "requests": requests})["results"]

    def frame(self, picture):
        """One picture (PIL, any mode) as a request's frame."""
        rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
        path = os.path.join(self.directory.name, f"{self.frames}.rgb")
        self.frames += 1
        with open(path, "wb") as file:
            file.write(rgb.tobytes())
        return {"path": path, "width": rgb.width, "height": rgb.height}

    def forget_frames(self):
        for i in range(self.frames):
            os.unlink(os.path.join(self.directory.name, f"{i}.rgb"))
        self.frames = 0

    def restart(self):
        """The next question goes to a new process, in today's environment."""
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process = None

    def close(self):
        self.restart()
        self.directory.cleanup()


def raw_request(text, frames=(), **options):
    """A request whose prompt is `text` as it stands."""
    return {"prompt": {"format": "raw", "turns": [{"role": "user", "text": text}]}, "frames": list(frames),
            "options": options}


def noise_picture(seed, size, mode="RGB"):
    """A picture with structure at all scales, so that resizing and cropping show."""
    import numpy as np
    rng = np.random.default_rng(seed)
    width, height = size
    channels = len(Image.new(mode, (1, 1)).getbands())
    small = Image.fromarray(rng.integers(0, 256, (max(1, height // 5), max(1, width // 5), 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR), dtype=np.int64)
    noise = rng.integers(-60, 61, (height, width, 3))
    values = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    if mode == "P":
        return Image.fromarray(values).quantize(64)
    if channels == 1:
        return Image.fromarray(values[:, :, 0]).convert(mode)
    picture = Image.fromarray(values).convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)))
    return picture
