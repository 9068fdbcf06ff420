#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compares the engine with the reference on one checkpoint directory, stage by stage. See tests/real-checkpoint.sh."""

import argparse
import gc
import os
import pathlib
import sys
import tempfile

import torch
from PIL import Image
from safetensors.torch import load_file

from engine import Engine, EngineCrash, noise_picture, raw_request
from original_directory import Unreadable, find_directory, is_original, read_json, read_original
from original_reference import IMAGE, OriginalReference
from parity_test import CLOSE, NEAR_TIE, TOLERANCE, is_near_tie, relative_difference
from reference import Reference

# The published ids of LLaVA's own prompt with the tokenizer of Llama 2 (tokenizer_image_token in llava/mm_utils.py),
# before and behind the picture.
GOLDEN_TEXT = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions. USER: <image>\nPlease describe this image in detail. ASSISTANT:")
GOLDEN_IDS = (
    [1, 319, 13563, 1546, 263, 12758, 5199, 322, 385, 23116, 21082, 20255, 29889, 450, 20255, 4076, 8444, 29892, 13173,
     29892, 322, 1248, 568, 6089, 304, 278, 5199, 29915, 29879, 5155, 29889, 3148, 1001, 29901, 29871],
    [29871, 13, 12148, 8453, 445, 1967, 297, 9493, 29889, 319, 1799, 9047, 13566, 29901])
PROMPTS = ("USER: <image>\nDescribe the scene. ASSISTANT:",
           "USER: <image>\nWhat is in the picture? Say one word. ASSISTANT:")
TEXTS = ("Hello world", " two  spaces ", "été 日本 🙂", "line\nbreak\ttab", "</s>USER: again", "a<image", "1234567890")
TOKENS = 24
HALF_TOLERANCE = {"float32": TOLERANCE, "bfloat16": 5e-2, "float16": 1e-2}


class Report:
    """Rows of the table."""

    def __init__(self):
        self.rows = []

    def add(self, what, good, detail=""):
        self.rows.append(("equal" if good else "DIFFERS", what, detail))

    def skip(self, what, why):
        self.rows.append(("left out", what, why))

    def text(self):
        width = max(len(what) for _, what, _ in self.rows)
        return "\n".join(f"{verdict:9} {what:{width}}  {detail}".rstrip() for verdict, what, detail in self.rows)

    def failed(self):
        return any(verdict == "DIFFERS" for verdict, _, _ in self.rows)


class Case:
    """One picture and prompt with what the reference makes of them."""

    def __init__(self, name, text, picture, options):
        self.name, self.text, self.picture, self.options = name, text, picture, options
        self.trace = self.expected = None

    def ask_reference(self, reference, traced):
        inputs = reference.inputs(self.text, [self.picture])
        if traced:
            self.trace = {key: value.float() if value.is_floating_point() else value
                          for key, value in reference.trace(inputs).items()}
        self.expected = reference.generate(inputs, **self.options, do_sample=False)


def pictures(paths):
    given = [(pathlib.Path(path).name, Image.open(path).convert("RGB")) for path in paths]
    sizes = [(640, 480), (333, 777)]
    return given or [(f"{size[0]}x{size[1]}", noise_picture(seed, size)) for seed, size in enumerate(sizes)]


def make_cases(options):
    cases = []
    for name, picture in pictures(options.picture):
        for number, text in enumerate(options.prompt or PROMPTS, 1):
            cases.append(Case(f"{name}, prompt {number}, greedy", text, picture, {"max_new_tokens": options.tokens}))
    name, picture = pictures(options.picture)[0]
    text = (options.prompt or PROMPTS)[0]
    cases.append(Case(f"{name}, 3 beams", text, picture, {"max_new_tokens": options.tokens, "num_beams": 3}))
    cases.append(Case(f"{name}, penalties", text, picture,
                      {"max_new_tokens": options.tokens, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3}))
    return cases


def compare_golden(report, engine, image_token):
    """LLaVA's published ids, where the tokenizer is the one that they are of."""
    with tempfile.TemporaryDirectory() as directory:
        trace = os.path.join(directory, "golden.safetensors")
        frame = engine.frame(noise_picture(3, (40, 40)))
        answer = engine.run([{**raw_request(GOLDEN_TEXT, [frame], max_new_tokens=1), "trace": trace}])[0]
        if not answer["ok"]:
            return report.add("published ids", False, str(answer["error"]["message"]))
        ids = load_file(trace)["prompt_ids"].tolist()
    first, last = ids.index(image_token), len(ids) - ids[::-1].index(image_token)
    around = (ids[:first], ids[last:])
    report.add("published ids", around == GOLDEN_IDS,
               f"{around} instead of {GOLDEN_IDS}" if around != GOLDEN_IDS else f"{len(ids) - (last - first)} ids")


def compare_case(report, engine, case, dtype):
    with tempfile.TemporaryDirectory() as directory:
        trace = os.path.join(directory, "trace.safetensors")
        request = raw_request(case.text, [engine.frame(case.picture)], **case.options)
        if case.trace:
            request["trace"] = trace
        answer = engine.run([request])[0]
        if not answer["ok"]:
            return report.add(case.name, False, answer["error"]["message"])
        if case.trace:
            compare_trace(report, case, load_file(trace), HALF_TOLERANCE[dtype])
    compare_ids(report, case, answer, NEAR_TIE if dtype == "float32" else HALF_TOLERANCE[dtype])


