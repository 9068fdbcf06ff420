#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every fast path of a CPU: each type and form of weights, on each level of instructions, against the reference in the
same type with the same weights.

The reference runs once for a model and type, the engine once for each level, see VLM_MAX_CPU_ISA in README. Requests are
those of cases.py (greedy, penalties, n-grams, beams, stop strings, several pictures), and drawn ones. How far numbers of
few bits stray is measured on the reference itself: its spread is the largest difference of a text's scores in the type
from those in float32, relative to the largest score. The engine may be twice as far from either (in bytes: three times), so that

- each stage's tensor lies within twice its spread (half_test.check_stages);
- each log-probability lies within four spreads of the largest score of the one that the reference in float32 gives the
  engine's own ids, to the last of them;
- each greedy choice is, to that, the best one in float32;
- ids are those of the reference in the same type, unless its own choice fell by less than four spreads. Such texts are
  counted and printed; of all of a type's texts they may be EXCEPTIONS.

Texts of requests at once obey the same, partial texts only grow, and a cancelled text is how the whole begins. float32
on each level is parity_test.py's, but for drawn texts.
"""

import contextlib
import dataclasses
import itertools
import os

import pytest
import torch
from safetensors.torch import load_file

import cases
import make_checkpoint
import results
import specs
from draws import draw_gaps, draws_of
from engine import Engine, EngineCrash, levels_to_run
from half_test import FACTOR, check_stages, first_difference, traced
from original_checkpoint import random_original, write_original
from original_reference import OriginalReference
from parity_test import compare_partials, engine_request
from reference import Reference
from rounded import copy_rounded, multiply_groups_in_bytes, multiply_in_bytes, round_pictures, round_weights

SEED = int(os.environ.get("VLM_SEED", "0"))
MODELS = int(os.environ.get("VLM_LEVEL_MODELS", "6"))
# One rounding of the type; of float32 what sums in other orders come to.
UNITS = {"bfloat16": 2.0 ** -8, "float16": 2.0 ** -11, "float32": 1e-5}
# Form of the weights: those it has in memory, and how many rows at most AVX-512 multiplies without rounding them.
BYTES = {"w8a8": ("int8", 16), "w4a8": ("int4", 20)}
# In bytes the two differ by an 8-bit rounding wherever they differ at all, which goes on through the layers.
BYTES_FACTOR = 3.0
# Of texts that part from the reference's, by type and form.
EXCEPTIONS = {("float32", "none"): 0.02, ("float16", "none"): 0.15, ("bfloat16", "none"): 0.4, ("bfloat16", "int8"): 0.5,
              ("bfloat16", "int4"): 0.5, ("bfloat16", "w8a8"): 0.7, ("bfloat16", "w4a8"): 0.7}
FAMILIES = [*itertools.product(["hf"], specs.GENERATIONS, specs.TEXT_MODELS), ("original", "1.5", "llama"),
            ("original", "next", "mistral")]


@dataclasses.dataclass
class Drawn(cases.Request):
    """A request whose tokens are drawn."""

    def reference_options(self):
        options = {"top_k": 0, **super().reference_options(), "do_sample": True}
        options.pop("seed")
        return options


@dataclasses.dataclass
class Model:
    """A checkpoint with what the reference makes of the requests."""
    where: str
    spec: object
    arguments: dict  # what the engine opens
    half: object  # the reference in the type
    full: object  # and in float32
    dtype: str
    factor: float  # how many spreads the engine may be away
    requests: list = dataclasses.field(default_factory=list)
    expected: list = dataclasses.field(default_factory=list)
    spreads: list = dataclasses.field(default_factory=list)  # of each request's scores
    scored: dict = dataclasses.field(default_factory=dict)

    def limit(self, i):
        """How narrow a choice of the reference may fall out the other way, relative to the largest score. A request that
        strays less than most was lucky."""
        usual = sum(self.spreads) / len(self.spreads)
        return 2 * self.factor * max(self.spreads[i], usual, UNITS[self.dtype])

    def scores(self, i, ids):
        """What the reference in float32 gives after request `i` and each of `ids`, which followed() gave, but the last."""
        key = (i, *ids)
        if key not in self.scored:
            self.scored[key] = self.full.scores_along(self.inputs(self.full, i), ids)
        return self.scored[key]

    def followed(self, ids):
        """`ids` as far as scores_along() takes them: to one that would count as a place for a picture."""
        return ids[:next((at for at, token in enumerate(ids) if token == self.full.picture_id), len(ids))]

    def inputs(self, reference, i):
        request = self.requests[i]
        return reference.inputs(request.text, request.pictures, request.aspect)


def write_model(directory, seed, family, dtype):
    """The checkpoint, what opens it, and the reference in the type and in float32."""
    layout, *rest = family
    if layout == "hf":
        spec = make_checkpoint.write_checkpoint(directory, specs.random_spec(seed, *rest))
        make = lambda kind: Reference(directory, kind)  # noqa: E731
        return spec, {"model": directory}, make(getattr(torch, dtype)), make(torch.float32)
    spec = random_original(seed, *rest)
    spec.tower = "path"
    model, arguments, weights = write_original(directory, spec)
    text = arguments.get("model_base", model)
    make = lambda kind: OriginalReference(spec.settings(), weights, text, kind)  # noqa: E731
    return spec.base, {"model": model, **arguments}, make(getattr(torch, dtype)), make(torch.float32)


def drawn_requests(seed, greedy):
    options = [{"temperature": 0.8, "top_k": 5}, {"temperature": 1.1, "top_p": 0.7}, {"temperature": 1.0}]
    return [Drawn(f"drawn {n}", greedy.text, greedy.pictures, {"max_new_tokens": 12, "seed": 1000 * seed + n, **one})
            for n, one in enumerate(options)]


def expect(reference, request, inputs):
    if not isinstance(request, Drawn):
        return reference.generate(inputs, **request.reference_options())
    with draws_of(request.options["seed"]) as distances:
        expected = reference.generate(inputs, **request.reference_options())
    expected.gaps = draw_gaps(expected.raw, distances, **{name: request.options[name] for name in
                                                          ("temperature", "top_k", "top_p") if name in request.options})
    return expected


def prepare(directory, seed, family, dtype, quantization, in_bytes):
    """A model with its requests and what the reference makes of them; `in_bytes`: the level whose products are, or None."""
    spec, arguments, half, full = write_model(directory, seed, family, dtype)
    weights, few_rows = BYTES.get(quantization, (quantization, 0))
    if weights != "none":
        round_weights(full.model, weights)
        copy_rounded(full.model, half.model)
    if quantization in BYTES:
        round_pictures(half.model)
    if in_bytes == "avx512-bfloat16":
        multiply_in_bytes(half.model, weights, few_rows)
    elif quantization in BYTES:
        round_pictures(full.model)
    if in_bytes == "avx2":
        multiply_groups_in_bytes(half.model)
    model = Model(f"{'/'.join(family)}, seed {seed}, {dtype}, {quantization}", spec, arguments, half, full, dtype,
                  BYTES_FACTOR if in_bytes else FACTOR)
    model.requests = cases.make_requests(seed, spec)
    model.requests += drawn_requests(seed, model.requests[0])
    model.expected = [expect(half, request, model.inputs(half, i)) for i, request in enumerate(model.requests)]
    text = half.tokenizer.decode(model.expected[0].ids, skip_special_tokens=True).strip()
    stopping = cases.stop_request(seed, spec, model.requests[0], text) if family[0] == "hf" else None
    if stopping is not None:
        model.requests.append(stopping)
        model.expected.append(expect(half, stopping, model.inputs(half, len(model.requests) - 1)))
    for i, theirs in enumerate(model.expected):
        ids = model.followed(theirs.ids)
        if not ids:
            model.spreads.append(0.0)
            continue
        exact = model.scores(i, ids)
        difference = half.scores_along(model.inputs(half, i), ids) - exact
        model.spreads.append((difference.abs().amax(-1) / exact.abs().amax(-1)).max().item())
    return model


@dataclasses.dataclass
class Counts:
    """What was compared; `log` has every text that parted from the reference's."""
    texts: int = 0
    long_prompts: int = 0
    log: list = dataclasses.field(default_factory=list)


