# SPDX-License-Identifier: LGPL-2.1-or-later
"""Weights in 8 and 4 bits: the engine against the reference whose weights were rounded to the same levels.

The rounding is written here again from its description (engine/kernels/packed_matrix.h), in NumPy. What is left between
the two is how the engine rounds the numbers that meet the weights, to 15 bits.
"""

import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import cases
import make_checkpoint
from engine import Engine, raw_request
from reference import Reference

SEEDS = range(700, 706)
TOLERANCE = 2e-3
GROUP = 32


def rounded_int8(weights):
    scale = (np.abs(weights).max(1, keepdims=True) / np.float32(127)).astype(np.float32)
    scale[scale == 0] = 1
    return np.clip(np.round(weights * (np.float32(1) / scale)), -127, 127).astype(np.float32) * scale


def rounded_int4(weights):
    outputs, inputs = weights.shape
    groups = -(-inputs // GROUP)
    padded = np.zeros((outputs, groups * GROUP), np.float32)
    padded[:, :inputs] = weights
    padded = padded.reshape(outputs, groups, GROUP)
    top = np.take_along_axis(padded, np.abs(padded).argmax(2)[..., None], 2)
    scale = torch.from_numpy(top / np.float32(-8)).to(torch.bfloat16).float().numpy()
    inverse = np.where(scale == 0, np.float32(0), np.float32(1) / np.where(scale == 0, 1, scale))
    levels = np.clip(np.round(padded * inverse), -8, 7)
    return (levels * scale).reshape(outputs, -1)[:, :inputs]


ROUNDED = {"int8": rounded_int8, "int4": rounded_int4}


def round_weights(model, quantization):
    """Rounds the decoder's matrices in place; the output's table always to 8 bits."""
    with torch.no_grad():
        for name, module in model.named_modules():
            if not isinstance(module, torch.nn.Linear) or "language_model" not in name and name != "lm_head":
                continue
            kind = "int8" if name.endswith("lm_head") else quantization
            rounded = torch.from_numpy(ROUNDED[kind](module.weight.float().numpy()))
            module.weight = torch.nn.Parameter(rounded)  # not in place: the embedding may be the same tensor


@pytest.fixture(scope="module")
def engine():
    running = Engine()
    yield running
    running.close()


@pytest.mark.parametrize("quantization", ROUNDED)
@pytest.mark.parametrize("seed", SEEDS)
def test_logits_and_ids_are_those_of_the_rounded_weights(engine, tmp_path, seed, quantization):
    spec = make_checkpoint.write_checkpoint(tmp_path, make_checkpoint.random_spec(seed))
    reference = Reference(tmp_path)
    round_weights(reference.model, quantization)
    opened = engine.open(tmp_path, quantization=quantization)
    assert opened["ok"], opened
    compared = 0
    for number, request in enumerate(cases.make_requests(seed, spec)):
        frames = [engine.frame(picture) for picture in request.pictures]
        trace = str(tmp_path / f"trace-{number}.safetensors")
        answer = engine.run([{**raw_request(request.text, frames, **request.options), "trace": trace}])[0]
        assert answer["ok"], answer
        inputs = reference.inputs(request.text, request.pictures)
        theirs = reference.trace(inputs)["first_logits"]
        ours = load_file(trace)["first_logits"]
        assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < TOLERANCE
        expected = reference.generate(inputs, **request.reference_options())
        narrow = expected.gap if expected.gap is not None else min(expected.gaps)
        if narrow > 2 * TOLERANCE:
            assert answer["token_ids"] == expected.ids
            compared += 1
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


def multiplies_bytes():
    """As README says: AVX-512 with VNNI and BF16, no AMX."""
    if os.environ.get("VLM_TEST_DEVICE", "cpu") != "cpu" or not os.path.exists("/proc/cpuinfo"):
        return False
    with open("/proc/cpuinfo") as file:
        flags = next((line.split() for line in file if line.startswith("flags")), [])
    return {"avx512_bf16", "avx512_vnni", "avx512vl"} <= set(flags) and "amx_bf16" not in flags


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
def test_pictures_and_prompts_in_bytes_stay_near(engine, tmp_path, quantization, weights):
    """What 8 bits add is a few times what bfloat16 adds, in models as small as these: larger ones average more."""
    added, numbers, spread, in_bytes = 0.0, 0, 0.0, multiplies_bytes()
    for seed in SEEDS:
        spec, model = make_checkpoint.random_spec(seed), tmp_path / str(seed)
        model.mkdir()
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
    assert (added / spread) ** 0.5 < 0.1


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
