#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compares the engine with the reference on one checkpoint directory, stage by stage. See tests/real-checkpoint.sh."""

import argparse
import gc
import json
import os
import pathlib
import sys
import tempfile

import torch
from PIL import Image
from safetensors.torch import load_file

from engine import Engine, EngineCrash, noise_picture, raw_request
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
    compare_ids(report, case, answer)


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


def compare_ids(report, case, answer):
    ids, expected = answer["token_ids"], case.expected
    what = f"{case.name}: {len(expected.ids)} ids"
    if ids == expected.ids:
        return report.add(what, True, repr(answer["text"][:60]))
    if is_near_tie(expected, ids):
        return report.skip(what, f"a near-tie: the reference itself decided by less than {NEAR_TIE}")
    return report.add(what, False, f"{ids} instead of {expected.ids}")


def compare_text(report, tokenizer, engine):
    """Prompts of many kinds: the ids that the engine makes of them."""
    texts = ["Hello world", " two  spaces ", "été 日本 🙂", "line\nbreak\ttab", "</s>USER: again", "a<image", "1234567890"]
    good = []
    with tempfile.TemporaryDirectory() as directory:
        for number, text in enumerate(texts):
            trace = os.path.join(directory, f"{number}.safetensors")
            answer = engine.run([{**raw_request(text, [], max_new_tokens=1), "trace": trace}])[0]
            ids = load_file(trace)["prompt_ids"].tolist() if answer["ok"] else None
            good.append(ids == tokenizer(text)["input_ids"])
    wrong = [text for text, same in zip(texts, good) if not same]
    report.add("prompts without a picture", not wrong, f"{len(texts)} texts" if not wrong else f"differ: {wrong}")


def parse():
    parser = argparse.ArgumentParser(prog="tests/real-checkpoint.sh", description="""Compares the engine with
        transformers on a LLaVA checkpoint in the Hugging Face layout: pixels, ids, features, projector, embeddings,
        first scores, generated ids. Takes the memory of the model in the type compared, once for each of the two, one
        after the other.""")
    parser.add_argument("directory", type=pathlib.Path, help="the checkpoint")
    parser.add_argument("--dtype", choices=HALF_TOLERANCE, default="float32", help="type compared (float32)")
    parser.add_argument("--picture", action="append", default=[], help="picture file; may be given several times (two "
                        "made-up ones)")
    parser.add_argument("--prompt", action="append", default=[], help="whole prompt with <image>; may be given several "
                        "times")
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"longest text ({TOKENS})")
    parser.add_argument("--device", default="cpu", help="device of the engine (cpu)")
    parser.add_argument("--vision-tower", default="", help="as vlm-describe's")
    parser.add_argument("--model-base", default="", help="as vlm-describe's")
    return parser.parse_args()


def main():
    options = parse()
    if not (options.directory / "config.json").is_file():
        sys.exit(f"{options.directory} holds no config.json: give the directory of a checkpoint")
    config = json.loads((options.directory / "config.json").read_text())
    if config.get("model_type") not in ("llava", "llava_next"):
        sys.exit(f"{options.directory} is of the type {config.get('model_type')}: transformers, which is the reference "
                 "here, reads llava and llava_next")
    print(f"The reference reads {options.directory} …", file=sys.stderr, flush=True)
    reference = Reference(options.directory, dtype=getattr(torch, options.dtype))
    cases = make_cases(options)
    for number, case in enumerate(cases):
        print(f"The reference, {number + 1} of {len(cases)}: {case.name} …", file=sys.stderr, flush=True)
        case.ask_reference(reference, traced="greedy" in case.name)
    tokenizer, image_token = reference.tokenizer, config.get("image_token_id", config.get("image_token_index", 32000))
    # Its memory is what the engine needs.
    del reference
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
        compare_text(report, tokenizer, engine)
        if tokenizer.convert_tokens_to_ids(["▁detail", "IST", "ANT"]) == [9493, 9047, 13566]:
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