def check_ids(model, i, answer, counts, where):
    """The reference's ids, or others from a choice on that it made narrowly."""
    expected, ids = model.expected[i], answer["token_ids"]
    counts.texts += 1
    at = first_difference(ids, expected.ids)
    if at is None and len(ids) == len(expected.ids):
        return
    # Where one ends before the other, the decision was to end.
    at = min(len(ids), len(expected.ids)) - 1 if at is None else at
    gap = expected.gap if expected.gap is not None else min(expected.gaps[:at + 1])
    assert gap <= model.limit(i), (
        f"{where}: {ids} instead of {expected.ids}, where the reference was {gap:.1e} clear, over {model.limit(i):.1e}")
    counts.log.append(f"{where}: other ids from token {at} on, gap {gap:.1e} below {model.limit(i):.1e}")


def check_scores(model, i, answer, where):
    """Each log-probability, and each greedy choice, by the reference in float32 on the engine's own ids."""
    ids = model.followed(answer["token_ids"])
    # A dynamic rotary scale depends on how far the whole sequence goes.
    if model.spec.rope == "dynamic" or not ids:
        return
    exact = model.scores(i, ids).double()
    largest = exact.abs().amax(-1)
    theirs = torch.log_softmax(exact, -1)[range(len(ids)), ids]
    difference = ((torch.tensor(answer["logprobs"][:len(ids)]).double() - theirs).abs() / largest).max().item()
    assert difference <= model.limit(i), f"{where}: log-probabilities are {difference:.1e} off, over {model.limit(i):.1e}"
    if model.requests[i].kind in ("greedy", "no picture", "stop strings", "without tiles"):
        short = ((exact.amax(-1) - exact[range(len(ids)), ids]) / largest).max().item()
        assert short <= model.limit(i), f"{where}: a choice is {short:.1e} from the best, over {model.limit(i):.1e}"


