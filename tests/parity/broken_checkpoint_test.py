#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A missing or broken checkpoint: one sentence that names the file and what is wrong with it, never a crash.

Everything that can be seen without reading weights must be refused by check_model already.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import make_checkpoint
from engine import Engine


@pytest.fixture(scope="module")
def engine():
    engine = Engine()
    yield engine
    engine.close()


def plain_spec(seed=3, **settings):
    spec = make_checkpoint.random_spec(seed)
    for name, value in {"sharded": False, "names_style": "classic", "preprocessor_style": "file", "dtype": "float32",
                        "rope": "default", "text.tied": False, "vocab_multiple": 1, "template_style": "json",
                        "generation_config": True, "explicit_defaults": True, "rope_style": "new",
                        "extra_buffers": False, "added_tokens_style": "config", "feature_layer": -2,
                        "projector_bias": True, "text.attention_bias": False, **settings}.items():
        make_checkpoint.apply_setting(spec, f"{name}={json.dumps(value)}")
    return spec


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    make_checkpoint.write_checkpoint(directory, plain_spec())
    return directory


@pytest.fixture(scope="module")
def whole_shards(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shards")
    make_checkpoint.write_checkpoint(directory, plain_spec(sharded=True))
    return directory


@pytest.fixture
def model(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


@pytest.fixture
def shards(whole_shards, tmp_path):
    return shutil.copytree(whole_shards, tmp_path / "shards")


def refused(engine, directory, *words, kinds=("invalid_model", "not_found", "unsupported"), checked=True):
    """Opening must fail with a message that has all `words`; with `checked`, checking alone must fail too."""
    messages = []
    for answer in ([engine.check(directory)] if checked else []) + [engine.open(directory)]:
        assert not answer["ok"], "a broken checkpoint was accepted"
        error = answer["error"]
        message = error["message"]
        assert error["kind"] in kinds, error
        assert "\n" not in message and len(message) < 600, message
        for word in words:
            assert word in message, f"{word!r} is not in: {message}"
        messages.append(message)
    assert len(set(messages)) == 1, messages
    # The process must be fit for the next one.
    return messages[0]


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_weights(directory, change, file="model.safetensors"):
    tensors = load_file(directory / file)
    change(tensors)
    save_file(tensors, directory / file, metadata={"format": "pt"})


def test_whole_checkpoint_opens(engine, model, shards):
    assert engine.check(model)["ok"]
    assert engine.open(model)["ok"]
    assert engine.open(shards)["ok"]


def test_no_such_directory(engine, tmp_path):
    refused(engine, tmp_path / "nowhere", "nowhere")


def test_file_instead_of_directory(engine, model):
    refused(engine, model / "config.json", "config.json")


def test_empty_directory(engine, tmp_path):
    refused(engine, tmp_path, "config.json")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.model", "model.safetensors", "preprocessor_config.json"])
def test_file_absent(engine, model, file):
    (model / file).unlink()
    refused(engine, model, file, kinds=("not_found", "invalid_model"))


@pytest.mark.parametrize("file", ["generation_config.json", "chat_template.json", "processor_config.json",
                                  "tokenizer_config.json"])
def test_optional_file_absent(engine, model, file):
    """These have defaults; where they hold the added tokens, their lack is an error about that, not a crash."""
    (model / file).unlink()
    answer = engine.open(model)
    assert answer["ok"] or "<image>" in answer["error"]["message"], answer


@pytest.mark.parametrize("file", ["model.safetensors.index.json", "model-00002-of-00003.safetensors"])
def test_shard_absent(engine, shards, file):
    (shards / file).unlink()
    refused(engine, shards, file, kinds=("not_found", "invalid_model"))


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "generation_config.json",
                                  "tokenizer_config.json", "processor_config.json", "chat_template.json",
                                  "tokenizer.model", "model.safetensors"])
@pytest.mark.parametrize("part", [0, 0.5, 0.97])
def test_file_truncated(engine, model, file, part):
    content = (model / file).read_bytes()
    (model / file).write_bytes(content[:int(len(content) * part)])
    refused(engine, model, file)


@pytest.mark.parametrize("length", range(0, 24))
def test_safetensors_header_truncated(engine, model, length):
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[:length])
    refused(engine, model, "model.safetensors")


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "generation_config.json",
                                  "tokenizer_config.json", "processor_config.json"])
@pytest.mark.parametrize("text", ["{", "[]", "null", "{\"a\": }", "\x00\x01\x02", "42", "\"text\"", "{} {}",
                                  "[" * 20000])
def test_wrong_json(engine, model, file, text):
    (model / file).write_text(text)
    refused(engine, model, file)


@pytest.mark.parametrize("text", ["{", "{}", "[]", "{\"weight_map\": []}", "{\"weight_map\": {\"a\": 3}}",
                                  "{\"weight_map\": {\"a\": \"../../outside.safetensors\"}}"])
def test_wrong_index(engine, shards, text):
    (shards / "model.safetensors.index.json").write_text(text)
    refused(engine, shards, "index.json")


@pytest.mark.parametrize("name", ["vision_tower.vision_model.embeddings.class_embedding",
                                  "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.bias",
                                  "multi_modal_projector.linear_1.bias", "language_model.model.embed_tokens.weight",
                                  "language_model.model.layers.0.mlp.up_proj.weight", "language_model.model.norm.weight",
                                  "language_model.lm_head.weight"])
def test_tensor_missing(engine, model, name):
    edit_weights(model, lambda tensors: tensors.pop(name))
    refused(engine, model, name)


