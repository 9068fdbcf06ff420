#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""bfloat16 and float16 against the reference in the same type.

How far numbers of few bits stray is measured on the reference itself: the distance of each stage's tensor from the same
tensor in float32 is its spread. The engine must stay within twice the spread of the reference in the same type, and
within twice the spread of the reference in float32: it may round elsewhere, but not worse. Ids must be the reference's
until its own choice was so narrow that two scores that far apart change places. VLM_HALF_CASES sets how many models
each type gets, VLM_SEED where they start; every third is in the original layout.
"""

import collections
import os

import pytest
import torch
from safetensors.torch import load_file

import cases
import make_checkpoint
import results
import specs
from engine import Engine
from original_checkpoint import random_original, write_original
from original_reference import OriginalReference
from parity_test import CLOSE, engine_request, relative_difference
from reference import Reference

CASES = int(os.environ.get("VLM_HALF_CASES", "20"))
SEED = int(os.environ.get("VLM_SEED", "0"))
FACTOR = 2.0
# A spread of nothing is luck: one rounding at the end is always allowed.
UNITS = {"bfloat16": 2.0 ** -8, "float16": 2.0 ** -11}


def traced(reference, request):
    trace = reference.trace(reference.inputs(request.text, request.pictures))
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in trace.items()}


def write_model(directory, seed):
    """A random model: its spec, what the engine opens, and its reference in a type."""
    family = specs.random_family(seed, "any", "any")
    if seed % 3 < 2:
        spec = make_checkpoint.write_checkpoint(directory, specs.random_spec(seed, *family))
        return spec, {"model": directory}, lambda dtype: Reference(directory, dtype)
    spec = random_original(seed, *family)
    spec.tower = "path"
    model, arguments, weights = write_original(directory, spec)
    text = arguments.get("model_base", model)
    return spec.base, {"model": model, **arguments}, lambda dtype: OriginalReference(spec.settings(), weights, text, dtype)


def check_stages(half, full, ours, unit, where, worst, factor=FACTOR):
    """Each stage within its spread; gives the spread of the first scores."""
    spread = 0.0
    for name in CLOSE:
        if name not in half:
            continue
        spread = relative_difference(half[name], full[name])
        assert spread < float("inf"), f"{where}: the reference's {name} is not finite"
        limit = factor * max(spread, unit)
        for what, theirs in (("in the same type", half[name]), ("in float32", full[name])):
            difference = relative_difference(ours[name].float(), theirs)
            worst[name] = max(worst.get(name, 0.0), difference)
            assert difference <= limit, (
                f"{where}: {name} is {difference:.1e} from the reference {what}, over {limit:.1e}")
    return spread


def first_difference(ours, theirs):
    return next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), None)


@pytest.mark.parametrize("dtype", UNITS)
def test_equal_within_the_references_own_spread(tmp_path, dtype):
    engine = Engine()
    worst = collections.defaultdict(float)
    counts = collections.Counter()
    rows = {}
    for seed in range(SEED, SEED + CASES):
        directory = tmp_path / str(seed)
        spec, model, reference = write_model(directory, seed)
        where = f"seed {seed}, {dtype}"
        opened = engine.open(**model, dtype=dtype)
        assert opened["ok"] and opened["info"]["dtype"] == dtype, f"{where}: {opened}"
        half, full = reference(getattr(torch, dtype)), reference(torch.float32)
        request = cases.make_requests(seed, spec)[0]
        trace = str(directory / "trace.safetensors")
        answer = engine.run([engine_request(engine, request, trace=trace)])[0]
        assert answer["ok"], f"{where}: {answer}"
        ours = load_file(trace)
        in_half = traced(half, request)
        assert torch.equal(ours["prompt_ids"], in_half["prompt_ids"]), where
        differences = {}
        spread = check_stages(in_half, traced(full, request), ours, UNITS[dtype], where, differences)
        group = results.dimensions(model["model"])
        for name, difference in differences.items():
            row = rows.setdefault((group, name), results.row(*group, f"{dtype}: {name}", cases=0, worst=0.0))
            row["cases"] += 1
            row["equal"] += 1
            row["worst"] = max(row["worst"], difference)
            worst[name] = max(worst[name], difference)
        expected = half.generate(half.inputs(request.text, request.pictures), **request.reference_options())
        at = first_difference(answer["token_ids"], expected.ids)
        row = rows.setdefault((group, "ids"), results.row(*group, f"{dtype}: greedy ids", cases=0))
        row["cases"] += 1
        row["equal" if at is None else "near-ties"] += 1
        if at is None:
            counts["ids"] += 1
        else:
            gap, limit = expected.gaps[at], 2 * FACTOR * max(spread, UNITS[dtype])
            assert gap <= limit, f"{where}: other ids from {at} on, where the reference's choice was {gap:.1e} clear"
            counts["near-ties"] += 1
        engine.forget_frames()
    engine.close()
    print(f"{dtype}: {dict(counts)}, worst {dict(worst)}")
    results.write(list(rows.values()), results.directory() / f"half-{dtype}.json")
    assert counts["ids"] > CASES // 3, "hardly any text was the reference's"


def test_float16_is_never_chosen_on_the_cpu(tmp_path):
    make_checkpoint.write_checkpoint(tmp_path, make_checkpoint.random_spec(1))
    engine = Engine()
    assert engine.open(tmp_path, dtype="auto", device="cpu")["info"]["dtype"] in ("float32", "bfloat16")
    engine.close()