class Partials:
    """Collects what compare_partials() has to say."""

    def check(self, where, what, good, detail=""):
        assert good, f"{where}: {what}: {detail}"


def check_level(engine, model, directory, quantization, counts):
    where = f"{model.where}, {engine.level}"
    opened = engine.open(**model.arguments, dtype=model.dtype, quantization=quantization)
    assert opened["ok"] and opened["info"]["dtype"] == model.dtype, f"{where}: {opened}"
    trace = str(directory / f"trace-{engine.level}.safetensors")
    alone = []
    for i, request in enumerate(model.requests):
        more = {"partial": True, **({"trace": trace} if i == 0 else {})}
        answer = engine.run([engine_request(engine, request, **more)])[0]
        assert answer["ok"], f"{where}: {answer}"
        check_answer(model, i, answer, counts, f"{where}, {request.kind}")
        compare_partials(Partials(), where, request, answer)
        alone.append(answer)
        counts.long_prompts += answer["prompt_tokens"] > 64
    ours = load_file(trace)
    in_half = traced(model.half, model.requests[0])
    assert torch.equal(ours["prompt_ids"], in_half["prompt_ids"]), where
    check_stages(in_half, traced(model.full, model.requests[0]), ours, UNITS[model.dtype], where, {}, model.factor)
    order = list(range(len(model.requests))) * 2
    answers = engine.run([engine_request(engine, model.requests[i], stream=n % 3) for n, i in enumerate(order)])
    for i, answer in zip(order, answers):
        assert answer["ok"], f"{where}: {answer}"
        check_answer(model, i, answer, counts, f"{where}, {model.requests[i].kind}, at once")
    check_cancel(engine, model, where)
    engine.forget_frames()


