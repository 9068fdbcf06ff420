#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The engine against the reference, live, on random checkpoints.

Each case is a checkpoint of a random shape and half a dozen requests, all from one seed. Compared are pixels and prompt
ids (equal), features, image embeddings, fused embeddings and first logits (1e-4 relative), generated ids (equal) with
their log-probabilities, and the same requests submitted at once instead of one by one (equal).

A difference of ids is put down to a near-tie only where the reference itself decided by less than 1e-5 relative; such
cases are counted and must stay below 1 %.

    parity_test.py                        120 cases from seed 0, or from --seed, of all generations and text models
    parity_test.py --generation next --text-model mistral
    parity_test.py --layout original      the original project's layout
    parity_test.py --cases 3000 --seed 5  a long run; --case 17 repeats one case and prints more
    parity_test.py --levels portable,avx2 each case again with no more instructions than these; the reference runs once
    parity_test.py --results FILE.json    keeps what was compared for results.py, too
"""

import argparse
import collections
import dataclasses
import os
import pathlib
import shutil
import sys
import tempfile
import time
import traceback

import torch
from safetensors.torch import load_file

import cases
import make_checkpoint
import results
import specs
from engine import Engine, EngineCrash, levels, raw_request
from original_checkpoint import random_original, write_original
from original_reference import OriginalReference
from reference import Reference

TOLERANCE = 1e-4
NEAR_TIE = 1e-5
LOGPROB_TOLERANCE = 1e-3
EXACT = ("prompt_ids", "pixel_values")
CLOSE = ("vision_features", "image_embeds", "inputs_embeds", "first_logits")


class Tally:
    """What was compared how often, and what failed."""

    def __init__(self):
        self.passed = collections.Counter()
        self.failed = collections.Counter()
        self.near_ties = collections.Counter()
        self.worst = collections.defaultdict(float)
        self.failures = []
        self.cases = collections.defaultdict(collections.Counter)  # family → passed or failed → how many
        self.group = ("", "", "")  # of the checkpoint at hand, see results.dimensions
        self.level = None  # of the engine at hand
        self.rows = {}
        self.seeds = collections.defaultdict(set)

    def row(self, what):
        return self.rows.setdefault((self.group, what), results.row(*self.group, what, cases=0))

    def named(self, what):
        """All comparisons of a level are counted together."""
        return f"everything on {self.level}" if self.level else what

    def check(self, seed, what, good, detail=""):
        if self.level:
            detail, what = f"{what}: {detail}", self.named(what)
        if good:
            self.passed[what] += 1
        else:
            self.failed[what] += 1
            self.failures.append(f"seed {seed}: {what}: {detail}")
        row, seeds = self.row(what), self.seeds[(self.group, what)]
        seeds.add(seed)
        row["cases"] = len(seeds)
        row["equal" if good else "failed"] += 1
        return good

    def near_tie(self, what):
        what = self.named(what)
        self.near_ties[what] += 1
        self.row(what)["near-ties"] += 1

    def add_case(self, spec, passed):
        self.cases[spec.family]["passed" if passed else "failed"] += 1
        self.row("whole cases")["equal" if passed else "failed"] += 1
        self.row("whole cases")["cases"] += 1

    def difference(self, what, value):
        what = self.named(what)
        self.worst[what] = max(self.worst[what], value)
        row = self.row(what)
        row["worst"] = max(row["worst"] or 0.0, value)

    def table(self):
        lines = [f"{'what':28} {'passed':>8} {'failed':>8} {'near-tie':>9}  worst relative difference"]
        for what in sorted(set(self.passed) | set(self.failed) | set(self.near_ties)):
            worst = f"{self.worst[what]:.1e}" if what in self.worst else ""
            lines.append(f"{what:28} {self.passed[what]:8} {self.failed[what]:8} {self.near_ties[what]:9}  {worst}")
        return lines

    def families(self):
        lines = [f"{'layout':8} {'generation':10} {'text model':10} {'passed':>7} {'failed':>7}"]
        for (layout, generation, text_model), counts in sorted(self.cases.items()):
            lines.append(f"{layout:8} {generation:10} {text_model:10} {counts['passed']:7} {counts['failed']:7}")
        return lines


def relative_difference(ours, theirs):
    if ours.shape != theirs.shape:
        return float("inf")
    difference = (ours.double() - theirs.double()).abs().max().item()
    return difference / max(theirs.double().abs().max().item(), 1e-30)


def compare_trace(tally, seed, file, expected):
    ours = load_file(file)
    for name, theirs in expected.items():
        if name not in ours:
            tally.check(seed, name, False, "not in the trace")
        elif name in EXACT:
            mine = ours[name].reshape(theirs.shape) if ours[name].numel() == theirs.numel() else ours[name]
            same = mine.shape == theirs.shape and torch.equal(mine, theirs)
            tally.check(seed, name, same, f"{describe(ours[name])} instead of {describe(theirs)}")
        else:
            difference = relative_difference(ours[name].float(), theirs)
            tally.difference(name, difference)
            tally.check(seed, name, difference < TOLERANCE,
                        f"relative difference {difference:.2e}, shape {tuple(ours[name].shape)} for "
                        f"{tuple(theirs.shape)}")
    extra = set(ours) - set(expected) - {"token_ids"}
    tally.check(seed, "trace names", not extra, f"unexpected {sorted(extra)}")
    return ours


def describe(tensor):
    values = tensor.flatten()
    return f"{tuple(tensor.shape)} {tensor.dtype} {values[:40].tolist()}"


def is_near_tie(expected, ids, limit=NEAR_TIE):
    if expected.gap is not None:
        return expected.gap < limit
    for i, (ours, theirs) in enumerate(zip(ids, expected.ids)):
        if ours != theirs:
            return expected.gaps[i] < limit
    return False


def expected_reason(reference, request, expected):
    ends = reference.model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    if expected.ids[-1] in ends:
        return "stop"
    text = reference.tokenizer.decode(expected.ids)
    before = reference.tokenizer.decode(expected.ids[:-1])
    # Also where the length is reached with it. What stood there before the last token did not stop the reference: it
    # compares tokens, and the decoded text joins what a left-out token parts.
    if any(stop in text and stop not in before for stop in request.options.get("stop", [])):
        return "stop_string"
    return "length" if len(expected.ids) == request.options["max_new_tokens"] else "stop_string"


def compare_answer(tally, seed, reference, request, expected, answer):
    """True where the ids are the reference's."""
    what = request.kind + " ids"
    if not answer["ok"]:
        return tally.check(seed, what, False, str(answer["error"]))
    ids = answer["token_ids"]
    if ids != expected.ids:
        if is_near_tie(expected, ids):
            tally.near_tie(what)
            return False
        gap = expected.gap if expected.gap is not None else [f"{gap:.1e}" for gap in expected.gaps]
        return tally.check(seed, what, False,
                           f"{request.options} {request.text!r}: {ids} instead of {expected.ids}, gaps {gap}")
    tally.check(seed, what, True)
    reason = expected_reason(reference, request, expected)
    tally.check(seed, "finish reason", answer["finish_reason"] == reason,
                f"{answer['finish_reason']} instead of {reason}, {request.options} {ids}")
    text = reference.tokenizer.decode(ids, skip_special_tokens=True).strip()
    if not isinstance(reference, OriginalReference) or reference.tokenizer.shows(ids):
        tally.check(seed, "text", answer["text"] == text, f"{answer['text']!r} instead of {text!r}, ids {ids}")
    difference = max(abs(ours - theirs) / max(1.0, abs(theirs))
                     for ours, theirs in zip(answer["logprobs"], expected.logprobs))
    good = len(answer["logprobs"]) == len(ids) and difference < LOGPROB_TOLERANCE
    tally.difference("logprobs", difference)
    tally.check(seed, "logprobs", good, f"{request.options}: {answer['logprobs']} instead of {expected.logprobs}")
    if expected.score is not None:
        difference = abs(answer.get("sequence_score", float("inf")) - expected.score) / max(1.0, abs(expected.score))
        tally.check(seed, "sequence score", difference < LOGPROB_TOLERANCE,
                    f"{answer.get('sequence_score')} instead of {expected.score}")
    return True


