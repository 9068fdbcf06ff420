# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random requests for a random checkpoint: prompts, pictures, options. The seed decides all of it."""

import dataclasses
import random

import make_checkpoint
import specs
from engine import noise_picture

EARLY_STOPPING = {"false": False, "true": True, "never": "never"}


@dataclasses.dataclass
class Request:
    kind: str
    text: str
    pictures: list
    options: dict  # as the engine spells them

    @property
    def aspect(self):
        return self.options.get("image_aspect_ratio", "auto")

    def reference_options(self):
        """The same as arguments of the reference's generate()."""
        options = {name: value for name, value in self.options.items() if name != "image_aspect_ratio"}
        if "stop" in options:
            options["stop_strings"] = options.pop("stop")
        if "early_stopping" in options:
            options["early_stopping"] = EARLY_STOPPING[options["early_stopping"]]
        options.setdefault("do_sample", False)
        return options


def random_picture(rng):
    """Mostly ordinary, often odd: tiny, one pixel, extreme aspect, grey, with alpha, with a palette."""
    shape = rng.choice(["plain"] * 5 + ["pixel", "wide", "tall", "tiny", "exact"])
    if shape == "pixel":
        size = (1, 1)
    elif shape == "wide":
        size = (rng.randrange(200, 700), rng.randrange(1, 6))
    elif shape == "tall":
        size = (rng.randrange(1, 6), rng.randrange(200, 700))
    elif shape == "tiny":
        size = (rng.randrange(1, 9), rng.randrange(1, 9))
    elif shape == "exact":
        size = (rng.choice([28, 32, 56]),) * 2
    else:
        size = (rng.randrange(10, 260), rng.randrange(10, 260))
    mode = rng.choice(["RGB"] * 6 + ["L", "RGBA", "LA", "P", "1"])
    return noise_picture(rng.randrange(2**31), size, mode)


def random_tiled_picture(rng, spec):
    """For tiles: sizes around those that pictures are fitted into, within one tile, and all the odd ones."""
    if rng.random() < 0.4:
        return random_picture(rng)
    height, width = rng.choice(spec.pinpoints)
    shape = rng.choice(["exact", "nearly", "part", "within a tile"])
    if shape == "nearly":
        height, width = (max(1, side + rng.randrange(-3, 4)) for side in (height, width))
    elif shape == "part":
        height, width = rng.randrange(1, 2 * height), rng.randrange(1, 2 * width)
    elif shape == "within a tile":
        height, width = (rng.randrange(1, spec.vision.image + 1) for _ in range(2))
    return noise_picture(rng.randrange(2**31), (width, height))


def random_prompt(rng, words, pictures, length):
    """About `length` words with `pictures` placeholders at random places."""
    parts = [rng.choice(words) for _ in range(length)]
    for i in range(length):
        if rng.random() < 0.08:
            parts[i] = rng.choice(["\n", "  two  spaces ", "été", "日本", "🙂", "</s>", "12345", "\t", "a" * 9, "<pad>"])
    style = rng.random()
    if style < 0.5:
        return "USER: " + "<image>\n" * pictures + " ".join(parts) + " ASSISTANT:"
    for _ in range(pictures):
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(["<image>", "<image>\n", "\n<image>"]))
    return ("" if style < 0.75 else " ").join(parts) or "x"


def make_requests(seed, spec):
    """The requests of one case, without the one that needs a stop string from an answer."""
    rng = random.Random(f"requests {seed}")
    words = [word for line in make_checkpoint.made_up_text(spec.seed, 40) for word in line.split()]
    # Where the rotary scale is dynamic, prompts stay short enough for the context.
    longest = 14 if spec.rope != "dynamic" else 8
    fits = 1 if specs.spec_image_tokens(spec) > 20 else 3

    def prompt(pictures):
        return random_prompt(rng, words, pictures, rng.randrange(1, longest))

    def picture():
        return random_tiled_picture(rng, spec) if spec.grids else random_picture(rng)

    def request(kind, pictures, **options):
        return Request(kind, prompt(pictures), [picture() for _ in range(pictures)], options)

    several = rng.choice([1, 1, 2, 3]) if spec.rope != "dynamic" else fits
    requests = [
        request("greedy", several, max_new_tokens=rng.choice([8, 16, 24])),
        request("no picture", 0, max_new_tokens=8),
        request("lengths", 1, **rng.choice([{"max_new_tokens": 1}, {"max_new_tokens": 3, "min_new_tokens": 3},
                                            {"max_new_tokens": 20, "min_new_tokens": rng.choice([1, 4, 12])}])),
        request("penalties", rng.choice([0, 1, 2]) if spec.rope != "dynamic" else 1, max_new_tokens=16,
                repetition_penalty=rng.choice([1.0, 1.05, 1.3, 2.0, 0.8]),
                no_repeat_ngram_size=rng.choice([0, 1, 2, 3])),
    ]
    options = {"max_new_tokens": rng.choice([2, 5, 9, 14]), "num_beams": rng.choice([2, 3, 4, 5]),
               "length_penalty": rng.choice([1.0, 1.0, 0.0, 0.5, 2.0, -1.0]),
               "early_stopping": rng.choice(sorted(EARLY_STOPPING))}
    requests.append(request("beams", rng.choice([0, 1, min(2, several)]), **options))
    options = {"max_new_tokens": rng.choice([7, 12]), "num_beams": rng.choice([2, 3]),
               "length_penalty": rng.choice([1.0, 0.5, 2.0]), "early_stopping": rng.choice(sorted(EARLY_STOPPING)),
               **rng.choice([{"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}, {"min_new_tokens": 5}])}
    requests.append(request("beams, penalties", 1, **options))
    if spec.grids:
        requests.append(request("without tiles", rng.choice([1, 2]), max_new_tokens=8,
                                image_aspect_ratio=rng.choice(["crop", "pad"])))
    return requests


def stop_request(seed, spec, request, text):
    """`request` with stop strings out of its own answer `text`, or None where that has no fit one."""
    rng = random.Random(f"stop {seed}")
    starts = [i for i in range(1, len(text) - 2) if text[i:i + 2].isascii() and text[i:i + 2].isprintable()]
    if not starts:
        return None
    start = rng.choice(starts)
    stop = text[start:start + rng.choice([1, 2, 4])]
    if not stop.isascii() or not stop.isprintable():
        stop = text[start:start + 1]
    options = {**request.options, "stop": [stop] + (["never there"] if rng.random() < 0.5 else [])}
    return Request("stop strings", request.text, request.pictures, options)
