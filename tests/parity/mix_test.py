#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A batch of any mix gives each request the ids that it gets alone.

Greedy, sampled and searched texts with and without pictures, penalties, stop strings and loops come to one engine at
random times, on random streams, and some are cancelled on the way. A difference counts as a near-tie only where the
reference itself decided by less than 1e-5 relative; those stay below 1 %. In bfloat16, and in the formats of fewer bits
there, products of few and of many rows round differently: what differs is counted, and must lie where the text alone
was all but another one, too. VLM_MIX_REQUESTS sets how many requests each
model gets, VLM_SEED where the models start.
"""

import os
import random

import pytest

import cases
import make_checkpoint
import results
import specs
from engine import Engine, raw_request
from parity_test import is_near_tie
from reference import Reference

REQUESTS = int(os.environ.get("VLM_MIX_REQUESTS", "150"))
SEED = int(os.environ.get("VLM_SEED", "0"))
FAMILIES = [("1.5", "llama"), ("next", "mistral")]
# In bfloat16: how much likelier, in nats, a token may have been than the one that a batch chose instead, and of how many of
# the places up to the first other token that may be so. Scores of these models are multiples of 1/32 or so there, and in
# bytes (w8a8, w4a8) what is multiplied is rounded to 8 bits among many rows and, with AVX-512, not at all among few.
NARROW = {"none": (0.25, 0.02), "int8": (0.4, 0.02), "int4": (0.5, 0.06), "w8a8": (0.75, 0.12), "w4a8": (0.75, 0.12)}


def random_options(rng):
    options = {"max_new_tokens": rng.choice([1, 2, 5, 12, 30, 60])}
    kind = rng.choice(["greedy", "greedy", "sampled", "beams"])
    if kind == "sampled":
        options.update(temperature=rng.choice([0.7, 1.0, 1.8]), seed=rng.randrange(2**40), top_k=rng.choice([0, 5, 40]),
                       top_p=rng.choice([1.0, 0.8]), min_p=rng.choice([0.0, 0.05]))
    if kind == "beams":
        options.update(num_beams=rng.randrange(2, 6), length_penalty=rng.choice([1.0, 0.0, -1.0, 2.0]),
                       early_stopping=rng.choice(["false", "true", "never"]))
        options["max_new_tokens"] = min(options["max_new_tokens"], 12)
    if rng.random() < 0.25:
        options["repetition_penalty"] = rng.choice([1.2, 0.9])
    if rng.random() < 0.25:
        options["no_repeat_ngram_size"] = rng.choice([1, 2, 3])
    if rng.random() < 0.25:
        options["min_new_tokens"] = rng.randrange(options["max_new_tokens"] + 1)
    if rng.random() < 0.3:
        options["stop"] = rng.sample(["a", "e", "on", "s", ".", "th", " w"], rng.choice([1, 2]))
    if rng.random() < 0.2:
        options["repetition_guard"] = rng.choice([2, 3])
    if rng.random() < 0.2:
        options["top_logprobs"] = rng.choice([1, 4])
    return kind, options


def make_mix(seed, spec):
    rng = random.Random(f"mix {seed}")
    words = [word for line in make_checkpoint.made_up_text(spec.seed, 40) for word in line.split()]
    pool = [cases.random_picture(rng) for _ in range(6)]
    mix = []
    for _ in range(REQUESTS):
        pictures = rng.choices(pool, k=rng.choice([0, 1, 1, 2, 3]))
        kind, options = random_options(rng)
        text = cases.random_prompt(rng, words, len(pictures), rng.randrange(1, 25))
        mix.append(cases.Request(kind, text, pictures, options))
    return rng, mix


def differs(reference, request, ours):
    """False where the reference too all but chose otherwise."""
    if request.kind == "sampled" or "repetition_guard" in request.options:
        return True
    options = {key: value for key, value in request.reference_options().items() if key != "top_logprobs"}
    expected = reference.generate(reference.inputs(request.text, request.pictures), **options)
    return not is_near_tie(expected, ours)


def judge(request, alone, answer, cancelled):
    """How the answer relates to the one got alone: equal, cut (cancelled on the way), or other."""
    if not answer["ok"]:
        nothing = cancelled and answer["error"]["kind"] == "cancelled"
        return "cut" if nothing else "other"
    ids = answer["token_ids"]
    if cancelled and answer["finish_reason"] == "cancelled":
        # The best beam of the moment need not become the best of all, and a loop is not yet cut.
        free = request.kind == "beams" or "repetition_guard" in request.options
        return "cut" if ids and (free or ids == alone["token_ids"][:len(ids)]) else "other"
    same = ids == alone["token_ids"] and answer["finish_reason"] == alone["finish_reason"]
    return "equal" if same and answer["text"] == alone["text"] else "other"


# Whole prompts, and parts of them between the others' tokens: positions of "dynamic" depend on a prompt's whole length.
@pytest.mark.parametrize("chunk, rope", [(1024, "default"), (7, "dynamic")], ids=["whole", "chunks"])
@pytest.mark.parametrize("family", FAMILIES, ids="-".join)
def test_a_batch_gives_what_each_request_gets_alone(tmp_path, family, chunk, rope):
    seed = SEED + 70
    spec = specs.random_spec(seed, *family)
    spec.rope, spec.text.max_positions, spec.dtype, spec.rope_original = rope, 1024, "float32", 32
    make_checkpoint.write_checkpoint(tmp_path, spec)
    engine = Engine()
    assert engine.open(tmp_path, prompt_chunk=chunk)["ok"]
    rng, mix = make_mix(seed, spec)
    requests = [raw_request(r.text, [engine.frame(p) for p in r.pictures], **r.options) for r in mix]
    alone = [engine.run([request])[0] for request in requests]
    assert all(answer["ok"] for answer in alone), [answer for answer in alone if not answer["ok"]][:1]
    took = sum(answer["timing"]["total_ms"] for answer in alone) / len(alone)

    order = rng.sample(range(len(mix)), len(mix))
    cancelled = {i for i in order if rng.random() < 0.15}
    batch = []
    for i in order:
        # Bursts and pauses, faster on the whole than one request after the other.
        more = {"stream": rng.randrange(4), "delay_ms": rng.choice([0, 0, 0, int(took / 2), int(took)])}
        if i in cancelled:
            # At once, too: on a busy machine later may be too late.
            more["cancel_ms"] = rng.choice([0, rng.randrange(int(3 * took) + 2)])
        batch.append({**requests[i], **more})
    answers = engine.run(batch)
    engine.close()

    counts = {"equal": 0, "cut": 0, "near-tie": 0}
    reference = None
    for i, answer in zip(order, answers):
        verdict = judge(mix[i], alone[i], answer, i in cancelled)
        if verdict == "other" and answer["ok"]:
            reference = reference or Reference(tmp_path)
            if not differs(reference, mix[i], answer["token_ids"]):
                verdict = "near-tie"
        assert verdict != "other", f"{mix[i]}: {answer} instead of {alone[i]}"
        counts[verdict] += 1
    print(f"seed {seed}, {family}: {counts}, {len(cancelled)} to cancel")
    results.record(f"mix-{'-'.join(family)}-{seed}-{chunk}", results.dimensions(tmp_path), {
        "random arrivals equal alone": {"passed": counts["equal"], "near_ties": counts["near-tie"]},
        "cancelled on the way": {"passed": counts["cut"]}})
    assert counts["near-tie"] <= len(mix) / 100
    assert counts["equal"] > len(mix) * 0.7 and (len(mix) < 50 or counts["cut"] > 0)


def compared(alone, ids):
    """How many places there are up to the first other token, and how much likelier, in nats, the text's own was there
    than that one; None: none differs."""
    for place, (own, other) in enumerate(zip(alone["token_ids"], ids)):
        if own != other:
            known = {choice["id"]: choice["logprob"] for choice in alone["top_logprobs"][place]}
            return place + 1, known[own] - known[other] if other in known else float("inf")
    return len(ids), None if len(ids) == len(alone["token_ids"]) else float("inf")


@pytest.mark.parametrize("family", FAMILIES, ids="-".join)
@pytest.mark.parametrize("quantization", NARROW)
def test_in_bfloat16_a_batch_changes_only_what_was_all_but_undecided(tmp_path, quantization, family):
    seed = SEED + 80
    spec = specs.random_spec(seed, *family)
    spec.rope, spec.text.max_positions, spec.dtype = "default", 1024, "bfloat16"
    make_checkpoint.write_checkpoint(tmp_path, spec)
    engine = Engine()
    assert engine.open(tmp_path, dtype="bfloat16", quantization=quantization, prompt_chunk=32)["ok"]
    rng, mix = make_mix(seed, spec)
    requests = [raw_request(r.text, [engine.frame(p) for p in r.pictures], top_logprobs=5,
                            max_new_tokens=r.options["max_new_tokens"]) for r in mix[:60]]
    alone = [engine.run([request])[0] for request in requests]
    assert all(answer["ok"] for answer in alone), [answer for answer in alone if not answer["ok"]][:1]
    took = sum(answer["timing"]["total_ms"] for answer in alone) / len(alone)
    together = engine.run([{**request, "stream": rng.randrange(4), "delay_ms": rng.choice([0, 0, 0, int(took / 2)])}
                           for request in requests])
    engine.close()

    narrow, share = NARROW[quantization]
    places, gaps = 0, []
    for one, among in zip(alone, together):
        assert among["ok"], among
        own, gap = compared(one, among["token_ids"])
        places += own
        if gap is not None:
            assert gap < narrow, f"{among['token_ids']} instead of {one['token_ids']}, {gap} nats apart"
            gaps.append(gap)
    print(f"{quantization}, seed {seed}, {family}: {len(gaps)} of {places} tokens ({len(gaps) / places:.2%}) are others, "
          f"in {len(gaps)} of {len(alone)} texts, up to {max(gaps, default=0):.2g} nats less likely")
    results.record(f"mix-{quantization}-{'-'.join(family)}-{seed}", results.dimensions(tmp_path), {
        f"bfloat16, {quantization}: batch equals alone": {"passed": len(alone) - len(gaps), "near_ties": len(gaps)}})
    assert len(gaps) <= places * share


def has_matrix_units():
    with open("/proc/cpuinfo") as processors:
        return any(line.startswith("flags") and "amx_bf16" in line.split() for line in processors)


@pytest.mark.skipif(not has_matrix_units(), reason="this processor has no matrix units for bfloat16")
@pytest.mark.parametrize("family", FAMILIES, ids="-".join)
def test_in_bfloat16_matrix_units_give_the_very_numbers(tmp_path, family):
    """No rounding depends on how much is computed together, so log-probabilities are equal to the last bit."""
    spec = specs.random_spec(SEED + 90, *family)
    spec.rope, spec.text.max_positions, spec.dtype = "default", 1024, "bfloat16"
    make_checkpoint.write_checkpoint(tmp_path, spec)
    engine = Engine()
    # Parts of prompts meet what lies in the cache in another way than whole ones.
    assert engine.open(tmp_path, dtype="bfloat16", device="cpu", prompt_chunk=1024)["ok"]
    _, mix = make_mix(SEED + 90, spec)
    requests = [raw_request(r.text, [engine.frame(p) for p in r.pictures], **r.options) for r in mix[:60]]
    alone = [engine.run([request])[0] for request in requests]
    together = engine.run(requests)
    engine.close()
    for one, among in zip(alone, together):
        assert one["ok"] and among["ok"], (one, among)
        assert (one["token_ids"], one["logprobs"]) == (among["token_ids"], among["logprobs"])