def engine_request(engine, request, **more):
    frames = [engine.frame(picture) for picture in request.pictures]
    return {**raw_request(request.text, frames, **request.options), **more}


def make_spec(layout, seed, generation, text_model):
    family = specs.random_family(seed, generation, text_model)
    return random_original(seed, *family) if layout == "original" else specs.random_spec(seed, *family)


def write_case(engines, spec, directory):
    """What the engine opens, and the reference."""
    if spec.layout == "hf":
        make_checkpoint.write_checkpoint(directory, spec)
        return {"model": directory}, Reference(directory)
    model, arguments, weights = write_original(directory, spec)
    if spec.tower == "cache":
        os.environ["HF_HUB_CACHE"] = os.path.join(directory, "hub")
        for engine in engines:
            engine.restart()  # in that environment
    reference = OriginalReference(spec.settings(), weights, arguments.get("model_base", model))
    return {"model": str(model), **arguments}, reference


def run_case(tally, engines, spec, directory, verbose=False):
    """One checkpoint and its requests, by each of the engines."""
    seed = spec.seed
    model, reference = write_case(engines, spec, directory)
    if verbose:
        print(dataclasses.asdict(spec))
    tally.group = results.dimensions(model["model"])
    requests = cases.make_requests(seed, spec if spec.layout == "hf" else spec.base)
    expected = [expect(reference, request) for request in requests]
    text = reference.tokenizer.decode(expected[0].ids, skip_special_tokens=True).strip()
    stopping = cases.stop_request(seed, spec, requests[0], text)
    if stopping is not None and spec.layout == "hf":  # the original has none
        requests.append(stopping)
        expected.append(expect(reference, stopping))
    inputs = reference.inputs(requests[0].text, requests[0].pictures, requests[0].aspect)
    case = Case(spec, model, directory, reference, requests, expected, reference.trace(inputs))
    for engine in engines:
        tally.level = engine.level
        compare_engine(tally, engine, case)
        tally.level = None