def check_answer(model, i, answer, counts, where):
    check_ids(model, i, answer, counts, where)
    check_scores(model, i, answer, where)


def check_cancel(engine, model, where):
    """Cancelled in the middle, a text is how the whole begins."""
    request = dataclasses.replace(model.requests[0], options={"max_new_tokens": 40, "min_new_tokens": 40})
    whole, part = (engine.run([engine_request(engine, request, partial=True, **more)])[0]
                   for more in ({}, {"cancel_after": 2}))
    assert whole["ok"], f"{where}: {whole}"
    if part["ok"]:
        ids = part["token_ids"]
        assert part["finish_reason"] in ("cancelled", "length"), f"{where}: {part}"
        assert ids == whole["token_ids"][:len(ids)], f"{where}: {ids} is not how {whole['token_ids']} begins"
    else:
        assert part["error"]["kind"] == "cancelled", f"{where}: {part}"


@contextlib.contextmanager
def running_engines(wanted):
    engines = [Engine(level=level) for level in wanted]
    try:
        yield engines
    finally:
        for engine in engines:
            engine.close()


def levels_for(quantization):
    """Two levels have products in whole numbers, elsewhere w8a8 and w4a8 are int8 and int4 (quantization_test.py)."""
    known = levels_to_run()
    if quantization in BYTES:
        return [level for level in known if level in ("avx2", "avx512-bfloat16")]
    return known


def in_bytes(level, quantization):
    """The level whose products round x to 8 bits, or None: elsewhere they have 15 bits, which rounds x no more than
    bfloat16 does."""
    rounding = {("avx512-bfloat16", "w8a8"), ("avx512-bfloat16", "w4a8"), ("avx2", "w4a8")}
    return level if (level, quantization) in rounding else None


@pytest.mark.parametrize(("dtype", "quantization"), EXCEPTIONS)
def test_every_level_is_the_reference(tmp_path, dtype, quantization):
    levels = levels_for(quantization)
    if not levels:
        pytest.skip("this processor has no products of whole numbers, or multiplies bfloat16 faster")
    counts, rows = Counts(), {}
    families = [family for family in FAMILIES if family[0] == "hf" or quantization not in BYTES]
    with running_engines(levels) as engines:
        for seed, family in zip(range(SEED, SEED + MODELS), itertools.cycle(families)):
            models = {}
            for engine in engines:
                bytewise = in_bytes(engine.level, quantization)
                directory = tmp_path / f"{seed}-{bytewise}"
                if bytewise not in models:
                    models[bytewise] = prepare(directory, seed, family, dtype, quantization, bytewise)
                model = models[bytewise]
                group = results.dimensions(model.arguments["model"])
                texts, parted = counts.texts, len(counts.log)
                try:
                    check_level(engine, model, directory, quantization, counts)
                except EngineCrash as crash:
                    pytest.fail(f"{model.where}, {engine.level}: {crash}")
                what = f"{dtype}, {quantization}: texts on {engine.level or 'this device'}"
                row = rows.setdefault((group, what), results.row(*group, what, cases=0))
                row["cases"] += 1
                row["near-ties"] += len(counts.log) - parted
                row["equal"] += counts.texts - texts - len(counts.log) + parted
    print(f"{dtype}, {quantization}: {len(counts.log)} of {counts.texts} texts parted", *counts.log, sep="\n")
    results.write(list(rows.values()), results.directory() / f"levels-{dtype}-{quantization}.json")
    assert counts.long_prompts > 0, "no prompt is long enough for products of many rows"
    most = EXCEPTIONS[dtype, quantization] * counts.texts
    assert len(counts.log) <= most, "too many texts part from the reference's"


def test_no_level_is_an_error_that_names_them(tmp_path):
    engine = Engine(environment={"VLM_MAX_CPU_ISA": "sse9"})
    answer = engine.check(tmp_path)
    engine.close()
    assert not answer["ok"] and answer["error"]["kind"] == "invalid_argument"
    assert "portable, avx2, avx512, avx512-bfloat16, amx" in answer["error"]["message"]
