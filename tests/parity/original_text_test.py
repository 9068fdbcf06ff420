#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Text of the original layout: the ids of random strings, alone and piece by piece around pictures, and the text of ids,
as the tokenizer classes of transformers 4.37 have them. VLM_ORIGINAL_STRINGS sets how many, VLM_TEXT_SEED where they
start."""

import json
import os
import random

import pytest

from original_reference import IMAGE, load_tokenizer, piecewise_ids
from text_parity import KINDS, PIECES, SEED, entry, random_ids, random_text, tool, train  # noqa: F401, a fixture

STRINGS = int(os.environ.get("VLM_ORIGINAL_STRINGS", "110000"))
EXTRA = ["<im_patch>", "<im_start>", "<im_end>"]
OWN = {str(i): entry(text) for i, text in enumerate(["<unk>", "<s>", "</s>"])}
NAMED = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
         "pad_token": "<unk>"}
# Name: reader, added tokens, tokenizer_config.json.
TOKENIZERS = {
    "published": ("slow4", [], {**NAMED, "legacy": False, "added_tokens_decoder": OWN, "add_bos_token": True}),
    "legacy": ("slow4", [], {**NAMED, "legacy": True}),
    "no-flags": ("slow4", EXTRA[1:], NAMED),
    "start-end": ("slow4", EXTRA, {**NAMED, "legacy": False}),
    "no-bos": ("slow4", EXTRA[:1], {**NAMED, "legacy": True, "add_bos_token": False}),
    "every-kind": ("slow4", EXTRA, {**KINDS, "legacy": False}),
    "every-kind-legacy": ("slow4", EXTRA, KINDS),
    "mistral": ("fast4", [], NAMED),
    "mistral-start-end": ("fast4", EXTRA, {**NAMED, "legacy": False}),
}


def batches(rng):
    left = STRINGS // len(TOKENIZERS) + 1
    while left > 0:
        texts = [random_text(rng).decode(errors="replace") for _ in range(min(left, 500))]
        left -= len(texts)
        yield texts


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizer(tool, tmp_path, name):  # noqa: F811
    reader, extra, config = TOKENIZERS[name]
    train(tmp_path, SEED)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    reference = load_tokenizer(tmp_path, extra, reader == "fast4")
    loaded = tool.must("load", directory=str(tmp_path), reader=reader, extra=extra)
    assert loaded["vocab_size"] == len(reference)
    rng = random.Random(f"original {name} {SEED}")
    for texts in batches(rng):
        encoded = tool.must("encode", hex=[text.encode().hex() for text in texts])["ids"]
        for text, ids in zip(texts, encoded):
            assert ids == reference.encode(text), text
        sequences = [ids for ids in encoded + [random_ids(rng, PIECES) for _ in texts] if reference.shows(ids)]
        for ids, text in zip(sequences, tool.must("decode", ids=sequences)["texts"]):
            assert text.strip() == reference.decode(ids, skip_special_tokens=True).strip(), ids


@pytest.mark.parametrize("name", TOKENIZERS)
def test_around_pictures(tool, tmp_path, name):  # noqa: F811
    reader, extra, config = TOKENIZERS[name]
    train(tmp_path, SEED)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    reference = load_tokenizer(tmp_path, extra, reader == "fast4")
    tool.must("load", directory=str(tmp_path), reader=reader, extra=extra)
    rng = random.Random(f"pieces {name} {SEED}")
    for _ in range(400):
        text = "<image>".join(random_text(rng).decode(errors="replace") for _ in range(rng.randrange(1, 5)))
        ids = tool.must("prompt", text=text, image_id=IMAGE, tokens=[1] * text.count("<image>"), pieces=True)["ids"]
        assert ids == piecewise_ids(reference, text), text