@dataclasses.dataclass
class Case:
    """A checkpoint with what the reference made of it."""
    spec: object
    model: dict  # what the engine opens
    directory: str
    reference: object
    requests: list
    expected: list
    trace: dict  # of the first request


def compare_engine(tally, engine, case):
    seed, reference, requests, expected = case.spec.seed, case.reference, case.requests, case.expected
    opened = engine.open(**case.model)
    if not tally.check(seed, "opens", opened["ok"], str(opened.get("error"))):
        return
    alone = []
    for i, (request, theirs) in enumerate(zip(requests, expected)):
        more = {"partial": True}
        if i == 0:
            more["trace"] = os.path.join(case.directory, "trace.safetensors")
        answer = engine.run([engine_request(engine, request, **more)])[0]
        alone.append(answer)
        if i == 0 and answer["ok"]:
            before = len(tally.failures)
            trace = compare_trace(tally, seed, more["trace"], case.trace)
            tally.check(seed, "trace token_ids", trace["token_ids"].tolist() == answer["token_ids"])
            if case.spec.layout == "original" and case.spec.grids:
                tally.check(seed, f"tiles merged {case.spec.merge}", len(tally.failures) == before)
        compare_answer(tally, seed, reference, request, theirs, answer)
        if answer["ok"]:
            compare_partials(tally, seed, request, answer)
    compare_batch(tally, engine, seed, requests, alone, expected)
    engine.forget_frames()


def expect(reference, request):
    inputs = reference.inputs(request.text, request.pictures, request.aspect)
    return reference.generate(inputs, **request.reference_options())


def compare_partials(tally, seed, request, answer):
    """Partial texts only grow, and the last one is how the whole begins. Bytes that are no characters are excepted: the
    reference judges them by what follows."""
    partials = answer["partials"]
    if "num_beams" in request.options:
        tally.check(seed, "partial texts", not partials, "partial texts of beams")
        return
    grows = all(later.startswith(earlier) for earlier, later in zip(partials, partials[1:]))
    ends = not partials or "\ufffd" in answer["text"] or answer["text"].startswith(partials[-1].strip())
    tally.check(seed, "partial texts", grows and ends, f"{partials} for {answer['text']!r}")


