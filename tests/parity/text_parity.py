# SPDX-License-Identifier: LGPL-2.1-or-later
"""Text and pictures against the reference, live: ids, decoded text, prompts and pixels must be equal.

Tokenizers are sentencepiece models trained on the spot, loaded by the reference's LlamaTokenizer. (AutoTokenizer is no
reference for a LLaVA directory without tokenizer.json: transformers 5.17 takes a class there that puts no space in
front of the text and ignores `legacy`.) The reference's PIL image processors are CLIPImageProcessorPil and
LlavaImageProcessorPil; without the suffix 5.17 takes torchvision, which rounds otherwise.

VLM_TEXT_STRINGS and VLM_TEXT_PICTURES set how many are compared, VLM_TEXT_SEED where they start.
"""

import json
import os
import random

import numpy as np
import pytest
import sentencepiece
import transformers
from PIL import Image
from transformers import LlamaTokenizer, TokenizersBackend
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava.processing_llava import LlavaProcessor

from text_tool import Tool

transformers.utils.logging.set_verbosity_error()

STRINGS = int(os.environ.get("VLM_TEXT_STRINGS", "110000"))
PICTURES = int(os.environ.get("VLM_TEXT_PICTURES", "400"))
SEED = int(os.environ.get("VLM_TEXT_SEED", "0"))
PIECES = 900

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}")


@pytest.fixture(scope="module")
def tool():
    tool = Tool()
    yield tool
    tool.close()


# ---- Tokenizers

WORDS = ("USER ASSISTANT What is in this picture Describe the scene a red circle big small on top left of and image "
         "naïve café straße Здравствуй мир 日本語 テスト 你好 世界 한국어 مرحبا").split()


def sentences(rng):
    for _ in range(1200):
        words = [rng.choice(WORDS) if rng.random() < 0.6 else
                 "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randrange(1, 8)))
                 for _ in range(rng.randrange(1, 12))]
        yield " ".join(words) + rng.choice([".", "?", "!", " 42", "\t", ""])
    yield "".join(map(chr, range(33, 127)))


def train(path, seed, **changes):
    options = dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", split_digits=True,
                   remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, character_coverage=0.99)
    options.update(changes)
    prefix = str(path / "trained")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(random.Random(f"corpus {seed}")), model_prefix=prefix, vocab_size=PIECES,
        num_threads=1, minloglevel=2, **options)
    os.rename(prefix + ".model", path / "tokenizer.model")


