# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tiles of LLaVA-1.6 against the references: grids and token counts of very many sizes, and the pixels.

The reference of the Hugging Face layout is transformers, run live. That of the original layout is LLaVA's arithmetic on
PIL, written down anew: width first, truncated where transformers rounds, always bicubic before the image processor.
"""

import json
import math
import random

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

from text_parity import PICTURES, SEED, random_picture, tool  # noqa: F401, a fixture

PUBLISHED = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
MERGES = ("flat", "spatial", "spatial_unpad")


def original_best(width, height, sizes):
    """The size (width, height) with most useful pixels, then with least waste, then the first."""
    def merit(size):
        scale = min(size[0] / width, size[1] / height)
        useful = min(int(width * scale) * int(height * scale), width * height)
        return useful, useful - size[0] * size[1]
    return max(sizes, key=merit)


def original_tokens(width, height, sizes, side, patches, merge):
    best = original_best(width, height, sizes)
    columns, rows = best[0] // side, best[1] // side
    if merge != "spatial_unpad":
        return rows, columns, (1 + rows * columns) * patches * patches
    wide, high = columns * patches, rows * patches
    if width / height > wide / high:
        high -= (high - int(height * (wide / width))) // 2 * 2
    else:
        wide -= (wide - int(width * (high / height))) // 2 * 2
    return rows, columns, patches * patches + high * (wide + 1)


def original_pictures(picture, sizes, side, shortest_edge):
    width, height = original_best(*picture.size, sizes)
    by_width, by_height = width / picture.width, height / picture.height
    if by_width < by_height:
        inner = picture.resize((width, min(math.ceil(picture.height * by_width), height)))
    else:
        inner = picture.resize((min(math.ceil(picture.width * by_height), width), height))
    canvas = Image.new("RGB", (width, height))
    canvas.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
    boxes = [(x, y, x + side, y + side) for y in range(0, height, side) for x in range(0, width, side)]
    return [picture.resize((shortest_edge, shortest_edge)), *(canvas.crop(box) for box in boxes)]


def random_sizes(rng, side):
    """Height and width of up to six grids, in pixels; sometimes the published ones."""
    if rng.random() < 0.3:
        return [[height * side // 336, width * side // 336] for height, width in PUBLISHED]
    return [[rng.randrange(1, 5) * side, rng.randrange(1, 5) * side] for _ in range(rng.randrange(1, 7))]


def some_pictures(rng, count):
    sizes = [[rng.randrange(1, 1201), rng.randrange(1, 1201)] for _ in range(count)]
    return sizes + [[1, 1], [1, 1200], [1200, 1], [336, 336], [337, 336], [656, 205], [10000, 3], [2, 99999]]


@pytest.mark.parametrize("case", range(6))
def test_counts_of_transformers(tool, case):
    rng = random.Random(f"counts {SEED} {case}")
    side, patch = (336, 14) if case < 3 else rng.choice([(28, 7), (50, 10), (33, 8)])
    sizes = PUBLISHED if case == 0 else random_sizes(rng, side)
    processor = LlavaNextProcessor.__new__(LlavaNextProcessor)  # what counts needs no tokenizer
    processor.image_processor = LlavaNextImageProcessorPil(image_grid_pinpoints=sizes)
    processor.patch_size, processor.num_additional_image_tokens = patch, 0
    tool.must("tiles", layout="hf", image=side, patch=patch, sizes=sizes, merge="spatial_unpad")
    pictures = some_pictures(rng, 3000)
    for (height, width), ours in zip(pictures, tool.must("counts", pictures=pictures)["counts"]):
        rows, columns = get_anyres_image_grid_shape((height, width), sizes, side)
        assert ours == [rows, columns, processor._get_number_of_features(height, width, side, side)], (height, width)


@pytest.mark.parametrize("case", range(6))
def test_counts_of_the_original(tool, case):
    rng = random.Random(f"original counts {SEED} {case}")
    side, patch = (336, 14) if case < 3 else rng.choice([(28, 7), (50, 10), (33, 8)])
    sizes = PUBLISHED if case == 0 else random_sizes(rng, side)  # as the file has them: width first
    merge = MERGES[case % 3 - 1]
    tool.must("tiles", layout="original", image=side, patch=patch, sizes=[size[::-1] for size in sizes], merge=merge)
    pictures = some_pictures(rng, 3000)
    for (height, width), ours in zip(pictures, tool.must("counts", pictures=pictures)["counts"]):
        assert ours == [*original_tokens(width, height, sizes, side, side // patch, merge)], (height, width)


def random_settings(rng, side):
    settings = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    if rng.random() < 0.3:
        settings["size"] = {"shortest_edge": max(1, side + rng.randrange(-4, 9))}
    if rng.random() < 0.5:
        settings["resample"] = rng.randrange(0, 6)
    if rng.random() < 0.3:
        settings.update(image_mean=[0.5, 0.4, 0.3], rescale_factor=1 / 127.5)
    return settings


@pytest.mark.parametrize("layout", ["hf", "original"])
def test_pixels(tool, tmp_path, layout):
    rng = random.Random(f"tiles {layout} {SEED}")
    for index in range(PICTURES // 4):
        side = rng.randrange(3, 40)
        sizes, settings = random_sizes(rng, side), random_settings(rng, side)
        kind = "LlavaNextImageProcessor" if layout == "hf" else "CLIPImageProcessor"
        if layout == "hf":
            settings["image_grid_pinpoints"] = sizes
            if rng.random() < 0.3:
                settings["size"] = {"height": rng.randrange(1, 50), "width": rng.randrange(1, 50)}
            if rng.random() < 0.2:
                settings["do_resize"] = False
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": kind, **settings}))
        pixels = random_picture(rng)
        picture = Image.fromarray(pixels)
        (tmp_path / "frame").write_bytes(pixels.tobytes())
        tool.must("pictures", directory=str(tmp_path))
        ours_sizes = sizes if layout == "hf" else [size[::-1] for size in sizes]
        tool.must("tiles", layout=layout, image=side, patch=1, sizes=ours_sizes, merge="spatial_unpad")
        aspect = rng.choice(["anyres"] * 4 + ["crop", "pad"])
        if aspect != "anyres":
            plain = {key: value for key, value in settings.items() if key != "image_grid_pinpoints"}
            expected = LlavaImageProcessorPil(**plain, do_pad=aspect == "pad")(picture)["pixel_values"]
        elif layout == "hf":
            expected = LlavaNextImageProcessorPil(**settings)(picture)["pixel_values"][0]
        else:
            processor = CLIPImageProcessorPil(**settings)
            pieces = original_pictures(picture, sizes, side, settings["size"]["shortest_edge"])
            expected = [processor(piece)["pixel_values"][0] for piece in pieces]
        reply = tool.must("preprocess", width=picture.width, height=picture.height, file=str(tmp_path / "frame"),
                          aspect=aspect, out=str(tmp_path / "pixels"))
        got = np.fromfile(tmp_path / "pixels", dtype=np.float32).reshape(reply["shape"])
        expected = np.asarray(expected, dtype=np.float32)
        assert got.shape == expected.shape, (index, settings, picture.size)
        assert np.array_equal(got, expected), (index, settings, picture.size, np.abs(got - expected).max())
