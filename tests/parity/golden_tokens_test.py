# SPDX-License-Identifier: LGPL-2.1-or-later
"""Token ids that LLaVA-1.5's authors published, and the reference, on a real checkpoint's tokenizer.

VLM_REAL_TOKENIZER names a directory that holds the tokenizer of a LLaVA-1.5 or Vicuna checkpoint (tokenizer.json, or
tokenizer.model with tokenizer_config.json); without it everything here is skipped:

    VLM_REAL_TOKENIZER=DIR VLM_TEXT_TOOL=build/tests/unit/text-tool python -m pytest tests/parity/golden_tokens_test.py
"""

import json
import os
import pathlib
import random

import pytest

from text_tool import Tool

DIRECTORY = os.environ.get("VLM_REAL_TOKENIZER", "")
pytestmark = pytest.mark.skipif(not DIRECTORY, reason="VLM_REAL_TOKENIZER names no directory")

IMAGE = -200
# The prompt of the llava_v1 template for "<image>\nPlease describe this image in detail."
GOLDEN = [1, 319, 13563, 1546, 263, 12758, 5199, 322, 385, 23116, 21082, 20255, 29889, 450, 20255, 4076, 8444, 29892,
          13173, 29892, 322, 1248, 568, 6089, 304, 278, 5199, 29915, 29879, 5155, 29889, 3148, 1001, 29901, 29871, IMAGE,
          29871, 13, 12148, 8453, 445, 1967, 297, 9493, 29889, 319, 1799, 9047, 13566, 29901]


@pytest.fixture(scope="module")
def tool():
    tool = Tool()
    tool.must("load", directory=DIRECTORY)
    yield tool
    tool.close()


def encode(tool, text):
    return tool.must("encode", hex=[text.encode().hex()])["ids"][0]


def test_golden_prompt(tool):
    text = tool.must("format", format="llava_v1", system=None, turns=[["user", "Please describe this image in detail."]],
                     pictures=1, template=None)["text"]
    ids = []
    for index, chunk in enumerate(text.split("<image>")):  # the original's way: chunk by chunk, one BOS
        ids += ([IMAGE] if index else []) + encode(tool, chunk)[1 if index else 0:]
    assert ids == GOLDEN


def test_text_after_the_end_token(tool):
    """`USER` after `</s>`: one piece where the tokenizer marks only the start of the whole text, else two."""
    ids = encode(tool, "</s>USER")
    assert ids in ([1, 2, 3148, 1001], [1, 2, 11889])


def test_equals_the_reference(tool):
    """Ids and text of random strings, against the class that reads the same files in the reference."""
    from transformers import LlamaTokenizer, TokenizersBackend
    from text_parity import random_ids, random_text
    whole = (pathlib.Path(DIRECTORY) / "tokenizer.json").exists()
    reference = (TokenizersBackend if whole else LlamaTokenizer).from_pretrained(DIRECTORY)
    rng = random.Random("real tokenizer")
    batch = [random_text(rng) for _ in range(5000)]
    wanted = reference([data.decode(errors="replace") for data in batch])["input_ids"]
    got = tool.must("encode", hex=[data.hex() for data in batch])["ids"]
    for data, ids, expected in zip(batch, got, wanted):
        assert ids == expected, json.dumps(data.decode(errors="replace"))
    sequences = wanted + [random_ids(rng, len(reference)) for _ in batch]
    texts = tool.must("decode", ids=sequences)["texts"]
    for ids, text, expected in zip(sequences, texts, reference.batch_decode(sequences, skip_special_tokens=True)):
        assert text == expected, ids
