# SPDX-License-Identifier: LGPL-2.1-or-later
"""Weights in 8 and 4 bits: the engine against the reference whose weights were rounded to the same levels.

What is left between the two is how the engine rounds the numbers that meet the weights, to 15 bits. Types other than
float32 are levels_test.py's.
"""

import pytest
import torch
from safetensors.torch import load_file

import cases
import make_checkpoint
from engine import Engine, raw_request, levels_to_run
from parity_test import engine_request
from reference import Reference
from rounded import ROUNDED, round_weights

SEEDS = range(700, 706)
TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def engines():
    """One on each level of the processor's instructions."""
    running = [Engine(level=level) for level in levels_to_run()]
    yield running
    for engine in running:
        engine.close()


@pytest.fixture(scope="module")
def engine(engines):
    """The best."""
    return engines[-1]


@pytest.mark.parametrize("quantization", ROUNDED)
@pytest.mark.parametrize("seed", SEEDS)
def test_logits_and_ids_are_those_of_the_rounded_weights(engines, tmp_path, seed, quantization):
    spec = make_checkpoint.write_checkpoint(tmp_path, make_checkpoint.random_spec(seed))
    reference = Reference(tmp_path)
    round_weights(reference.model, quantization)
    for engine in engines:
        opened = engine.open(tmp_path, quantization=quantization)
        assert opened["ok"], opened
    compared = 0
    for number, request in enumerate(cases.make_requests(seed, spec)):
        inputs = reference.inputs(request.text, request.pictures)
        theirs = reference.trace(inputs)["first_logits"]
        expected = reference.generate(inputs, **request.reference_options())
        narrow = expected.gap if expected.gap is not None else min(expected.gaps)
        for engine in engines:
            trace = str(tmp_path / f"trace-{number}-{engine.level}.safetensors")
            answer = engine.run([engine_request(engine, request, trace=trace)])[0]
            assert answer["ok"], answer
            ours = load_file(trace)["first_logits"]
            assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < TOLERANCE, engine.level
            if narrow > 2 * TOLERANCE:
                assert answer["token_ids"] == expected.ids, engine.level
                compared += 1
    for engine in engines:
        engine.forget_frames()
    assert compared > 0


@pytest.mark.parametrize("quantization", ROUNDED)
def test_a_batch_gives_each_request_what_it_gets_alone(engine, tmp_path, quantization):
    make_checkpoint.write_checkpoint(tmp_path, make_checkpoint.random_spec(710))
    assert engine.open(tmp_path, quantization=quantization)["ok"]
    requests = [raw_request("x " * (1 + number), max_new_tokens=12) for number in range(9)]
    alone = [engine.run([request])[0]["token_ids"] for request in requests]
    together = [answer["token_ids"] for answer in engine.run(requests)]
    assert together == alone


def multiplies_bytes(engine):
    """As README says: AVX-512 with VNNI and BF16, no AMX; with AVX2 alone numbers of 15 bits, or of 8 with 4-bit weights."""
    return engine.level in ("avx2", "avx512-bfloat16")


def first_logits(engine, tmp_path, spec, seed):
    """Of every request with pictures or a long prompt, as the engine that is open has them."""
    found = []
    for number, request in enumerate(cases.make_requests(seed, spec)):
        frames = [engine.frame(picture) for picture in request.pictures]
        trace = str(tmp_path / f"trace-{number}.safetensors")
        assert engine.run([{**raw_request(request.text, frames, max_new_tokens=1), "trace": trace}])[0]["ok"]
        found.append(load_file(trace)["first_logits"])
    engine.forget_frames()
    return found


@pytest.mark.parametrize(("quantization", "weights"), [("w8a8", "int8"), ("w4a8", "int4")])
def test_pictures_and_prompts_in_bytes_stay_near(engines, tmp_path, quantization, weights):
    """What 8 bits add is a few times what bfloat16 adds, in models as small as these: larger ones average more. Where the
    processor does not multiply bytes, nothing is added."""
    for engine in engines:
        added = what_bytes_add(engine, tmp_path / str(engine.level), quantization, weights)
        assert added < 0.1 if multiplies_bytes(engine) else added == 0, engine.level


def what_bytes_add(engine, tmp_path, quantization, weights):
    """To the first logits, relative to their spread."""
    added, numbers, spread, in_bytes = 0.0, 0, 0.0, multiplies_bytes(engine)
    for seed in SEEDS:
        spec, model = make_checkpoint.random_spec(seed), tmp_path / str(seed)
        make_checkpoint.write_checkpoint(model, spec)
        results, held = [], []
        for kind in (weights, quantization):
            opened = engine.open(model, quantization=kind, dtype="bfloat16")
            assert opened["ok"], opened
            held.append(opened["info"]["weight_bytes"])
            results.append(first_logits(engine, tmp_path, spec, seed))
        # Where the processor multiplies bytes the tower is held in them, too (padded rows of so small ones take more).
        assert (held[1] != held[0]) == in_bytes
        assert any(not torch.equal(*pair) for pair in zip(*results)) == in_bytes
        for plain, rounded in zip(*results):
            added += (plain - rounded).double().square().sum().item()
            spread += (plain - plain.mean()).double().square().sum().item()
            numbers += plain.numel()
    assert numbers > 0
    return (added / spread) ** 0.5


def test_fewer_bits_take_less_memory(engine, tmp_path):
    spec = make_checkpoint.random_spec(720)
    spec.text.hidden, spec.text.heads, spec.text.kv_heads, spec.text.head_dim = 256, 4, 4, 64
    spec.text.intermediate, spec.text.layers, spec.text.tied = 1024, 4, False
    make_checkpoint.write_checkpoint(tmp_path, spec)
    held = {}
    for quantization in ("none", "int8", "int4"):
        opened = engine.open(tmp_path, quantization=quantization)
        assert opened["ok"], opened
        held[quantization] = opened["info"]["weight_bytes"]
    matrices = 4 * (4 * 256 * 256 + 3 * 256 * 1024)
    assert held["none"] - held["int8"] > 2.6 * matrices
    assert held["int8"] - held["int4"] > 0.4 * matrices