def compare_batch(tally, engine, seed, requests, alone, expected):
    """The same requests at once, each twice, must give what each gave alone, or part from it at a near-tie: products of
    more rows may round otherwise."""
    order = list(range(len(requests))) * 2
    answers = engine.run([engine_request(engine, requests[i], stream=n % 3) for n, i in enumerate(order)])
    for i, answer in zip(order, answers):
        same = answer.get("token_ids") == alone[i].get("token_ids") and answer["ok"] == alone[i]["ok"]
        if not same and answer["ok"] and alone[i]["ok"] and is_near_tie(expected[i], answer["token_ids"]):
            tally.near_tie("batch equals alone")
            continue
        tally.check(seed, "batch equals alone", same,
                    f"{requests[i].kind}: {answer.get('token_ids', answer.get('error'))} instead of "
                    f"{alone[i].get('token_ids')}")


def guarded_case(tally, engines, spec, verbose):
    seed, before = spec.seed, len(tally.failures)
    directory = tempfile.mkdtemp(prefix="vlm-parity-")
    try:
        run_case(tally, engines, spec, directory, verbose)
    except EngineCrash as crash:
        tally.check(seed, "no crash", False, str(crash))
    except Exception:  # a case that cannot be judged has not passed
        tally.check(seed, "runs", False, traceback.format_exc(limit=-4))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    tally.level = None
    tally.add_case(spec, len(tally.failures) == before)


def report_tap(number, seed, before, tally):
    new = tally.failures[before:]
    print(f"{'not ok' if new else 'ok'} {number} - seed {seed}", flush=True)
    for line in new:
        print("# " + line.replace("\n", "\n# ")[:3000], flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=120, help="how many checkpoints (default 120)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--case", type=int, help="this seed alone, with everything about it")
    parser.add_argument("--generation", choices=["any", *specs.GENERATIONS], default="any", help="of LLaVA (default any)")
    parser.add_argument("--text-model", choices=["any", *specs.TEXT_MODELS], default="any", help="default any")
    parser.add_argument("--layout", choices=["hf", "original"], default="hf", help="default hf")
    parser.add_argument("--levels", default="", help="of instructions, see VLM_MAX_CPU_ISA in README; commas between them")
    parser.add_argument("--tap", action="store_true", help="one line for each case, in TAP")
    parser.add_argument("--results", type=pathlib.Path, help="file for what was compared, see results.py")
    options = parser.parse_args()
    seeds = [options.case] if options.case is not None else range(options.seed, options.seed + options.cases)
    torch.set_num_threads(1)
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    tally, start = Tally(), time.time()
    # The best that the processor has, and what was asked for below it.
    engines = [Engine()] + [Engine(level=level) for level in options.levels.split(",") if level in levels()[:-1]]
    if options.tap:
        print(f"TAP version 13\n1..{len(seeds) + 1}", flush=True)
    for number, seed in enumerate(seeds, 1):
        before = len(tally.failures)
        spec = make_spec(options.layout, seed, options.generation, options.text_model)
        guarded_case(tally, engines, spec, options.case is not None)
        if options.tap:
            report_tap(number, seed, before, tally)
        else:
            for failure in tally.failures[before:]:
                print("\r" + failure, flush=True)
            print(f"\r{number} of {len(seeds)} cases, seed {seed}, {len(tally.failures)} failures, "
                  f"{(time.time() - start) / number:.2f} s a case", end="", file=sys.stderr, flush=True)
    for engine in engines:
        engine.close()
    if options.results:
        results.write([row for row in tally.rows.values() if row["equal"] or row["failed"] or row["near-ties"]],
                      options.results)
    ties, total = sum(tally.near_ties.values()), sum(tally.passed.values())
    few_ties = ties < 0.01 * max(total, 1) + 1
    prefix = "# " if options.tap else ""
    print("\n" * (not options.tap) + "\n".join(prefix + line for line in [*tally.table(), *tally.families()]))
    print(f"{prefix}seeds {seeds[0]} to {seeds[-1]}; {ties} near-ties (below {NEAR_TIE} relative)")
    if options.tap:
        print(f"{'ok' if few_ties else 'not ok'} {len(seeds) + 1} - near-ties stay below 1 %")
    return 1 if tally.failures or not few_ties else 0


if __name__ == "__main__":
    sys.exit(main())
