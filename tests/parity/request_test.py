#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests through the public API: bad ones get one sentence, many at once all end, cancelled ones end early."""

import pytest

import make_checkpoint
from engine import Engine, noise_picture, raw_request
from reference import Reference
from specs import PUBLISHED_TILES

# Steps of such a model take some ten microseconds: nobody is to get to the end before it is told to stop.
LONG = {"max_new_tokens": 12000, "min_new_tokens": 12000}


def opened(directory, context):
    spec = make_checkpoint.random_spec(3)
    spec.text.max_positions = context
    spec.rope = "default"
    spec.template_style = "json"
    make_checkpoint.write_checkpoint(directory, spec)
    engine = Engine()
    engine.directory_of_model = directory
    assert engine.open(directory)["ok"]
    return engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    engine = opened(tmp_path_factory.mktemp("model"), 1024)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def patient_engine(tmp_path_factory):
    engine = opened(tmp_path_factory.mktemp("model"), 16384)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def frame(engine):
    return engine.frame(noise_picture(1, (60, 40)))


def one(engine, request):
    return engine.run([request])[0]


def refused(engine, request, *words, kinds=("invalid_argument",)):
    answer = one(engine, request)
    assert not answer["ok"], answer
    error = answer["error"]
    assert error["kind"] in kinds, error
    assert "\n" not in error["message"] and error["message"], error
    for word in words:
        assert word in error["message"], f"{word!r} is not in: {error['message']}"
    assert one(engine, raw_request("still alive", [], max_new_tokens=2))["ok"]


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_empty_prompt(engine, text):
    refused(engine, raw_request(text), "prompt")
    refused(engine, {"prompt": {"turns": [{"role": "user", "text": text}]}}, "prompt")


def test_no_turn(engine):
    refused(engine, {"prompt": {"turns": []}})


def test_last_turn_is_the_assistants(engine):
    refused(engine, {"prompt": {"turns": [{"role": "user", "text": "x"}, {"role": "assistant", "text": "y"}]}})


@pytest.mark.parametrize("name", ["nonsense", "", "HF"])
def test_unknown_format(engine, name):
    refused(engine, {"prompt": {"format": name, "turns": [{"role": "user", "text": "x"}]}}, "format")


@pytest.mark.parametrize("frames,text", [(0, "a <image> b"), (1, "<image><image> two"), (2, "one <image>"),
                                         (1, "none for it")])
def test_placeholders_and_pictures_differ(engine, frame, frames, text):
    if frames == 1 and "<image>" not in text:
        request = raw_request(text, [frame], max_new_tokens=1)
        answer = one(engine, request)  # the picture goes in front, or the request is refused: never silently lost
        assert not answer["ok"] or answer["image_tokens"] > 0
        return
    refused(engine, raw_request(text, [frame] * frames), "<image>")


@pytest.mark.parametrize("text", ["<image>", "<image><image>", "<image> <image>\n", "a<image>b<image>c", "\n<image>\n<image>",
                                  "</s><image><s><image>", "<image><pad><image>", "<ima<image>ge><image>"])
def test_placeholders_in_odd_places(engine, frame, text):
    pictures = [frame] * text.count("<image>")
    answer = one(engine, raw_request(text, pictures, max_new_tokens=3))
    assert answer["ok"], answer
    assert answer["image_tokens"] > 0


def test_prompt_longer_than_the_context(engine):
    refused(engine, raw_request("word " * 3000), "1024", kinds=("prompt_too_long",))


def test_new_tokens_are_clipped_to_the_context(engine):
    answer = one(engine, raw_request("few words", max_new_tokens=100000, min_new_tokens=2000))
    if answer["ok"]:
        assert answer["prompt_tokens"] + len(answer["token_ids"]) <= 1024
        assert answer["finish_reason"] == "length"
    else:
        assert answer["error"]["kind"] in ("invalid_argument", "prompt_too_long")


@pytest.mark.parametrize("frame_size", [(0, 0), (0, 5), (5, 0), (-3, 4)])
def test_frame_of_no_size(engine, frame, frame_size):
    broken = {**frame, "width": frame_size[0], "height": frame_size[1]}
    refused(engine, raw_request("<image>", [broken]))


def test_frame_with_too_few_bytes(engine, frame):
    refused(engine, raw_request("<image>", [{**frame, "height": frame["height"] + 1}]))
    refused(engine, raw_request("<image>", [{**frame, "width": 1 << 30, "height": 1 << 30}]))


@pytest.mark.parametrize("name,value", [
    ("max_new_tokens", 0), ("max_new_tokens", -1), ("min_new_tokens", -1), ("temperature", -0.5), ("top_k", -1),
    ("top_p", 0), ("top_p", 1.5), ("top_p", -1), ("min_p", -0.1), ("min_p", 1.1), ("repetition_penalty", 0),
    ("repetition_penalty", -1), ("no_repeat_ngram_size", -1), ("num_beams", 0), ("num_beams", -2),
    ("num_beams", 1000000), ("stop", [""])])
def test_option_out_of_range(engine, name, value):
    refused(engine, raw_request("x", **{name: value}), name.replace("_", "-").split("-")[0])


def test_many_at_once_all_end(engine, frame):
    requests = [raw_request("<image> " + "w " * (i % 50), [frame], max_new_tokens=1 + i % 7,
                            num_beams=1 + (i % 5 == 0) * 2) for i in range(120)]
    answers = engine.run(requests)
    assert [len(answer["token_ids"]) > 0 for answer in answers] == [True] * len(requests)
    for i in (0, 17, 50, 119):
        assert one(engine, requests[i])["token_ids"] == answers[i]["token_ids"]


