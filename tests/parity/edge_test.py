#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where generation has its edges, against the reference on one small model: the context's end, texts of one token,
several pictures with beams, defaults out of generation_config.json, several end ids, scores, loops."""

import dataclasses
import itertools
import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

import make_checkpoint
from engine import Engine, noise_picture, raw_request
from generation_test import loop_period
from reference import Reference

CONTEXT = 400
TEXT = "USER: <image>\nWhat is in this picture? ASSISTANT:"
EARLY_STOPPING = {"false": False, "true": True, "never": "never"}
SEARCHES = [{}] + [{"num_beams": 3, "early_stopping": early, "length_penalty": penalty}
                   for early in EARLY_STOPPING for penalty in (1.0, 0.0, -1.0, 2.0)]


def name_of(search):
    return " ".join(f"{key}={value}" for key, value in search.items()) or "greedy"


def small_spec(accept=lambda spec: True):
    """The first random shape of few image tokens and of nothing unusual."""
    for seed in itertools.count(40):
        spec = make_checkpoint.random_spec(seed)
        if (spec.rope == "default" and 4 <= make_checkpoint.spec_image_tokens(spec) <= 30 and spec.text.layers > 1
                and spec.dtype == "float32" and accept(spec)):
            spec.text.max_positions = CONTEXT
            spec.generation_config = True
            return spec


@dataclasses.dataclass
class Model:
    """One checkpoint open in the engine, and as the reference has it."""
    directory: object
    engine: Engine
    reference: Reference

    def ask(self, text, pictures, **options):
        frames = [self.engine.frame(picture) for picture in pictures]
        return self.engine.run([raw_request(text, frames, **options)])[0]

    def expect(self, text, pictures, **options):
        if "early_stopping" in options:
            options["early_stopping"] = EARLY_STOPPING[options["early_stopping"]]
        if "stop" in options:
            options["stop_strings"] = options.pop("stop")
        return self.reference.generate(self.reference.inputs(text, pictures), **options)

    def prompt_tokens(self, text, pictures):
        return self.reference.inputs(text, pictures)["input_ids"].shape[1]

    def long_text(self, tokens):
        """A prompt of `tokens` ids with one picture."""
        for filler in ("e ", "a ", "? ", "1 ", "x", "ab "):
            low, high = 0, tokens
            while low < high:
                middle = (low + high) // 2
                if self.prompt_tokens(TEXT + filler * middle, [PICTURE]) < tokens:
                    low = middle + 1
                else:
                    high = middle
            if self.prompt_tokens(TEXT + filler * low, [PICTURE]) == tokens:
                return TEXT + filler * low
        raise AssertionError(f"no prompt of {tokens} tokens found")


PICTURE = noise_picture(7, (50, 40))


def equal(answer, expected):
    assert answer["ok"], answer
    assert answer["token_ids"] == expected.ids
    assert answer["logprobs"] == pytest.approx(expected.logprobs, abs=1e-3)
    if expected.score is not None:
        assert answer["sequence_score"] == pytest.approx(expected.score, rel=1e-4, abs=1e-4)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("edge")
    spec = small_spec()
    spec.eos = [2]
    make_checkpoint.write_checkpoint(directory, spec)
    engine = Engine()
    assert engine.open(directory)["ok"]
    yield Model(directory, engine, Reference(directory))
    engine.close()


@pytest.fixture
def variant(model, tmp_path):
    """Makes the same model with other generation defaults."""
    engine = Engine()

    def make(**settings):
        directory = tmp_path / "variant"
        shutil.copytree(model.directory, directory)
        path = directory / "generation_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
        assert engine.open(directory)["ok"]
        return Model(directory, engine, Reference(directory))

    yield make
    engine.close()


@pytest.mark.parametrize("search", SEARCHES, ids=name_of)
@pytest.mark.parametrize("room", [1, 2, 9])
def test_the_contexts_end_ends_the_text(model, search, room):
    text = model.long_text(CONTEXT - room)
    answer = model.ask(text, [PICTURE], max_new_tokens=5000, **search)
    equal(answer, model.expect(text, [PICTURE], max_new_tokens=room, **search))
    assert answer["prompt_tokens"] == CONTEXT - room
    assert answer["finish_reason"] in ("length", "stop")


@pytest.mark.parametrize("search", [SEARCHES[0], SEARCHES[1]], ids=name_of)
def test_min_new_tokens_bow_to_the_context(model, search):
    text = model.long_text(CONTEXT - 5)
    answer = model.ask(text, [PICTURE], max_new_tokens=900, min_new_tokens=800, **search)
    equal(answer, model.expect(text, [PICTURE], max_new_tokens=5, min_new_tokens=5, **search))
    assert answer["finish_reason"] == "length"


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("over", [0, 1, 50])
def test_a_prompt_without_room_is_refused(model, beams, over):
    answer = model.ask(model.long_text(CONTEXT + over), [PICTURE], num_beams=beams)
    assert not answer["ok"] and answer["error"]["kind"] == "prompt_too_long"
    for number in (CONTEXT + over, CONTEXT):
        assert str(number) in answer["error"]["message"]


@pytest.mark.parametrize("search", SEARCHES, ids=name_of)
def test_several_pictures_with_beams(model, search):
    pictures = [noise_picture(seed, (60, 40 + seed)) for seed in range(3)]
    text = "USER: <image>\n<image>\nWhat <image> differs? ASSISTANT:"
    answer = model.ask(text, pictures, max_new_tokens=7, **search)
    equal(answer, model.expect(text, pictures, max_new_tokens=7, **search))
    swapped = model.ask(text, pictures[::-1], max_new_tokens=7, **search)
    assert swapped["logprobs"] != answer["logprobs"], "the order of the pictures does not matter"


@pytest.mark.parametrize("search", SEARCHES, ids=name_of)
def test_texts_of_one_token(model, search):
    equal(model.ask(TEXT, [PICTURE], max_new_tokens=1, **search),
          model.expect(TEXT, [PICTURE], max_new_tokens=1, **search))


@pytest.mark.parametrize("search", SEARCHES, ids=name_of)
def test_an_end_id_at_once(model, variant, search):
    first = model.ask(TEXT, [PICTURE], max_new_tokens=1)["token_ids"][0]
    ending = variant(eos_token_id=[2, first])
    answer = ending.ask(TEXT, [PICTURE], max_new_tokens=12, **search)
    equal(answer, ending.expect(TEXT, [PICTURE], max_new_tokens=12, **search))
    if not search:
        assert (answer["token_ids"], answer["finish_reason"]) == ([first], "stop")
    late = {"max_new_tokens": 12, "min_new_tokens": 4, **search}
    answer = ending.ask(TEXT, [PICTURE], **late)
    equal(answer, ending.expect(TEXT, [PICTURE], **late))
    assert len(answer["token_ids"]) > 4 or answer["finish_reason"] != "stop"


def test_a_request_that_ends_at_once_leaves_the_others_alone(model, variant):
    first = model.ask(TEXT, [PICTURE], max_new_tokens=1)["token_ids"][0]
    ending = variant(eos_token_id=[2, first])
    frame = ending.engine.frame(PICTURE)
    short = raw_request(TEXT, [frame], max_new_tokens=30)
    long = raw_request("Something else", [], max_new_tokens=30, min_new_tokens=30)
    beams = raw_request(TEXT, [frame], max_new_tokens=10, num_beams=3)
    alone = [ending.engine.run([request])[0]["token_ids"] for request in (short, long, beams)]
    answers = ending.engine.run([short, long, beams, short, beams, long, short])
    assert [answer["token_ids"] for answer in answers] == [alone[i] for i in (0, 1, 2, 0, 2, 1, 0)]


@pytest.mark.parametrize("search", SEARCHES, ids=name_of)
def test_a_stop_string_at_once(model, search):
    for words in range(10):
        text = f"USER: <image>\n{'what ' * words}? ASSISTANT:"
        token = model.ask(text, [PICTURE], max_new_tokens=1)["token_ids"][0]
        piece = model.reference.tokenizer.convert_ids_to_tokens(token)
        if not piece.startswith("<"):
            break
    assert not piece.startswith("<"), "the model always begins with a byte or a special token: take another one"
    options = {"max_new_tokens": 9, "stop": [piece[-1].replace("▁", " ")], **search}
    answer = model.ask(text, [PICTURE], **options)
    equal(answer, model.expect(text, [PICTURE], **options))
    if not search:
        assert (answer["token_ids"], answer["finish_reason"]) == ([token], "stop_string")


DEFAULTS = {
    "greedy, though it has a temperature": {"do_sample": False, "temperature": 0.3, "top_p": 0.5, "top_k": 3,
                                            "max_new_tokens": 9},
    "max_length does not count": {"max_length": 3, "max_new_tokens": 9},
    "beams": {"num_beams": 3, "length_penalty": -0.5, "early_stopping": True, "max_new_tokens": 9},
    "penalties": {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_new_tokens": 4, "max_new_tokens": 11},
    "many end ids": {"eos_token_id": [2, 30, 31, 32, 33, 34, 35, 36, 37], "num_beams": 2, "max_new_tokens": 14},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_come_from_the_checkpoint(variant, name):
    changed = variant(**DEFAULTS[name])
    equal(changed.ask(TEXT, [PICTURE]), changed.expect(TEXT, [PICTURE]))
    overridden = {"max_new_tokens": 6, "min_new_tokens": 0, "num_beams": 1, "repetition_penalty": 1.0,
                  "no_repeat_ngram_size": 0}
    equal(changed.ask(TEXT, [PICTURE], **overridden), changed.expect(TEXT, [PICTURE], **overridden))


def test_max_length_alone_does_not_count(variant):
    answer = variant(max_length=3).ask(TEXT, [PICTURE])
    assert answer["finish_reason"] == "stop" or len(answer["token_ids"]) == 128


def test_sampling_only_where_the_checkpoint_says_so(variant, model):
    greedy = model.ask(TEXT, [PICTURE], max_new_tokens=12)["token_ids"]
    sampling = variant(do_sample=True, temperature=3.0)
    assert sampling.ask(TEXT, [PICTURE], max_new_tokens=12, seed=1)["token_ids"] != greedy
    assert sampling.ask(TEXT, [PICTURE], max_new_tokens=12, temperature=0)["token_ids"] == greedy
    assert sampling.ask(TEXT, [PICTURE], max_new_tokens=12, top_k=1)["token_ids"] == greedy


@pytest.mark.parametrize("search", [SEARCHES[0], SEARCHES[1]], ids=name_of)
def test_likeliest_tokens_are_the_references(model, search):
    count = 6
    answer = model.ask(TEXT, [PICTURE], max_new_tokens=8, top_logprobs=count, repetition_penalty=1.2, **search)
    expected = model.expect(TEXT, [PICTURE], max_new_tokens=8, repetition_penalty=1.2, **search)
    equal(answer, expected)
    assert len(answer["top_logprobs"]) == len(expected.ids)
    for choices, raw in zip(answer["top_logprobs"], expected.raw):
        best = raw.topk(count)
        assert [choice["logprob"] for choice in choices] == pytest.approx(best.values.tolist(), abs=1e-3)
        for choice in choices:
            assert choice["logprob"] == pytest.approx(raw[choice["id"]].item(), abs=1e-3)
            piece = model.reference.tokenizer.convert_ids_to_tokens(choice["id"]) or ""
            assert choice["text"] == piece.replace("▁", " ")
    assert "top_logprobs" not in model.ask(TEXT, [PICTURE], max_new_tokens=2, **search)


def test_more_likeliest_tokens_than_there_are(model):
    answer = model.ask(TEXT, [PICTURE], max_new_tokens=2, top_logprobs=10**6)
    ids = [choice["id"] for choice in answer["top_logprobs"][0]]
    assert sorted(ids) == list(range(model.reference.model.config.text_config.vocab_size))


def forgetful(source, directory):
    """The same checkpoint with attention that adds nothing: each token decides the next, which must come to a loop."""
    shutil.copytree(source, directory)
    for path in directory.glob("*.safetensors"):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if ".o_proj." in name:
                tensor.zero_()
        save_file(tensors, path, metadata={"format": "pt"})
    return directory


def test_a_loop_is_cut(model, tmp_path):
    directory = forgetful(model.directory, tmp_path / "forgetful")
    model = Model(directory, Engine(), Reference(directory))
    assert model.engine.open(directory)["ok"]
    looped, options = 0, {"max_new_tokens": 250}
    for number in range(6):
        text = f"USER: <image>\n{'what ' * number}? ASSISTANT:"
        free = model.ask(text, [PICTURE], **options)["token_ids"]
        ends = [n for n in range(1, len(free) + 1) if loop_period(free[:n], 3)]
        answer = model.ask(text, [PICTURE], **options, repetition_guard=3, top_logprobs=1)
        if not ends:
            assert answer["token_ids"] == free
            continue
        looped += 1
        period = loop_period(free[:ends[0]], 3)
        kept = ends[0] - (max(3, -(-16 // period)) - 1) * period
        assert (answer["token_ids"], answer["finish_reason"]) == (free[:kept], "repetition")
        assert len(answer["logprobs"]) == len(answer["top_logprobs"]) == kept
        assert answer["text"] == model.reference.tokenizer.decode(free[:kept], skip_special_tokens=True).strip()
    model.engine.close()
    assert looped > 3, "hardly any text looped, so little was tried"


def test_a_guard_of_one_is_refused(model):
    answer = model.ask(TEXT, [PICTURE], repetition_guard=1)
    assert not answer["ok"] and "repetition-guard" in answer["error"]["message"]