@pytest.mark.parametrize("name", ["language_model.model.layers.99.mlp.up_proj.weight", "surprise",
                                  "language_model.model.layers.0.self_attn.q_proj.bias"])
def test_tensor_extra(engine, model, name):
    edit_weights(model, lambda tensors: tensors.update({name: torch.zeros(4)}))
    refused(engine, model, name)


@pytest.mark.parametrize("name", ["language_model.model.embed_tokens.weight", "language_model.lm_head.weight",
                                  "vision_tower.vision_model.embeddings.position_embedding.weight",
                                  "multi_modal_projector.linear_2.weight"])
def test_tensor_short(engine, model, name):
    rows = []

    def cut(tensors):
        rows.append(tensors[name].shape[0])
        tensors[name] = tensors[name][:-1].clone()
    edit_weights(model, cut)
    refused(engine, model, name, str(rows[0]), str(rows[0] - 1))


def test_tensor_of_another_type(engine, model):
    name = "language_model.model.norm.weight"
    edit_weights(model, lambda tensors: tensors.update({name: tensors[name].to(torch.int32)}))
    refused(engine, model, name)


def change_header(path, change):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    change(header)
    written = json.dumps(header).encode()
    path.write_bytes(len(written).to_bytes(8, "little") + written + content[8 + length:])


NORM = "language_model.model.norm.weight"


@pytest.mark.parametrize("entry", [
    {"data_offsets": [0, 1 << 40]}, {"data_offsets": [-4, 0]}, {"data_offsets": [8, 4]}, {"data_offsets": [0]},
    {"shape": [-1]}, {"shape": [1 << 62, 1 << 62]}, {"shape": "x"}, {"dtype": "F99"}, {"dtype": 3}],
    ids=lambda entry: json.dumps(entry))
def test_header_entry_wrong(engine, model, entry):
    change_header(model / "model.safetensors", lambda header: header[NORM].update(entry))
    refused(engine, model, "model.safetensors", NORM)


@pytest.mark.parametrize("length", [0, 1, 1 << 20, (1 << 63) - 1, (1 << 64) - 1])
def test_header_length_wrong(engine, model, length):
    path = model / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    refused(engine, model, "model.safetensors")


def set_key(path, value):
    def change(config):
        *parents, key = path.split(".")
        for parent in parents:
            config = config[parent]
        config[key] = value
    return change


@pytest.mark.parametrize("path,value", [
    ("architectures", ["OtherForCausalLM"]), ("model_type", "other"), ("text_config.model_type", "mamba"),
    ("vision_config.model_type", "siglip_vision_model"), ("text_config.rope_parameters.rope_type", "spiral"),
    ("text_config.hidden_act", "swishy"), ("vision_config.hidden_act", "swishy"), ("projector_hidden_act", "swishy"),
    ("vision_feature_select_strategy", "some"), ("vision_feature_layer", 99), ("vision_feature_layer", -99),
    ("vision_feature_layer", []), ("vision_feature_layer", "last"), ("text_config.hidden_size", 0),
    ("text_config.hidden_size", -8), ("text_config.hidden_size", "many"), ("text_config.num_hidden_layers", 1.5),
    ("text_config.num_attention_heads", 0), ("text_config.num_key_value_heads", 7), ("text_config.head_dim", 0),
    ("text_config.vocab_size", -1), ("text_config.vocab_size", 1 << 62), ("text_config.rms_norm_eps", "small"),
    ("text_config.max_position_embeddings", 0), ("vision_config.patch_size", 0), ("vision_config.patch_size", 4096),
    ("vision_config.image_size", 0), ("vision_config.num_attention_heads", 0), ("image_token_index", -5),
    ("image_token_index", 10**9), ("image_token_index", 5), ("text_config", "none"), ("vision_config", [])])
def test_config_value_wrong(engine, model, path, value):
    edit_json(model / "config.json", set_key(path, value))
    refused(engine, model, "config.json", path.split(".")[-1])


@pytest.mark.parametrize("path,value", [
    ("size", {"shortest_edge": 0}), ("size", {"shortest_edge": -3}), ("size", "large"), ("size", {"height": 8}),
    ("crop_size", {"height": 3, "width": 3}), ("image_std", [0, 0, 0]), ("image_mean", [0.5]), ("resample", 77),
    ("image_processor_type", "OtherImageProcessor"), ("rescale_factor", "x"), ("do_resize", "maybe")])
def test_preprocessor_value_wrong(engine, model, path, value):
    edit_json(model / "preprocessor_config.json", set_key(path, value))
    refused(engine, model, "preprocessor")


@pytest.mark.parametrize("path,value", [("eos_token_id", "end"), ("temperature", "hot"),
                                        ("num_beams", -1), ("top_p", 7)])
def test_generation_value_wrong(engine, model, path, value):
    edit_json(model / "generation_config.json", set_key(path, value))
    refused(engine, model, "generation_config.json", path)


def test_tokenizer_of_another_model(engine, model, tmp_path):
    other = plain_spec(seed=4, pieces=390)
    make_checkpoint.write_checkpoint(tmp_path / "other", other)
    shutil.copy(tmp_path / "other" / "tokenizer.model", model / "tokenizer.model")
    refused(engine, model, "tokenizer")


def test_unreadable_file(engine, model):
    (model / "config.json").unlink()
    (model / "config.json").mkdir()
    refused(engine, model, "config.json")


def test_unknown_device(engine, model):
    for device in "gpu", "cuda:99", "cuda:-1", "":
        answer = engine.open(model, device=device)
        assert not answer["ok"] and answer["error"]["kind"] in ("device", "invalid_argument"), answer
        assert "\n" not in answer["error"]["message"]
