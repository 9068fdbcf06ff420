# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the programs of all peers share: the prompt, the pictures, the rounds and the line of figures they print."""

import argparse
import json
import statistics
import time

import numpy

PROMPT = "USER: <image>\nWhat is in this picture? ASSISTANT:"
PICTURE = (640, 480)


def arguments(description):
    """The command line that each peer's program understands."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", help="what the peer loads")
    parser.add_argument("--format", required=True, help="how the weights are held, as the peer calls it")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N, where the peer knows it")
    parser.add_argument("--tokens", type=int, required=True, help="so many are made of each picture, no fewer")
    parser.add_argument("--rounds", type=int, required=True, help="one more comes before them and is not counted")
    return parser.parse_args()


def pictures():
    """Noise of bytes, a new picture each time: those that engine_bench shows, in its order."""
    noise = numpy.random.RandomState(1)
    width, height = PICTURE
    while True:
        words = noise.randint(0, 2**32, width * height * 3, dtype=numpy.uint32)
        yield words.astype(numpy.uint8).reshape(height, width, 3)


def spread(values):
    return {"median": statistics.median(values), "best": min(values), "worst": max(values)}


def status_mib(name):
    """VmHWM, the most memory that this process has held (unlike getrusage's figure, without the starting process's), or
    VmRSS, what it holds now."""
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    return None


def measure(options, version, load, describe):
    """Prints the peer's figures as one line.

    `load()` answers the model. `describe(model, picture)` makes options.tokens tokens of a picture and answers first_s
    (from the pixels to the first token), decode_s (all later tokens), prompt_tokens, token_ids if it has them and, if
    the peer tells, vision_s (of first_s, the picture's part).
    """
    start = time.perf_counter()
    model = load()
    load_s = time.perf_counter() - start
    load_peak = status_mib("VmHWM")
    rounds = []
    for number, picture in zip(range(options.rounds + 1), pictures()):
        figures = describe(model, picture)
        if number > 0:
            rounds.append(figures)
        else:
            begins = [int(token) for token in figures.get("token_ids", [])[:8]]
    token_s = [figures["decode_s"] / (options.tokens - 1) for figures in rounds]
    report = {"version": version, "load_s": load_s, "load_peak_mib": load_peak,
              "prompt_tokens": rounds[-1]["prompt_tokens"],
              "first_token_s": spread([figures["first_s"] for figures in rounds]),
              "token_s": spread(token_s), "decode_tokens_per_s": 1 / statistics.median(token_s),
              "resident_mib": status_mib("VmRSS"), "peak_mib": status_mib("VmHWM")}
    if "vision_s" in rounds[0]:
        report["vision_s"] = spread([figures["vision_s"] for figures in rounds])
    if begins:
        report["first_tokens"] = begins
    print(json.dumps(report), flush=True)
