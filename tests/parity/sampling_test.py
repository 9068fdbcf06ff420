#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the engine draws follows the distribution that the reference draws from.

The first token is drawn thousands of times, each time with a seed of its own, and compared with the reference's
processed scores by a chi-square test; then two tokens together, and beams. Draws depend on seed and sequence alone.
"""

import dataclasses
import os

import pytest
import torch
from scipy.stats import chi2

import make_checkpoint
from engine import Engine, noise_picture, raw_request
from reference import Reference

DRAWS = int(os.environ.get("VLM_SAMPLING_DRAWS", "2000"))
BATCH = 250
# A right sampler fails one test of all these in about 5,000 runs.
SIGNIFICANCE = 2e-5
TEXT = "USER: <image>\nWhat is in this picture? ASSISTANT:"

SETTINGS = {
    "temperature": {"temperature": 0.7},
    "hot": {"temperature": 1.6, "top_k": 40},
    "top-k": {"temperature": 1.0, "top_k": 7},
    "top-p": {"temperature": 1.2, "top_p": 0.8},
    "min-p": {"temperature": 0.9, "min_p": 0.08},
    "all": {"temperature": 0.8, "top_k": 30, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.4},
    "no end": {"temperature": 1.0, "top_k": 12, "min_new_tokens": 1},
}


@dataclasses.dataclass
class Setup:
    engine: Engine
    reference: Reference
    picture: object
    frame: dict

    def inputs(self):
        return self.reference.inputs(TEXT, [self.picture])

    def draw(self, count, vary="seed", **options):
        """Token ids of `count` requests that differ in `vary` alone."""
        ids = []
        for start in range(0, count, BATCH):
            requests = []
            for i in range(start, min(start + BATCH, count)):
                request = raw_request(TEXT, [self.frame], **options)
                request["options"]["seed"] = i if vary == "seed" else 99
                request["sequence"] = i if vary == "sequence" else 0
                requests.append(request)
            answers = self.engine.run(requests)
            assert all(answer["ok"] for answer in answers), [a for a in answers if not a["ok"]][:1]
            ids += [tuple(answer["token_ids"]) for answer in answers]
        return ids


@pytest.fixture(scope="module", params=[23])
def setup(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sampling")
    spec = make_checkpoint.random_spec(request.param)
    spec.text.max_positions = 2048
    make_checkpoint.write_checkpoint(directory, spec)
    engine = Engine()
    assert engine.open(directory)["ok"]
    picture = noise_picture(request.param, (50, 40))
    yield Setup(engine, Reference(directory), picture, engine.frame(picture))
    engine.close()


def reference_options(options):
    # The reference cuts to 50 unless told otherwise.
    return {"do_sample": True, "top_k": 0, **options}


def processed(setup, options):
    """The distribution of the first token, after all processors and warpers."""
    options = {**options, "max_new_tokens": options.get("max_new_tokens", 1)}
    output = setup.reference.generate(setup.inputs(), **reference_options(options))
    return torch.softmax(output.scores[0][0].double(), -1)


def check_fit(counts, expected, draws):
    """Chi-square of observed counts against expected probabilities, rare outcomes pooled."""
    impossible = {key: n for key, n in counts.items() if expected.get(key, 0.0) == 0.0}
    assert not impossible, f"drawn, though the reference rules them out: {impossible}"
    statistic, cells, rare_seen, rare_expected = 0.0, 0, 0, 0.0
    for key, probability in expected.items():
        mean = probability * draws
        if mean < 5:
            rare_seen += counts.get(key, 0)
            rare_expected += mean
        else:
            statistic += (counts.get(key, 0) - mean) ** 2 / mean
            cells += 1
    if rare_expected >= 5:
        statistic += (rare_seen - rare_expected) ** 2 / rare_expected
        cells += 1
    assert cells > 1, "nothing to compare: the distribution has one outcome"
    probability = chi2.sf(statistic, cells - 1)
    assert probability > SIGNIFICANCE, f"chi-square {statistic:.1f} over {cells} cells, p = {probability:.1e}"


def count(values):
    counts = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


@pytest.mark.parametrize("name", SETTINGS)
def test_first_token_follows_the_reference(setup, name):
    options = SETTINGS[name]
    expected = {i: p for i, p in enumerate(processed(setup, options).tolist()) if p > 0}
    drawn = setup.draw(DRAWS, vary="sequence" if name == "all" else "seed", max_new_tokens=1, **options)
    check_fit(count(ids[0] for ids in drawn), expected, DRAWS)


def test_two_tokens_together_follow_the_reference(setup):
    options = {"temperature": 1.3, "top_k": 3, "min_new_tokens": 2}
    first = processed(setup, {**options, "max_new_tokens": 2})
    inputs = setup.inputs()
    ends = set(setup.reference.model.generation_config.eos_token_id
               if isinstance(setup.reference.model.generation_config.eos_token_id, list)
               else [setup.reference.model.generation_config.eos_token_id])
    expected = {}
    for token in first.nonzero()[:, 0].tolist():
        longer = dict(inputs)
        longer["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], dim=1)
        longer["attention_mask"] = torch.ones_like(longer["input_ids"])
        with torch.no_grad():
            logits = setup.reference.model(**longer).logits[0, -1].double()
        logits[list(ends)] = -torch.inf
        logits = logits / options["temperature"]
        logits[logits < logits.topk(3).values[-1]] = -torch.inf
        second = torch.softmax(logits, -1)
        for other in second.nonzero()[:, 0].tolist():
            expected[(token, other)] = (first[token] * second[other]).item()
    drawn = setup.draw(DRAWS, max_new_tokens=2, **options)
    check_fit(count(drawn), expected, DRAWS)


def test_drawn_beams_follow_the_reference(setup):
    """One token, two beams: two candidates are drawn without replacement, and the likelier one wins."""
    options = {"temperature": 1.0, "top_k": 4, "num_beams": 2, "max_new_tokens": 1}
    output = setup.reference.generate(setup.inputs(), **reference_options(options))
    scores = output.scores[0][0].double()
    probability = torch.softmax(scores, -1)
    expected = {}
    for i in probability.nonzero()[:, 0].tolist():
        p = probability[i]
        expected[(i,)] = sum((p * q / (1 - p) + q * p / (1 - q)).item()
                             for j, q in enumerate(probability) if q > 0 and scores[j] < scores[i])
    expected = {key: p for key, p in expected.items() if p > 0}
    check_fit(count(setup.draw(DRAWS, **options)), expected, DRAWS)


def test_same_seed_same_text_whatever_runs_beside_it(setup):
    options = {"max_new_tokens": 12, "temperature": 1.1}
    together = setup.draw(24, **options)
    for i in (0, 5, 23):
        request = raw_request(TEXT, [setup.frame], seed=i, **options)
        assert tuple(setup.engine.run([request])[0]["token_ids"]) == together[i]
    assert len(set(together)) > 12


def test_sequence_changes_the_draw(setup):
    drawn = setup.draw(16, vary="sequence", max_new_tokens=12, temperature=1.1)
    assert len(set(drawn)) > 8


def test_without_seed_texts_differ(setup):
    requests = [raw_request(TEXT, [setup.frame], max_new_tokens=12, temperature=1.1) for _ in range(16)]
    assert len({tuple(answer["token_ids"]) for answer in setup.engine.run(requests)}) > 8
