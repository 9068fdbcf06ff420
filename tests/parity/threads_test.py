#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""With any number of threads the engine computes the same bits.

The types whose steps run with other numbers of threads while the engine looks for the best one: texts, and the
log-probability of each token to the last bit.
"""

import contextlib
import os
import pathlib
import random

import pytest

import cases
import make_checkpoint
import specs
from engine import Engine, raw_request

DEMO_MODEL = pathlib.Path(__file__).resolve().parents[2] / "examples" / "demo-model" / "model"
SETTINGS = [{"dtype": "bfloat16"}, {"dtype": "bfloat16", "quantization": "int8"},
            {"dtype": "bfloat16", "quantization": "int4"}, {"dtype": "float32", "quantization": "int4"}]


@contextlib.contextmanager
def environment(**values):
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


def answers(checkpoint, requests, setting, threads):
    # Passive: there may be more threads than cores.
    with environment(OMP_NUM_THREADS=str(threads), OMP_DYNAMIC="false", OMP_WAIT_POLICY="passive"):
        engine = Engine()
        try:
            assert engine.open(checkpoint, **setting)["ok"]
            # One after the other, so that who is computed together does not depend on time.
            return [engine.run([raw_request(text, [engine.frame(picture)], max_new_tokens=24, min_new_tokens=24)])[0]
                    for text, picture in requests]
        finally:
            engine.close()


def random_checkpoint(directory):
    spec = specs.random_spec(5)
    spec.text.max_positions, spec.dtype = 1024, "float32"
    make_checkpoint.write_checkpoint(directory, spec)
    return directory


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: "-".join(setting.values()))
@pytest.mark.parametrize("model", ["random", "demo"])
def test_bits_do_not_depend_on_threads(tmp_path, model, setting):
    checkpoint = random_checkpoint(tmp_path) if model == "random" else DEMO_MODEL
    rng = random.Random(1)
    requests = [("<image> what is this", cases.random_picture(rng)) for _ in range(2)]
    alone = answers(checkpoint, requests, setting, 1)
    for threads in (2, 3):
        for one, several in zip(alone, answers(checkpoint, requests, setting, threads), strict=True):
            assert one["ok"] and several["ok"], (one, several)
            for name in ("token_ids", "logprobs"):
                assert one[name] == several[name]