def test_more_tokens_than_the_cache_holds_at_once(engine):
    """What does not fit beside the others waits; nothing is refused that fits alone."""
    requests = [raw_request("w " * 300, max_new_tokens=200, min_new_tokens=200, stream=i) for i in range(16)]
    for request in requests:
        request["options"].pop("stream")
    answers = engine.run(requests)
    assert all(answer["ok"] and len(answer["token_ids"]) == 200 for answer in answers)


def test_cancelled_request_ends_with_what_it_has(patient_engine):
    request = {**raw_request("go on", **LONG), "partial": True, "cancel_after": 3}
    answer = one(patient_engine, request)
    if answer["ok"]:
        assert answer["finish_reason"] == "cancelled"
        assert 0 < len(answer["token_ids"]) < LONG["max_new_tokens"]
    else:
        assert answer["error"]["kind"] == "cancelled"


def test_cancelling_one_leaves_the_others(patient_engine):
    engine = patient_engine
    plain = raw_request("others", max_new_tokens=60, min_new_tokens=60)
    expected = one(engine, plain)["token_ids"]
    stopped = {**raw_request("go on", **LONG), "partial": True, "cancel_after": 1}
    answers = engine.run([plain, stopped, plain, stopped, plain])
    assert [answers[i]["token_ids"] for i in (0, 2, 4)] == [expected] * 3


def test_stop_string_at_once(engine):
    answer = one(engine, raw_request("hello", max_new_tokens=50))
    letter = next((c for c in answer["text"] if c.isascii() and c.isalpha()), None)
    assert letter is not None, "the answer has no letter to stop at"
    stopped = one(engine, raw_request("hello", max_new_tokens=50, stop=[letter]))
    assert stopped["finish_reason"] == "stop_string" and letter in stopped["text"]
    assert len(stopped["token_ids"]) <= len(answer["token_ids"])


def test_timings_add_up(engine, frame):
    timing = one(engine, raw_request("<image>", [frame], max_new_tokens=8))["timing"]
    parts = timing["wait_ms"] + timing["vision_ms"] + timing["prefill_ms"] + timing["decode_ms"]
    assert all(value >= 0 for value in timing.values())
    assert 0 < timing["total_ms"] and parts <= timing["total_ms"] * 1.01 + 1, timing


def test_two_engines_of_one_model_are_one(engine):
    """Opened again in the same process, the model is not loaded again; see also the unit tests."""
    again = engine.open(engine.directory_of_model)
    assert again["ok"] and one(engine, raw_request("x", max_new_tokens=1))["ok"]


def test_bfloat16_on_the_cpu_describes(engine, frame):
    assert engine.open(engine.directory_of_model, dtype="bfloat16")["info"]["dtype"] == "bfloat16"
    request = raw_request("USER: <image>\nWhat? ASSISTANT:", [frame], max_new_tokens=8)
    half = one(engine, request)
    assert half["ok"] and len(half["token_ids"]) > 0
    assert engine.open(engine.directory_of_model)["info"]["dtype"] == "float32"
    full = one(engine, request)
    # Eight bits of mantissa still see the same picture: the first choice is one of the likely ones in float32.
    assert abs(half["logprobs"][0] - full["logprobs"][0]) < 0.5


def test_thousands_of_image_tokens(tmp_path):
    """Pictures in as many tokens as real LLaVA-1.6 checkpoints make of them, several requests at once."""
    spec = make_checkpoint.random_spec(5, "next", "mistral")
    spec.vision.image, spec.vision.patch, spec.grids, spec.rope = 336, 14, PUBLISHED_TILES, "default"
    spec.text.max_positions, spec.text.sliding_window, spec.sharded = 6500, 3000, False
    spec.preprocessor = {"image_processor_type": "LlavaNextImageProcessor", "size": {"shortest_edge": 336},
                         "crop_size": {"height": 336, "width": 336}}
    make_checkpoint.write_checkpoint(tmp_path, spec)
    reference, engine = Reference(tmp_path), Engine()
    assert engine.open(tmp_path)["ok"]
    requests, expected = [], []
    for sizes, tokens in [([(1024, 1024)], 2928), ([(640, 480), (1000, 300)], 2340 + 2182), ([(300, 200)], 1464)]:
        pictures = [noise_picture(7, size) for size in sizes]
        text = "USER: " + "<image>\n" * len(sizes) + "What is this? ASSISTANT:"
        requests.append(raw_request(text, [engine.frame(picture) for picture in pictures], max_new_tokens=6))
        expected.append((reference.generate(reference.inputs(text, pictures), max_new_tokens=6, do_sample=False), tokens))
    for answer, (theirs, tokens) in zip(engine.run(requests), expected):
        assert answer["ok"] and answer["image_tokens"] == tokens, answer
        assert answer["token_ids"] == theirs.ids or min(theirs.gaps) < 1e-5, (answer["token_ids"], theirs.ids)
    large = engine.frame(noise_picture(7, (1024, 1024)))
    refused(engine, raw_request("<image> <image> <image> x", [large] * 3), "context", kinds=("prompt_too_long",))
    engine.close()


def test_tiles_of_a_model_without_any(engine, frame):
    refused(engine, raw_request("<image> x", [frame], image_aspect_ratio="anyres"), "anyres", "crop",
            kinds=("unsupported",))