def entry(text, **flags):
    return {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": True, **flags}


NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
DECODER = {"0": entry("<unk>"), "1": entry("<s>"), "2": entry("</s>"), str(PIECES): entry("<image>"),
           str(PIECES + 1): entry("<pad>")}
PLAIN = {**NAMED, "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "added_tokens_decoder": DECODER}
EVERY_KIND = {**DECODER, str(PIECES + 2): entry("<l>", lstrip=True), str(PIECES + 3): entry("<r>", rstrip=True),
              str(PIECES + 4): entry("<b>", lstrip=True, rstrip=True),
              str(PIECES + 5): entry("plain word", special=False, normalized=True),
              str(PIECES + 6): entry("<image>x", special=False),
              str(PIECES + 7): entry("<n>", normalized=True),
              str(PIECES + 8): entry(" <nb> ", normalized=True, lstrip=True, rstrip=True),
              str(PIECES + 9): entry("日本", special=False, lstrip=True)}
KINDS = {**PLAIN, "added_tokens_decoder": EVERY_KIND}


def published(content):
    """The steps that the published LLaVA-1.5 conversions have: `▁` in front of every stretch of text."""
    content["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    content["pre_tokenizer"] = None
    content["model"]["unk_token"] = "<unk>"


def merges_as_text(content):
    """Older files: merges as one text each, in a file that says less."""
    published(content)
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    for key in ("truncation", "padding"):
        content.pop(key)


def marked_but_not_prepended(content):
    published(content)
    del content["normalizer"]["normalizers"][0]


def metaspace(scheme):
    def change(content):
        content["pre_tokenizer"]["prepend_scheme"] = scheme
    return change


def without_bytes(content):
    published(content)
    content["model"].update(byte_fallback=False, fuse_unk=False)


def with_eos(content):
    content["post_processor"]["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})
    content["post_processor"]["special_tokens"]["</s>"] = {"id": "</s>", "ids": [2], "tokens": ["</s>"]}


def unchanged(content):
    pass


# Name: how the model is trained, tokenizer_config.json, and other files, or what is done to the tokenizer.json that the
# reference saves.
TOKENIZERS = {
    "legacy": ({}, {**PLAIN, "legacy": True}, {}),
    "not-legacy": ({}, {**PLAIN, "legacy": False}, {}),
    "legacy-absent": ({}, PLAIN, {}),
    "no-bos": ({}, {key: value for key, value in PLAIN.items() if key != "add_bos_token"}, {}),
    "bos-and-eos": ({}, {**PLAIN, "add_eos_token": True}, {}),
    "no-prefix": ({}, {**PLAIN, "add_prefix_space": False}, {}),
    "every-kind": ({}, KINDS, {}),
    "every-kind-legacy": ({}, {**KINDS, "legacy": True}, {}),
    "every-kind-no-bytes": ({"byte_fallback": False}, KINDS, {}),
    "older-files": ({}, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True,
                         "additional_special_tokens": ["<image>"]},
                    {"added_tokens.json": {"<image>": PIECES, "<pad>": PIECES + 1, "word": PIECES + 2},
                     "special_tokens_map.json": {key: entry(value) for key, value in NAMED.items()}}),
    "no-config": ({}, None, {}),
    "unigram": ({"model_type": "unigram"}, PLAIN, {}),
    "no-bytes": ({"byte_fallback": False}, PLAIN, {}),
    "nfkc": ({"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True}, PLAIN, {}),
    "symbols": ({"user_defined_symbols": ["<foo>", "blah"], "control_symbols": ["<ctl>"]}, PLAIN, {}),
    "symbols-legacy": ({"user_defined_symbols": ["<foo>", "blah", "  "], "control_symbols": ["<ctl>"]},
                       {**PLAIN, "legacy": True}, {}),
    "json": ({}, PLAIN, unchanged),
    "json-legacy": ({}, {**PLAIN, "legacy": True}, unchanged),
    "json-published": ({}, PLAIN, published),
    "json-older": ({}, PLAIN, merges_as_text),
    "json-not-prepended": ({}, PLAIN, marked_but_not_prepended),
    "json-first": ({}, KINDS, metaspace("first")),
    "json-always": ({}, KINDS, metaspace("always")),
    "json-never": ({}, KINDS, metaspace("never")),
    "json-every-kind": ({}, KINDS, published),
    "json-no-bytes": ({"byte_fallback": False}, PLAIN, without_bytes),
    "json-eos": ({"user_defined_symbols": ["<foo>", "blah"]}, PLAIN, with_eos),
}


def make_tokenizer(directory, name):
    """Writes a tokenizer's directory; its reference."""
    changes, config, files = TOKENIZERS[name]
    train(directory, SEED, **changes)
    if config is not None:
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
    if isinstance(files, dict):
        for file, content in files.items():
            (directory / file).write_text(json.dumps(content))
        return LlamaTokenizer.from_pretrained(directory)
    LlamaTokenizer.from_pretrained(directory).save_pretrained(directory)
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    files(content)
    path.write_text(json.dumps(content))
    return TokenizersBackend.from_pretrained(directory)


SPECIALS = ["<image>", "</s>", "<s>", "<unk>", "<pad>", "<0x41>", "<0x0A>", "<l>", "<r>", "<b>", "plain word", "word",
            "<image>x", "<foo>", "blah", "<ctl>", "<imag", "▁", "<", ">", "<n>", " <nb> ", "<nb>", "日本"]
SPACES = [" ", "  ", "   ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\u200b", "\u2028", "        ", "\x85", "\v"]


def random_text(rng):
    """A string; sometimes as bytes that are no UTF-8, which Python reads with replacement characters."""
    parts = []
    for _ in range(rng.choice([0, 1, 1, 2, 3, 5, 8, 13])):
        kind = rng.random()
        if kind < 0.3:
            parts.append(rng.choice(WORDS))
        elif kind < 0.5:
            parts.append(rng.choice(SPACES))
        elif kind < 0.7:
            parts.append(rng.choice(SPECIALS))
        elif kind < 0.8:
            parts.append("".join(chr(rng.randrange(32, 127)) for _ in range(rng.randrange(1, 9))))
        elif kind < 0.9:
            parts.append(chr(rng.choice([rng.randrange(0x80, 0xD800), rng.randrange(0xE000, 0x110000),
                                         rng.randrange(0, 32), 0x1F600 + rng.randrange(64), 0x301])))
        else:
            parts.append(" " + rng.choice(WORDS))
    data = "".join(parts).encode()
    if rng.random() < 0.1 and data:
        data = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = bytes(data)[:rng.randrange(len(data)) + 1]
    return data


def random_ids(rng, size):
    ids = []
    for _ in range(rng.randrange(0, 12)):
        if rng.random() < 0.5:
            ids.append(rng.randrange(size + 3))
        else:  # pieces 3…258 are the bytes
            ids += [3 + byte for byte in rng.choice(["é", "中", "😀", "a", "\n"]).encode()]
            if rng.random() < 0.3:
                ids.pop()
    return ids


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizer(tool, tmp_path, name):
    reference = make_tokenizer(tmp_path, name)
    loaded = tool.must("load", directory=str(tmp_path))
    rng = random.Random(f"{name} {SEED}")
    assert loaded["vocab_size"] == len(reference)
    special = {id for id, token in reference.added_tokens_decoder.items() if token.special}
    left = STRINGS // len(TOKENIZERS) + 1
    while left > 0:
        batch = [random_text(rng) for _ in range(min(left, 500))]
        left -= len(batch)
        texts = [data.decode(errors="replace") for data in batch]
        wanted = reference(texts)["input_ids"]
        for text, expected, ids in zip(texts, wanted, tool.must("encode", hex=[data.hex() for data in batch])["ids"]):
            assert ids == expected, (text, reference.convert_ids_to_tokens(ids),
                                     reference.convert_ids_to_tokens(expected))
        check_decoding(tool, reference, special, wanted + [random_ids(rng, len(reference)) for _ in batch])


def check_decoding(tool, reference, special, sequences):
    decoded = tool.must("decode", ids=sequences)
    texts = reference.batch_decode(sequences, skip_special_tokens=True)
    for ids, text, stream, wanted in zip(sequences, decoded["texts"], decoded["streams"], texts):
        assert text == wanted, ids
        # What grows is a start of the whole; a run of bytes at the end is still held back.
        assert wanted.startswith(stream), ids
        kept = [id for id in ids if id < len(reference) and id not in special]
        assert stream == wanted or "<0x" in reference.convert_ids_to_tokens(kept[-1]), ids


# What another family's tokenizer.json says, and the word that the refusal names it with.
OTHER_FAMILIES = {
    "byte-level": ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
                    "decoder": {"type": "ByteLevel"}}, "ByteLevel"),
    "tiktoken-like": ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{L}+"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}]}}, "pre_tokenizer"),
    "splitting": ({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
                                     "split": True}}, "split"),
    "normalising": ({"normalizer": {"type": "NFKC"}}, "NFKC"),
    "unigram": ({"model": {"type": "Unigram", "vocab": [["<unk>", 0.0]], "unk_id": 0}}, "Unigram"),
    "wordpiece": ({"model": {"type": "WordPiece", "vocab": {"a": 0}}}, "WordPiece"),
}


@pytest.mark.parametrize("name", OTHER_FAMILIES)
def test_other_families_are_refused(tool, tmp_path, name):
    make_tokenizer(tmp_path, "json")
    path = tmp_path / "tokenizer.json"
    changes, word = OTHER_FAMILIES[name]
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    reply = tool.ask("load", directory=str(tmp_path))
    assert word in reply["error"] and str(path) in reply["error"], reply


# ---- Prompts

def messages(turns, pictures, system):
    result = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system is not None else []
    for index, (role, text) in enumerate(turns):
        content = [{"type": "image"}] * pictures if index == 0 else []
        result.append({"role": role, "content": content + [{"type": "text", "text": text}]})
    return result


@pytest.mark.parametrize("name", ["legacy", "not-legacy", "older-files", "json-published"])
def test_prompt(tool, tmp_path, name):
    reference = make_tokenizer(tmp_path, name)
    tool.must("load", directory=str(tmp_path))
    rng = random.Random(f"prompt {name} {SEED}")
    picture = Image.new("RGB", (20, 10))
    for _ in range(60):
        side = rng.choice([16, 24])
        processor = LlavaProcessor(
            image_processor=CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
            tokenizer=reference, patch_size=8, vision_feature_select_strategy=rng.choice(["default", "full"]),
            num_additional_image_tokens=1, chat_template=TEMPLATE)
        pictures = rng.randrange(0, 4)
        system = rng.choice([None, "You see pictures."])
        turns = [("user" if index % 2 == 0 else "assistant", " ".join(rng.sample(WORDS, 4)))
                 for index in range(rng.choice([1, 1, 3]))]
        expected = processor.apply_chat_template(messages(turns, pictures, system), add_generation_prompt=True)
        text = tool.must("format", format="auto", system=system, turns=turns, pictures=pictures,
                         template=rng.choice([TEMPLATE, None]))["text"]
        assert text == expected
        batch = processor(text=text, images=[picture] * pictures or None)
        tokens = (side // 8) ** 2 + (processor.vision_feature_select_strategy == "full")
        ids = tool.must("prompt", text=text, image_id=PIECES, tokens=[tokens] * pictures)
        expected = np.asarray(batch["input_ids"]).reshape(-1).tolist()
        assert ids["ids"] == expected
        assert ids["offsets"] == [i for i, id in enumerate(expected) if id == PIECES][::tokens]


# ---- Pictures

def random_settings(rng):
    """What preprocessor_config.json says, and the class that reads it."""
    settings = {}

    def maybe(key, *values):
        if rng.random() < 0.6:
            settings[key] = rng.choice(values)

    side, other = rng.randrange(1, 70), rng.randrange(1, 70)
    maybe("size", {"shortest_edge": side}, {"height": side, "width": other}, side, [side, other])
    settings["crop_size"] = rng.choice([{"height": side, "width": side}, {"height": side, "width": other}, other,
                                        [other, side]])
    maybe("do_resize", True, True, False)
    maybe("do_center_crop", True, False)
    maybe("do_rescale", True, True, False)
    maybe("do_normalize", True, True, False)
    maybe("rescale_factor", 1 / 255, 0.00392156862745098, 1 / 127.5, 0.1)
    maybe("resample", 0, 1, 2, 3, 3, 4, 5)
    maybe("image_mean", [0.5, 0.4, 0.3], [0.0, 0.999, 0.1])
    maybe("image_std", [0.5, 0.25, 1.7])
    name = rng.choice(["CLIPImageProcessor", "LlavaImageProcessor"])
    if name == "LlavaImageProcessor":
        maybe("do_pad", True, False)
    return name, settings


def random_picture(rng):
    width, height = rng.choice([
        (rng.randrange(1, 90), rng.randrange(1, 90)), (1, 1), (rng.randrange(1, 400), rng.randrange(1, 4)),
        (rng.randrange(1, 4), rng.randrange(1, 400)), (rng.randrange(100, 700), rng.randrange(100, 500))])
    numbers = np.random.default_rng(rng.randrange(1 << 30))
    if rng.random() < 0.5:
        pixels = numbers.integers(0, 256, (height, width, 3), dtype=np.uint8)
    else:  # hard edges, where filters overshoot
        pixels = np.repeat(numbers.integers(0, 2, (height, width, 1), dtype=np.uint8) * 255, 3, axis=2)
    return np.ascontiguousarray(pixels)


def test_pixels(tool, tmp_path):
    rng = random.Random(f"pixels {SEED}")
    classes = {"CLIPImageProcessor": CLIPImageProcessorPil, "LlavaImageProcessor": LlavaImageProcessorPil}
    for index in range(PICTURES):
        name, settings = random_settings(rng)
        picture = random_picture(rng)
        height, width = picture.shape[:2]
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": name, **settings}))
        (tmp_path / "frame").write_bytes(picture.tobytes())
        tool.must("pictures", directory=str(tmp_path))
        aspect = rng.choice(["auto", "auto", "crop", "pad"])
        reference = classes[name].from_pretrained(tmp_path)
        if aspect != "auto":
            reference = LlavaImageProcessorPil(**{**settings, "do_pad": aspect == "pad"})
        expected = np.asarray(reference(Image.fromarray(picture))["pixel_values"][0], dtype=np.float32)
        reply = tool.must("preprocess", width=width, height=height, file=str(tmp_path / "frame"), aspect=aspect,
                          out=str(tmp_path / "pixels"))
        got = np.fromfile(tmp_path / "pixels", dtype=np.float32).reshape(reply["shape"])[0]
        assert got.shape == expected.shape, (index, settings, picture.shape)
        assert np.array_equal(got, expected), (index, settings, picture.shape, np.abs(got - expected).max())


def test_hamming_pixels(tool, tmp_path):
    """Whole scales, where weights are so even that their last bits decide."""
    settings = {"image_processor_type": "CLIPImageProcessor", "size": {"height": 31, "width": 31}, "resample": 5,
                "do_center_crop": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    tool.must("pictures", directory=str(tmp_path))
    reference = CLIPImageProcessorPil.from_pretrained(tmp_path)
    numbers = np.random.default_rng(SEED)
    for scale in (2, 3, 4, 5) * 25:
        pixels = numbers.integers(0, 256, (62, 31 * scale, 3), dtype=np.uint8)
        (tmp_path / "frame").write_bytes(pixels.tobytes())
        reply = tool.must("preprocess", width=31 * scale, height=62, file=str(tmp_path / "frame"), aspect="auto",
                          out=str(tmp_path / "pixels"))
        got = np.fromfile(tmp_path / "pixels", dtype=np.float32).reshape(reply["shape"])[0]
        assert np.array_equal(got, reference(Image.fromarray(pixels))["pixel_values"][0]), scale
