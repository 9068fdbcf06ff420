#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which ids a repetition penalty and forbidden n-grams count: in the Hugging Face layout prompt and text, in the original
layout the text alone. The reference decides, run live, and a second run of it that counts the other way must come to
another text: else the case would show nothing."""

import dataclasses

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList, NoRepeatNGramLogitsProcessor
from transformers import RepetitionPenaltyLogitsProcessor

import make_checkpoint
from engine import Engine, noise_picture, raw_request
from original_checkpoint import random_original, write_original
from original_reference import OriginalReference
from reference import Reference
from specs import random_spec

TEXT = "USER: <image>\nWhat is in this picture? ASSISTANT:"
PICTURE = noise_picture(5, (40, 50))
SEARCHES = {"greedy": {}, "beams": {"num_beams": 3}}
RULES = {"repetition_penalty": 1.6, "no_repeat_ngram_size": 1}


class OtherCount(LogitsProcessor):
    """`rule` with another view of what was there: the ids behind `drop`, behind those of `more`."""

    def __init__(self, rule, drop, more):
        self.rule, self.drop, self.more = rule, drop, torch.tensor([more])

    def __call__(self, input_ids, scores):
        seen = input_ids[:, self.drop:]
        seen = torch.cat([self.more.expand(len(seen), -1).to(seen.dtype), seen], dim=1)
        return self.rule(seen, scores) if seen.shape[1] else scores


@dataclasses.dataclass
class Model:
    engine: Engine
    reference: object
    counts_prompt: bool

    def other_way(self, inputs, name, value, search, tokens):
        rule = (RepetitionPenaltyLogitsProcessor if name == "repetition_penalty" else NoRepeatNGramLogitsProcessor)(value)
        if self.counts_prompt:
            other = OtherCount(rule, inputs["input_ids"].shape[1], [])
        else:
            other = OtherCount(rule, 0, [i for i in inputs["ids"] if i >= 0])
        return self.reference.generate(inputs, max_new_tokens=tokens, do_sample=False, **search,
                                       logits_processor=LogitsProcessorList([other]))


def make_model(directory, layout, seed):
    engine = Engine()
    if layout == "hf":
        spec = random_spec(seed)
        spec.rope, spec.text.max_positions, spec.eos = "default", 4096, [2]
        make_checkpoint.write_checkpoint(directory, spec)
        assert engine.open(directory)["ok"]
        return Model(engine, Reference(directory), True)
    spec = random_original(seed)
    spec.base.rope, spec.base.text.max_positions, spec.base.eos, spec.max_length = "default", 4096, [2], None
    spec.tower, spec.kind = "inside", "whole"
    model, arguments, weights = write_original(directory, spec)
    assert engine.open(model, **arguments)["ok"]
    return Model(engine, OriginalReference(spec.settings(), weights, model), False)


@pytest.fixture(scope="module", params=["hf", "original"])
def model(request, tmp_path_factory):
    model = make_model(tmp_path_factory.mktemp("counting"), request.param, 21)
    yield model
    model.engine.close()


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("rule", RULES)
def test_counts_what_the_reference_counts(model, rule, search):
    tokens, options = 14, SEARCHES[search]
    frame = model.engine.frame(PICTURE)
    # What the model says by itself stands in the prompt already.
    said = model.engine.run([raw_request(TEXT, [frame], max_new_tokens=tokens)])[0]["text"]
    apart = 0
    for text in (TEXT, f"{TEXT} {said}", f"{said} {TEXT}", f"{said} {said} {TEXT} {said}"):
        inputs = model.reference.inputs(text, [PICTURE])
        expected = model.reference.generate(inputs, max_new_tokens=tokens, do_sample=False, **options,
                                            **{rule: RULES[rule]})
        answer = model.engine.run([raw_request(text, [frame], max_new_tokens=tokens, **options, **{rule: RULES[rule]})])[0]
        assert answer["token_ids"] == expected.ids, text
        apart += model.other_way(inputs, rule, RULES[rule], options, tokens).ids != expected.ids
    assert apart > 0, "what is counted makes no difference here"