def compare_trace(report, case, ours, tolerance):
    for name in ("prompt_ids", "pixel_values"):
        theirs = case.trace[name]
        same = ours[name].numel() == theirs.numel() and torch.equal(ours[name].reshape(theirs.shape), theirs)
        report.add(f"{case.name}: {name}", same, f"{tuple(theirs.shape)}")
    for name in CLOSE:
        difference = relative_difference(ours[name].float().reshape(case.trace[name].shape)
                                         if ours[name].numel() == case.trace[name].numel() else ours[name],
                                         case.trace[name])
        report.add(f"{case.name}: {name}", difference < tolerance,
                   f"relative difference {difference:.1e}, allowed {tolerance:.0e}")


def compare_ids(report, case, answer, limit):
    """Scores that are closer than `limit`, relative to their size, may change places."""
    ids, expected = answer["token_ids"], case.expected
    what = f"{case.name}: {len(expected.ids)} ids"
    if ids == expected.ids:
        return report.add(what, True, repr(answer["text"][:60]))
    if is_near_tie(expected, ids, limit):
        return report.skip(what, f"a near-tie: the reference itself decided by less than {limit:.0e}")
    return report.add(what, False, f"{ids} instead of {expected.ids}")


def compare_text(report, encoded, engine):
    """Prompts of many kinds: the ids that the engine makes of them, and the reference's."""
    good = []
    with tempfile.TemporaryDirectory() as directory:
        for number, (text, theirs) in enumerate(encoded.items()):
            trace = os.path.join(directory, f"{number}.safetensors")
            answer = engine.run([{**raw_request(text, [], max_new_tokens=1), "trace": trace}])[0]
            ids = load_file(trace)["prompt_ids"].tolist() if answer["ok"] else None
            good.append(ids == theirs)
    wrong = [text for text, same in zip(encoded, good) if not same]
    report.add("prompts without a picture", not wrong, f"{len(encoded)} texts" if not wrong else f"differ: {wrong}")


def parse(arguments):
    parser = argparse.ArgumentParser(prog="tests/real-checkpoint.sh", description="""Compares the engine with the
        reference on a LLaVA checkpoint: pixels, ids, features, projector, embeddings, first scores, generated ids. In
        the Hugging Face layout the reference is transformers, in LLaVA's own layout what that project does, put
        together from transformers' parts. Takes the memory of the model in the type compared, once for each of the two,
        one after the other.""")
    parser.add_argument("directory", help="the checkpoint, or a hub id in the local cache")
    parser.add_argument("--dtype", choices=HALF_TOLERANCE, default="float32", help="type compared (float32)")
    parser.add_argument("--picture", action="append", default=[], help="picture file; may be given several times (two "
                        "made-up ones)")
    parser.add_argument("--prompt", action="append", default=[], help="whole prompt with <image>; may be given several "
                        "times")
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"longest text ({TOKENS})")
    parser.add_argument("--device", default="cpu", help="device of the engine (cpu)")
    parser.add_argument("--vision-tower", default="", help="as vlm-describe's")
    parser.add_argument("--model-base", default="", help="as vlm-describe's")
    return parser.parse_args(arguments)


def open_reference(options):
    """The reference, how it reads a text without pictures, and the id that stands for a picture."""
    directory = find_directory(options.directory)
    config = read_json(directory / "config.json")
    dtype = getattr(torch, options.dtype)
    if is_original(config):
        reference = OriginalReference(*read_original(directory, options.vision_tower, options.model_base), dtype)
        return reference, reference.tokenizer.encode, IMAGE
    if config.get("model_type") not in ("llava", "llava_next"):
        raise Unreadable(f"{directory} is of the type {config.get('model_type')}, and the references here read llava and "
                         "llava_next, and the original project's layout")
    reference = Reference(directory, dtype)
    image = config.get("image_token_id", config.get("image_token_index", 32000))
    return reference, lambda text: reference.tokenizer(text)["input_ids"], image


def piece_ids(tokenizer, pieces):
    if hasattr(tokenizer, "piece_id"):
        return [tokenizer.piece_id(piece) for piece in pieces]
    return tokenizer.convert_tokens_to_ids(pieces)


def main(arguments=None):
    options = parse(arguments)
    print(f"The reference reads {options.directory} …", file=sys.stderr, flush=True)
    try:
        reference, encode, image_token = open_reference(options)
    except Unreadable as reason:
        sys.exit(str(reason))
    cases = make_cases(options)
    for number, case in enumerate(cases):
        print(f"The reference, {number + 1} of {len(cases)}: {case.name} …", file=sys.stderr, flush=True)
        case.ask_reference(reference, traced="greedy" in case.name)
    published = piece_ids(reference.tokenizer, ["▁detail", "IST", "ANT"]) == [9493, 9047, 13566]
    encoded = {text: encode(text) for text in TEXTS}
    # Its memory is what the engine needs.
    del reference, encode
    gc.collect()

    report, engine = Report(), Engine()
    print("The engine …", file=sys.stderr, flush=True)
    try:
        opened = engine.open(options.directory, dtype=options.dtype, device=options.device,
                             vision_tower=options.vision_tower, model_base=options.model_base)
        if not opened["ok"]:
            sys.exit(f"the engine refuses it: {opened['error']['message']}")
        for case in cases:
            compare_case(report, engine, case, options.dtype)
        compare_text(report, encoded, engine)
        if published:
            compare_golden(report, engine, image_token)
        else:
            report.skip("published ids", "they are of Llama 2's tokenizer, which this is not")
    except EngineCrash as crash:
        report.add("no crash", False, str(crash))
    engine.close()
    print(report.text())
    counts = [sum(verdict == kind for verdict, _, _ in report.rows) for kind in ("equal", "DIFFERS", "left out")]
    print(f"{counts[0]} equal, {counts[1]} different, {counts[2]} left out; {options.dtype}")
    return 1 if report.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
