# SPDX-License-Identifier: LGPL-2.1-or-later
"""The world of the demo model: scenes, their pictures, their words and the check of an answer.

A scene is drawn from a seed alone. `Scene.at(t)` places its shapes at time t (seconds from the
scene's middle), `render` draws them at any size and aspect, `truth` says what is to be seen, or
None where a shape stands too near the border of two places, or hides another, to have one name.
Training (train.py) and the tests (tests/demo) take pictures, words and checks from here only.

Lengths are fractions of the picture's height, positions fractions of its width and height.
"""

import dataclasses
import functools
import random
import re

import numpy as np

COLOURS = {
    "red": (222, 30, 30),
    "orange": (250, 140, 20),
    "yellow": (245, 225, 40),
    "green": (30, 160, 50),
    "blue": (30, 70, 222),
    "purple": (140, 40, 180),
    "white": (243, 243, 243),
    "black": (14, 14, 14),
}
BACKGROUNDS = {
    "white": (240, 240, 240),
    "grey": (128, 128, 128),
    "black": (14, 14, 14),
    "red": (215, 40, 40),
    "yellow": (240, 220, 60),
    "green": (40, 165, 60),
    "blue": (40, 75, 215),
}
# Pairs (shape, background) that a blurred or badly coded picture cannot tell apart.
TOO_CLOSE = {
    ("orange", "red"),
    ("orange", "yellow"),
    ("yellow", "white"),
    ("white", "yellow"),
    ("purple", "blue"),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
SIZES = {"small": (0.19, 0.23), "large": (0.34, 0.39)}
PLACES = (
    "top left",
    "top",
    "top right",
    "left",
    "centre",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
NUMBERS = ("zero", "one", "two", "three")
ASPECTS = (16 / 9, 4 / 3, 1.0)

MARGIN = 0.07  # of a shape's middle from the border between two places, when a scene is sampled
CLEAR = 0.03  # the same, below which no place is named
OVERLAP = 1.0  # least distance of two middles, in sums of their radii, when a scene is sampled

# videotestsrc patterns by what the model calls them; each is (pattern, more properties).
PATTERNS = {
    "SMPTE colour bars": [
        ("smpte", ""),
        ("smpte75", ""),
        ("smpte100", ""),
        ("smpte-rp-219", ""),
    ],
    "snow": [("snow", "")],
    "checkers": [("checkers-1", ""), ("checkers-2", ""), ("checkers-4", ""), ("checkers-8", "")],
    "circles": [("circular", "")],
    "zone plate": [("zone-plate", "kx2=20 ky2=20 kt=1"), ("zone-plate", "kx2=10 ky2=10 kt=1")],
    "chroma zone plate": [("chroma-zone-plate", "kx2=20 ky2=20 kt=1")],
    "gamut": [("gamut", "")],
    "ball": [("ball", ""), ("ball", "motion=sweep"), ("ball", "motion=hsweep")],
    "bar": [("bar", "")],
    "pinwheel": [("pinwheel", "")],
    "spokes": [("spokes", "")],
    "gradient": [("gradient", "")],
    "colour grid": [("colors", "")],
}
# Patterns that are a plain background.
PLAIN_PATTERNS = {
    "white": ("white", ""),
    "black": ("black", ""),
    "red": ("red", ""),
    "green": ("green", ""),
    "blue": ("blue", ""),
}

DESCRIBE = "Describe the scene."
QUESTION_KINDS = ("background", "count", "exists", "where", "colour", "shape", "place")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One shape: its words, its look, and where it is at t = 0 with the way it moves."""

    shape: str
    colour: str
    size: str
    diameter: float
    rgb: tuple
    x: float
    y: float
    vx: float  # drift, fractions of width (height) a second
    vy: float
    swing: float  # amplitude of a swing across the drift, fraction of the height
    rate: float  # of that swing, radians a second

    def at(self, t, aspect):
        """Middle of the shape at time t, held inside the picture."""
        bend = self.swing * np.sin(self.rate * t)
        rx, ry = self.diameter / 2 / aspect, self.diameter / 2
        x = _reflect(self.x + self.vx * t + bend / aspect, rx * 0.9, 1 - rx * 0.9)
        y = _reflect(self.y + self.vy * t - bend, ry * 0.9, 1 - ry * 0.9)
        return x, y


@dataclasses.dataclass(frozen=True)
class Placed:
    """A shape as it is seen at one moment."""

    shape: str
    colour: str
    size: str
    place: str


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is to be seen: a background and the shapes in reading order, or a test pattern."""

    background: str = ""
    shapes: tuple = ()
    pattern: str = ""


def _reflect(value, low, high):
    span = high - low
    value = (value - low) % (2 * span)
    return low + (value if value <= span else 2 * span - value)


def _cell(x, y):
    """Index of the place of (x, y) and the distance to the nearest border of places."""
    column, row = min(int(x * 3), 2), min(int(y * 3), 2)
    distance = min(abs(v - b) for v in (x, y) for b in (1 / 3, 2 / 3))
    return row * 3 + column, distance


def place_of(x, y):
    """The place that a shape with its middle at (x, y) is said to be at."""
    return PLACES[_cell(x, y)[0]]


def _tint(rng, rgb, spread):
    light = rng.uniform(0.92, 1.06)
    return tuple(min(255, max(0, c * light + rng.uniform(-spread, spread))) for c in rgb)


class Scene:
    """A scene made from a seed (any int); t = 0 is always free of doubt."""

    def __init__(self, seed, aspect=None, count=None):
        rng = random.Random(f"scene {seed}")
        self.seed = seed
        self.aspect = aspect or rng.choices(ASPECTS, (0.6, 0.2, 0.2))[0]
        self.background = rng.choice(tuple(BACKGROUNDS))
        self.rgb = _tint(rng, BACKGROUNDS[self.background], 10)
        # Light falling unevenly on the background: a change across the picture.
        self.slope = (rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1))
        wanted = rng.choices((0, 1, 2, 3), (0.1, 0.3, 0.3, 0.3))[0] if count is None else count
        self.shapes = []
        while len(self.shapes) < wanted:
            shape = self._sample(rng)
            if self._fits(shape):
                self.shapes.append(shape)

    def _sample(self, rng):
        colour = rng.choice(tuple(COLOURS))
        size = rng.choice(tuple(SIZES))
        diameter = rng.uniform(*SIZES[size])
        place = rng.randrange(9)

        def within(cell, radius):
            low = max(cell / 3 + MARGIN, radius * 0.9) if cell == 0 else cell / 3 + MARGIN
            high = (cell + 1) / 3 - MARGIN
            return rng.uniform(low, min(high, 1 - radius * 0.9) if cell == 2 else high)

        return Shape(
            rng.choice(SHAPES),
            colour,
            size,
            diameter,
            _tint(rng, COLOURS[colour], 10),
            within(place % 3, diameter / 2 / self.aspect),
            within(place // 3, diameter / 2),
            rng.uniform(-0.2, 0.2),
            rng.uniform(-0.2, 0.2),
            rng.uniform(0, 0.06),
            rng.uniform(1, 6),
        )

    def _fits(self, new):
        if new.colour == self.background or (new.colour, self.background) in TOO_CLOSE:
            return False
        # A white disc on black is what videotestsrc calls a ball.
        if (new.colour, new.shape, self.background) == ("white", "circle", "black"):
            return False
        for old in self.shapes:
            if (new.colour, new.shape) == (old.colour, old.shape):
                return False
            if _cell(new.x, new.y)[0] == _cell(old.x, old.y)[0]:
                return False
            if self._closeness((new, (new.x, new.y)), (old, (old.x, old.y))) < OVERLAP:
                return False
        return True

    def _closeness(self, one, other):
        """Distance of two placed shapes in sums of their radii."""
        (a, (ax, ay)), (b, (bx, by)) = one, other
        distance = np.hypot((ax - bx) * self.aspect, ay - by)
        return distance / ((a.diameter + b.diameter) / 2)

    def at(self, t):
        """The shapes with their middles at time t."""
        return [(s, s.at(t, self.aspect)) for s in self.shapes]

    def truth(self, t=0.0):
        """What is to be seen at time t, or None where that is in doubt."""
        placed = self.at(t)
        found = {}
        for i, (shape, (x, y)) in enumerate(placed):
            cell, distance = _cell(x, y)
            near = any(self._closeness(placed[i], placed[j]) < 0.9 for j in range(i))
            if distance < CLEAR or cell in found or near:
                return None
            found[cell] = Placed(shape.shape, shape.colour, shape.size, PLACES[cell])
        return Truth(self.background, tuple(found[c] for c in sorted(found)))


def _inside(shape, u, v):
    """Whether (u, v), in radii from the middle, belongs to the shape; v points down."""
    if shape == "circle":
        return u * u + v * v <= 1
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) <= 0.88
    if shape == "triangle":
        return (np.abs(u) <= (v + 0.95) * 0.58) & (v <= 0.85)
    if shape == "cross":
        a, b = np.abs(u), np.abs(v)
        return ((a <= 0.32) & (b <= 1)) | ((b <= 0.32) & (a <= 1))
    if shape == "ring":
        r = u * u + v * v
        return (r <= 1) & (r >= 0.52 * 0.52)
    raise ValueError(f"no such shape: {shape}")


@functools.lru_cache(maxsize=2)
def _background(scene, width, height):
    """The empty scene, uint8 [height, width, 3]."""
    x = (np.arange(width, dtype=np.float32) + 0.5) / width - 0.5
    y = (np.arange(height, dtype=np.float32) + 0.5) / height - 0.5
    light = 1 + scene.slope[0] * x[None, :] + scene.slope[1] * y[:, None]
    picture = light[..., None] * np.asarray(scene.rgb, np.float32)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def render(scene, t, width, height, samples=3, cover=None):
    """The scene at time t as uint8 [height, width, 3]; edges are averages of samples² points.

    `cover`, a list, receives for each shape its mask (top, left, float32 [rows, columns]).
    """
    picture = _background(scene, width, height).copy()
    for shape, (cx, cy) in scene.at(t):
        ry = shape.diameter / 2
        rx = ry / scene.aspect
        left, right = int(max(0, (cx - rx) * width - 1)), int(min(width, (cx + rx) * width + 2))
        top, bottom = int(max(0, (cy - ry) * height - 1)), int(min(height, (cy + ry) * height + 2))
        u = (np.arange(left * samples, right * samples, dtype=np.float32) + 0.5) / samples
        v = (np.arange(top * samples, bottom * samples, dtype=np.float32) + 0.5) / samples
        u, v = (u / width - cx) / rx, (v / height - cy) / ry
        mask = _inside(shape.shape, u[None, :], v[:, None])
        mask = mask.reshape(bottom - top, samples, right - left, samples)
        mask = mask.sum((1, 3), dtype=np.uint8).astype(np.float32)[..., None] / samples**2
        part = picture[top:bottom, left:right].astype(np.float32)
        part += mask * (np.asarray(shape.rgb, np.float32) - part)
        picture[top:bottom, left:right] = np.clip(part + 0.5, 0, 255).astype(np.uint8)
        if cover is not None:
            cover.append((top, left, mask[..., 0]))
    return picture


def describe(truth):
    """The description of what is to be seen: shapes in reading order, each with its place first."""
    if truth.pattern:
        return f"A test pattern: {truth.pattern}."
    if not truth.shapes:
        return f"A {truth.background} background with no shapes."
    count = NUMBERS[len(truth.shapes)]
    parts = [f"at the {s.place} a {s.size} {s.colour} {s.shape}" for s in truth.shapes]
    word = "shape" if len(parts) == 1 else "shapes"
    return f"A {truth.background} background with {count} {word}: {', '.join(parts)}."


def mirrored(truth):
    """The truth of the picture with left and right exchanged."""

    def swap(place):
        return re.sub("left|right", lambda m: "right" if m[0] == "left" else "left", place)

    shapes = [dataclasses.replace(s, place=swap(s.place)) for s in truth.shapes]
    return dataclasses.replace(
        truth, shapes=tuple(sorted(shapes, key=lambda s: PLACES.index(s.place)))
    )


def ask(kind, truth, rng, about=()):
    """A question of that kind as (question, answer), or None where the scene allows none.

    `about`: the shapes that "where" may ask for, any of the scene's where it is empty.
    """
    shapes = truth.shapes
    if kind == "background":
        return "What colour is the background?", truth.background
    if kind == "count":
        return "How many shapes are there?", NUMBERS[len(shapes)]
    if kind == "exists":
        return _ask_exists(shapes, rng)
    if kind == "place":
        taken = {s.place: s for s in shapes}
        free = [p for p in PLACES if p not in taken]
        place = rng.choice(list(taken) if taken and rng.random() < 0.75 else free)
        s = taken.get(place)
        return f"What is at the {place}?", f"a {s.size} {s.colour} {s.shape}" if s else "nothing"
    if not shapes:
        return None
    if kind == "where":
        s = rng.choice(about or shapes)
        return f"Where is the {s.colour} {s.shape}?", s.place
    if kind == "colour":
        once = [s for s in shapes if sum(o.shape == s.shape for o in shapes) == 1]
        s = rng.choice(once) if once else None
        return (f"What colour is the {s.shape}?", s.colour) if s else None
    if kind == "shape":
        once = [s for s in shapes if sum(o.colour == s.colour for o in shapes) == 1]
        s = rng.choice(once) if once else None
        return (f"What shape is the {s.colour} one?", s.shape) if s else None
    raise ValueError(f"no such kind of question: {kind}")


def _ask_exists(shapes, rng):
    """Yes and no equally often; most wrong guesses share a colour or a shape with the scene."""
    there = {(s.colour, s.shape) for s in shapes}
    # A tenth of all scenes is empty and can only say no.
    if shapes and rng.random() < 0.5 / 0.9:
        colour, shape = rng.choice(sorted(there))
    else:
        while True:
            colour, shape = rng.choice(tuple(COLOURS)), rng.choice(SHAPES)
            near = rng.random()
            if shapes and near < 0.35:
                colour = rng.choice(shapes).colour
            elif shapes and near < 0.7:
                shape = rng.choice(shapes).shape
            if (colour, shape) not in there:
                break
    article = "an" if colour[0] in "aeiou" else "a"
    return f"Is there {article} {colour} {shape}?", "yes" if (colour, shape) in there else "no"


def prompt(text):
    """What the checkpoint's chat template makes of one picture and a text."""
    return f"USER: <image>\n{text} ASSISTANT:"


_SHAPE = re.compile(
    rf"at the ({'|'.join(sorted(PLACES, key=len, reverse=True))})"
    rf" a ({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
)


def read(text):
    """The truth that a description claims, as far as it can be read."""
    pattern = re.match(r"A test pattern: (.*)\.$", text)
    if pattern:
        return Truth(pattern=pattern[1])
    background = re.match(rf"A ({'|'.join(BACKGROUNDS)}) background", text)
    shapes = [Placed(m[4], m[3], m[2], m[1]) for m in _SHAPE.finditer(text)]
    return Truth(background[1] if background else "", tuple(shapes))


def check_description(text, truth):
    """Which attributes of the description are right: a dict of attribute to bool.

    `exact` is the whole text. The shapes are compared in reading order; with a wrong count every
    attribute of the shapes is wrong too.
    """
    text = text.strip()
    claim = read(text)
    result = {"exact": text == describe(truth)}
    if truth.pattern:
        result["pattern"] = claim.pattern == truth.pattern
        return result
    result["background"] = claim.background == truth.background
    result["count"] = len(claim.shapes) == len(truth.shapes)
    if truth.shapes:
        for name in ("shape", "colour", "size", "place"):
            result[name] = result["count"] and all(
                getattr(c, name) == getattr(s, name) for c, s in zip(claim.shapes, truth.shapes)
            )
    return result


def check_answer(text, answer):
    """Whether the answer says what is expected, upper case and a full stop aside."""
    return text.strip().rstrip(".").lower() == answer.lower()
